"""Carlini & Wagner's attack of torchattacks on the CNN in PyTorch.

Targeted and untargeted mode are two calls, as with foolbox. `inside` of a setting moves the images
by so much into the open interval (0, 1) first: the attack maps pixels by the inverse of tanh, which
is infinite at 0 and 1, and an infinite pixel has no gradient.
"""

import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import torchattacks  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_attack import Counted, compete, gather, to_torch, track


def attack(model: Counted, sample: contest.Sample, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Every cell, with the values of a setting; tracked: as with foolbox."""
    tracked, inside = setting.get("tracked", False), setting["inside"]
    arguments = {key: value for key, value in setting.items() if key not in ("inside", "tracked")}
    images, labels = to_torch(sample.images), torch.from_numpy(sample.labels)
    rows, targets = map(torch.from_numpy, contest.targeted_cells(sample.labels))

    def reach(net: torch.nn.Module) -> torch.Tensor:
        targeted = torchattacks.CW(net, **arguments)
        targeted.set_mode_targeted_by_label(quiet=True)
        return targeted(images[rows].clamp(inside, 1 - inside), targets)

    def leave(net: torch.nn.Module) -> torch.Tensor:
        return torchattacks.CW(net, **arguments)(images.clamp(inside, 1 - inside), labels)

    if tracked:
        return track(model, sample, reach, leave)
    model.gradients = 0
    cells = gather(sample.labels, reach(model), leave(model))
    return {"images": cells.transpose(0, 1, 3, 4, 2), "gradients": model.gradients}


if __name__ == "__main__":
    compete(sys.argv[1:], attack, torchattacks=version("torchattacks"))
