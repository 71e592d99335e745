"""Attacks of adv-lib on the CNN in PyTorch: DDN (Rony et al. 2019) and ALMA (Rony et al. 2021).

What is handed in is, of all images that the attack gave the net, the one that reaches its class on
bytes with the smallest noise: every image is rounded and judged once more, without a gradient, as
ours does with every candidate. All targeted cells in one call, the untargeted ones in a second one.

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
    """The net, which keeps for each row [M] of a call the best image on bytes that it has seen."""

    def __init__(
        self, model: Counted, clean: torch.Tensor, classes: torch.Tensor, *, targeted: bool
    ) -> None:
        super().__init__()
        self.model, self.clean, self.classes, self.targeted = model, clean, classes, targeted
        self.best, self.distance = clean.clone(), torch.full((len(clean),), np.inf)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            seen = torch.round(images.detach().clamp(0, 1) * 255) / 255
            hit = self.model.net(seen).argmax(1) == self.classes
            distance = (seen - self.clean).flatten(1).norm(dim=1)
            nearer = (hit == self.targeted) & (distance < self.distance)
            self.best[nearer], self.distance[nearer] = seen[nearer], distance[nearer]
        return self.model(images)


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
    return {
        "images": gather(sample.labels, reach.best, leave.best).transpose(0, 1, 3, 4, 2),
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
