"""Attacks of adv-lib on the CNN in PyTorch: those that minimise the L2 norm of the noise.

What is handed in is, of all images that the attack gave the net, the one that reaches its class on
bytes with the smallest noise: every image is rounded and judged once more, without a gradient, as
ours does with every candidate. Beside it the one with the smallest noise before rounding. All
targeted cells in one call, the untargeted ones in a second one.

adv-lib imports a plotter and torchvision, which these attacks do not use and which does not load
with every build of PyTorch: where they are missing, empty modules take their place.
"""

import sys
import types
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_attack import Counted, announce, gather, load_net, to_torch

for _name, _attribute in (("visdom", "Visdom"), ("torchvision", "models")):
    try:
        _ = __import__(_name)
    except (ImportError, RuntimeError):
        sys.modules[_name] = types.ModuleType(_name)
        setattr(sys.modules[_name], _attribute, None)

from adv_lib import attacks  # noqa: E402  # pyright: ignore[reportMissingImports]


class Tracked(torch.nn.Module):
    """The net, which keeps for each row [M] of a call the best image that it has seen.

    best: on bytes.  floats: as it was given.
    """

    def __init__(
        self, model: Counted, clean: torch.Tensor, classes: torch.Tensor, *, targeted: bool
    ) -> None:
        super().__init__()
        self.model, self.clean, self.classes, self.targeted = model, clean, classes, targeted
        self.best, self.distance = clean.clone(), torch.full((len(clean),), np.inf)
        self.floats, self.exact = clean.clone(), torch.full((len(clean),), np.inf)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        with torch.no_grad():
            given = images.detach()
            seen = torch.round(given.clamp(0, 1) * 255) / 255
            self._keep(seen, self.model.net(seen), self.best, self.distance)
            self._keep(given, logits, self.floats, self.exact)
        return logits

    def _keep(
        self, seen: torch.Tensor, logits: torch.Tensor, best: torch.Tensor, least: torch.Tensor
    ) -> None:
        """Put those of the images that are successes nearer than `least` into `best`."""
        distance = (seen - self.clean).flatten(1).norm(dim=1)
        nearer = ((logits.argmax(1) == self.classes) == self.targeted) & (distance < least)
        best[nearer], least[nearer] = seen[nearer], distance[nearer]


def attack(model: Counted, sample: contest.Sample, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Every cell, by the attack `setting["attack"]` with the other values of the setting."""
    arguments = {key: value for key, value in setting.items() if key != "attack"}
    method = getattr(attacks, setting["attack"])
    images, labels = to_torch(sample.images), torch.from_numpy(sample.labels)
    rows, targets = map(torch.from_numpy, contest.targeted_cells(sample.labels))
    model.gradients = 0
    reach = Tracked(model, images[rows], targets, targeted=True)
    _ = method(reach, images[rows], targets, targeted=True, **arguments)
    leave = Tracked(model, images, labels, targeted=False)
    _ = method(leave, images, labels, targeted=False, **arguments)
    cells = {
        "images": gather(sample.labels, reach.best, leave.best),
        "floats": gather(sample.labels, reach.floats, leave.floats),
    }
    return {
        **{name: images.transpose(0, 1, 3, 4, 2) for name, images in cells.items()},
        "gradients": model.gradients,
    }


def main(argv: Sequence[str]) -> None:
    options = contest.parse_attack(argv)
    torch.manual_seed(0)
    sample, weights = contest.read_attacked(options.directory)
    model = load_net(options.net, weights)
    announce(model, sample, **{"adv-lib": metadata.version("adv-lib")})
    contest.take_attacks(options, lambda setting: attack(model, sample, setting))


if __name__ == "__main__":
    main(sys.argv[1:])
