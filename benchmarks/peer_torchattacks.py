"""Carlini & Wagner's attack of torchattacks on the CNN in PyTorch.

Targeted and untargeted mode are two calls, as with foolbox. `inside` of a setting moves the images
by so much into the open interval (0, 1) first: the attack maps pixels by the inverse of tanh, which
is infinite at 0 and 1, and an infinite pixel has no gradient.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import torchattacks  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_attack import Counted, announce, gather, load_net, to_torch


def attack(model: Counted, sample: contest.Sample, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Every cell, with the values of a setting."""
    arguments = {key: value for key, value in setting.items() if key != "inside"}
    inside = setting["inside"]
    images = to_torch(sample.images).clamp(inside, 1 - inside)
    labels = torch.from_numpy(sample.labels)
    rows, targets = map(torch.from_numpy, contest.targeted_cells(sample.labels))
    model.gradients = 0
    targeted = torchattacks.CW(model, **arguments)
    targeted.set_mode_targeted_by_label(quiet=True)
    own = torchattacks.CW(model, **arguments)
    cells = gather(sample.labels, targeted(images[rows], targets), own(images, labels))
    return {"images": cells.transpose(0, 1, 3, 4, 2), "gradients": model.gradients}


def main(argv: Sequence[str]) -> None:
    options = contest.parse_attack(argv)
    torch.manual_seed(0)
    sample, weights = contest.read_attacked(options.directory)
    model = load_net(options.net, weights)
    announce(model, sample, torchattacks=version("torchattacks"))
    contest.take_attacks(options, lambda setting: attack(model, sample, setting))


if __name__ == "__main__":
    main(sys.argv[1:])
