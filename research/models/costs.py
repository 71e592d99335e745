"""Costs of a net of dense layers, from the shapes of its kernels, and what devices exchange."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping

Shape = tuple[int, int]


def parameter_count(kernels: Mapping[str, Shape]) -> int:
    """Weights and biases of {layer: (in, out)}."""
    return sum(inputs * outputs + outputs for inputs, outputs in kernels.values())


def flops_per_image(kernels: Mapping[str, Shape]) -> int:
    """FLOPs of one training step for one image, two for each product of {layer: (in, out)}.

    The forward pass, the gradients of the kernels and, but for the first layer, of the inputs;
    biases, activations and updates are left out.
    """
    products = [inputs * outputs for inputs, outputs in kernels.values()]
    return 2 * (3 * sum(products) - products[0])


def training_bytes(
    kernels: Mapping[str, Shape], batch_size: int, steps: int, statistics: int
) -> int:
    """Bytes of float32 arrays alive in an epoch of `steps`, for one seed.

    Parameters, gradients and updates; inputs and pre-activations of every layer, forward and
    backward; `statistics` numbers for every layer and step.
    """
    activations = 2 * batch_size * sum(inputs + outputs for inputs, outputs in kernels.values())
    recorded = statistics * len(kernels) * steps
    return 4 * (3 * parameter_count(kernels) + activations + recorded)


def layer_table(kernels: Mapping[str, Shape]) -> list[str]:
    """Lines of a table of {layer: (in, out)}; equal neighbours share a line."""
    lines = [f"{'layer':24}{'kernel':>12}{'bias':>8}{'parameters':>14}"]
    for (inputs, outputs), same in itertools.groupby(kernels, key=lambda name: kernels[name]):
        names = list(same)
        name = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
        size = f"{inputs * outputs + outputs:,}"
        if len(names) > 1:
            size = f"{len(names)} x {size}"
        lines.append(f"{name:24}{f'{inputs} x {outputs}':>12}{outputs:>8}{size:>14}")
    return [*lines, f"{'total':44}{parameter_count(kernels):>14,}"]


_COLLECTIVE = re.compile(
    r"= (?P<shapes>[^=]*?) "
    r"(?P<name>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_COMMENT = re.compile(r"/\*.*?\*/")  # XLA counts in long tuples: /*index=5*/
_SHAPE = re.compile(r"(?P<kind>pred|[a-z]+)(?P<bits>\d*)\[(?P<sides>[\d,]*)\]")


def collective_bytes(program: str) -> dict[str, int]:
    """{operation: bytes of its results on one device} of a program compiled for several.

    program: text of the compiled program (`jax.stages.Compiled.as_text`).  Each operation is
    counted once, also where it stands in a loop: for an epoch these are the bytes of a step.
    """
    total: Counter[str] = Counter()
    for operation in _COLLECTIVE.finditer(_COMMENT.sub("", program)):
        for shape in _SHAPE.finditer(operation["shapes"]):
            sides = [int(side) for side in shape["sides"].split(",") if side]
            total[operation["name"]] += math.prod(sides) * max(1, int(shape["bits"] or 8) // 8)
    return dict(total)
