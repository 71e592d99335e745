"""MTCNN of facenet-pytorch, with its own settings, which differ: ONet's threshold is 0.7, not 0.8.

A folder in one call is one array; its pictures have to be of one size.

It takes the suppression of overlapping boxes from torchvision, whose wheels do not load with every
build of PyTorch ("operator torchvision::nms does not exist"). Where they do not, `stand_in` takes
its place, and the table says so.
"""

import sys
import types
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import scenes


def keep(boxes: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """Indices of the boxes [n, 4] that no better kept one covers by more than `limit`."""
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    covered = shared > limit * (area[:, None] + area[None] - shared)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if alive[i]:
            kept.append(i)
            alive &= ~covered[i]
    return order[kept]


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, limit: float
) -> torch.Tensor:
    """As torchvision.ops.boxes.batched_nms: every group by itself, all of them best first."""
    arrays = [array.detach().cpu().numpy() for array in (boxes, scores, groups)]
    parts = [np.zeros(0, np.int64)]
    for group in np.unique(arrays[2]):
        members = np.flatnonzero(arrays[2] == group)
        parts.append(members[keep(arrays[0][members], arrays[1][members], limit)])
    kept = np.concatenate(parts)
    return torch.from_numpy(kept[np.argsort(-arrays[1][kept], kind="stable")])


def stand_in() -> str:
    """Make `import torchvision` work for facenet-pytorch; what suppresses boxes, for the table."""
    try:
        import torchvision  # pyright: ignore[reportMissingImports]

        loaded = torchvision.__version__
    except (ImportError, RuntimeError, OSError, AttributeError):
        names = ("", ".transforms", ".transforms.functional", ".ops", ".ops.boxes")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        modules = {name: types.ModuleType(f"torchvision{name}") for name in names}
        modules[".ops.boxes"].__dict__["batched_nms"] = batched_nms
        modules[".transforms"].__dict__["functional"] = modules[".transforms.functional"]
        sys.modules.update({f"torchvision{name}": module for name, module in modules.items()})
        return "a stand-in in NumPy"
    return f"torchvision {loaded}"


def main(argv: Sequence[str]) -> None:
    suppression = stand_in()
    import facenet_pytorch  # pyright: ignore[reportMissingImports] -- needs torchvision, see above

    detector = facenet_pytorch.MTCNN(keep_all=True, device="cpu")

    def as_boxes(found: np.ndarray | None) -> np.ndarray:
        return np.zeros((0, 4)) if found is None else np.asarray(found, np.float64).reshape(-1, 4)

    def find(images: Sequence[np.ndarray], together: bool) -> list[np.ndarray]:
        if together and len({image.shape for image in images}) == 1:
            found, _ = detector.detect(np.stack(images))
            return [as_boxes(boxes) for boxes in found]
        return [as_boxes(detector.detect(image)[0]) for image in images]

    def find_scored(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, scores = detector.detect(image)
        return as_boxes(found), np.zeros(0) if found is None else np.asarray(scores)

    facts = {
        "versions": {"facenet-pytorch": version("facenet-pytorch"), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "suppression": suppression,
    }
    if argv:
        scenes.take_turns(scenes.parse(argv), find, **facts)
    else:
        scenes.answer(find_scored, **facts)


if __name__ == "__main__":
    main(sys.argv[1:])
