"""Attacks of foolbox on the CNN in PyTorch: Carlini & Wagner's, and DDN.

All targeted cells in one call, the untargeted ones in a second one: foolbox has
another criterion for those.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import foolbox  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_attack import Counted, announce, gather, load_net, to_torch

ATTACKS = {"cw": "L2CarliniWagnerAttack", "ddn": "DDNAttack"}


def attack(model: Counted, sample: contest.Sample, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Every cell, by the attack `setting["attack"]` with the other values of the setting."""
    arguments = {key: value for key, value in setting.items() if key != "attack"}
    method = getattr(foolbox.attacks, ATTACKS[setting["attack"]])(**arguments)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    images, labels = to_torch(sample.images), torch.from_numpy(sample.labels)
    rows, targets = map(torch.from_numpy, contest.targeted_cells(sample.labels))
    model.gradients = 0
    reach = foolbox.criteria.TargetedMisclassification(targets)
    targeted, _, reached = method(wrapped, images[rows], reach, epsilons=None)
    leave = foolbox.criteria.Misclassification(labels)
    own, _, left = method(wrapped, images, leave, epsilons=None)
    return {
        "images": gather(sample.labels, targeted, own).transpose(0, 1, 3, 4, 2),
        "claimed": gather(sample.labels, reached, left),
        "gradients": model.gradients,
    }


def main(argv: Sequence[str]) -> None:
    options = contest.parse_attack(argv)
    torch.manual_seed(0)
    sample, weights = contest.read_attacked(options.directory)
    model = load_net(options.net, weights)
    announce(model, sample, foolbox=foolbox.__version__)
    contest.take_attacks(options, lambda setting: attack(model, sample, setting))


if __name__ == "__main__":
    main(sys.argv[1:])
