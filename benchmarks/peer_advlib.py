"""Attacks of adv-lib on the CNN in PyTorch: those that minimise the L2 norm of the noise.

All targeted cells in one call, the untargeted ones in a second one. APGD has a budget of noise
instead, which is halved in a bisection.

adv-lib imports a plotter and torchvision, which these attacks do not use and which does not load
with every build of PyTorch: where they are missing, empty modules take their place.
"""

import sys
import types
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import torch  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_torch_attack import Counted, Tracked, compete, track

for _name, _attribute in (("visdom", "Visdom"), ("torchvision", "models")):
    try:
        _ = __import__(_name)
    except (ImportError, RuntimeError):
        sys.modules[_name] = types.ModuleType(_name)
        setattr(sys.modules[_name], _attribute, None)

from adv_lib import attacks  # noqa: E402  # pyright: ignore[reportMissingImports]

_LIKELY = 3  # classes, of the nine others, toward which APGD-T leaves the own one


def attack(model: Counted, sample: contest.Sample, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Every cell, by the attack `setting["attack"]` with the other values of the setting."""
    arguments = {key: value for key, value in setting.items() if key != "attack"}
    if setting["attack"] == "apgd":
        return track(
            model,
            sample,
            lambda net: bisect(net, net.classes, **arguments),
            leave_by_apgd(arguments),
        )
    method = getattr(attacks, setting["attack"])
    return track(
        model,
        sample,
        lambda net: method(net, net.clean, net.classes, targeted=True, **arguments),
        lambda net: method(net, net.clean, net.classes, targeted=False, **arguments),
    )


def bisect(net: Tracked, targets: torch.Tensor, *, budgets: int, **arguments: Any) -> None:
    """APGD toward `targets` [M] within an L2 that is halved for each row, `budgets` times.

    arguments: of APGD; with `n_restarts` its random starts.  The library's own bisection takes a
    targeted failure for a success.
    """
    low, budget = torch.zeros(len(targets)), torch.full((len(targets),), 2.0)
    for _ in range(budgets):
        _ = attacks.apgd(net, net.clean, targets, budget, 2, targeted=True, **arguments)
        low = torch.where(net.distance > budget, budget, low)
        budget = torch.where(net.distance.isinf(), 2 * budget, (low + net.distance) / 2)


def leave_by_apgd(arguments: Mapping[str, Any]) -> Callable[[Tracked], None]:
    """APGD-T: toward each of the likeliest other classes, with as many gradients in all."""

    def leave(net: Tracked) -> None:
        with torch.no_grad():
            order = net.model.net(net.clean).argsort(dim=1, descending=True)
        for place in range(1, _LIKELY + 1):
            bisect(net, order[:, place], **{**arguments, "n_iter": arguments["n_iter"] // _LIKELY})

    return leave


if __name__ == "__main__":
    compete(sys.argv[1:], attack, **{"adv-lib": metadata.version("adv-lib")})
