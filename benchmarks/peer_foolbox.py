"""Attacks of foolbox on the CNN in PyTorch: Carlini & Wagner's, and DDN.

All targeted cells in one call, the untargeted ones in a second one: foolbox has
another criterion for those.
"""

import sys
from collections.abc import Mapping
from typing import Any

import foolbox  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_attack import Counted, compete, gather, to_torch, track

ATTACKS = {"cw": "L2CarliniWagnerAttack", "ddn": "DDNAttack"}


def attack(model: Counted, sample: contest.Sample, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Every cell, by the attack `setting["attack"]` with the other values of the setting.

    tracked: hand in the best image that the attack gave the net, as on the board.
    """
    tracked = setting.get("tracked", False)
    arguments = {key: value for key, value in setting.items() if key not in ("attack", "tracked")}
    method = getattr(foolbox.attacks, ATTACKS[setting["attack"]])(**arguments)
    images, labels = to_torch(sample.images), torch.from_numpy(sample.labels)
    rows, targets = map(torch.from_numpy, contest.targeted_cells(sample.labels))
    reach = foolbox.criteria.TargetedMisclassification(targets)
    leave = foolbox.criteria.Misclassification(labels)

    def search(net: torch.nn.Module, clean: torch.Tensor, criterion: Any) -> tuple[Any, Any, Any]:
        return method(foolbox.PyTorchModel(net, (0, 1)), clean, criterion, epsilons=None)

    if tracked:
        return track(
            model,
            sample,
            lambda net: search(net.eval(), net.clean, reach),
            lambda net: search(net.eval(), net.clean, leave),
        )
    model.gradients = 0
    targeted, _, reached = search(model, images[rows], reach)
    own, _, left = search(model, images, leave)
    return {
        "images": gather(sample.labels, targeted, own).transpose(0, 1, 3, 4, 2),
        "claimed": gather(sample.labels, reached, left),
        "gradients": model.gradients,
    }


if __name__ == "__main__":
    compete(sys.argv[1:], attack, foolbox=foolbox.__version__)
