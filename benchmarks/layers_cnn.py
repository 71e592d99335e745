"""What the layers of the CNNs cost on a CPU, direction by direction, inside a scan.

    python -m benchmarks.layers_cnn --peer_python=.venv-peers/bin/python
    python -m benchmarks.layers_cnn --nets=masks --peer_python=.venv-peers/bin/python \\
        --output=benchmarks/results/layers_masks.json

Every operation stands alone in a short scan, compiled with `sharding.compiler_options`, on random
numbers in the shapes of configs/cnn.py or configs/masks.py. Beside `research.models.conv`: the same
with `--native_convolutions`, where there is a C++ compiler; XLA's own convolution and pool with the
gradients that XLA derives, in the same scan; its forward pass without the options; and PyTorch. An
iteration changes one entry of every operand, so that no work can leave the loop.

XLA's own gradient of a kernel takes seconds inside a loop: it is taken once.
"""

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax

from benchmarks import contest, measure, ours
from configs import cnn, masks
from research.models import conv, native
from research.runtime import commands, sharding
from research.structs import Config

_FLAGS = measure.make_flags("layers_cnn", data=False, peers=True)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 5, "Calls of every form that count.", lower_bound=1, flag_values=_FLAGS
)
_ITERATIONS = flags.DEFINE_integer(
    "iterations", 4, "Iterations of a call.", lower_bound=2, flag_values=_FLAGS
)
_NETS = flags.DEFINE_list(
    "nets", ["mnist", "cifar10"], "Nets: mnist, cifar10, masks.", flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "Images; 0 is that of the configs.", lower_bound=0, flag_values=_FLAGS
)

NETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "masks": "face masks"}
LABELS = {
    "ours": "ours",
    "native": "ours, own convolutions",
    "xla": "XLA's own",
    "xla_default": "XLA's own, default options",
    "torch": "PyTorch",
}
DIRECTIONS = {
    "forward": "forward",
    "kernel": "gradient of the kernel",
    "images": "gradient of the images",
    "both": "forward and gradient",
}
_SLOW_ITERATIONS = 2  # of XLA's gradient of a kernel; a loop of one would be no loop

Row = dict[str, Any]
Operation = Callable[..., jax.Array]


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    names = [name for name in LABELS if any(name in row["seconds"] for row in results["rows"])]
    rows: list[list[str]] = []
    for row in results["rows"]:
        seconds = row["seconds"]
        label = f"{NETS[row['net']]}, {row['layer']} {_shapes(row)}: {DIRECTIONS[row['direction']]}"
        median = statistics.median(seconds["ours"])
        flops = row["flops"]
        work = [f"{flops / 1e9:.2f}", f"{flops / median / 1e9:,.0f}"] if flops else ["-", "-"]
        others = [seconds.get(name) for name in names[1:]]
        cells = [f"{1000 * statistics.median(each):,.1f}" if each else "-" for each in others]
        rows.append([label, work[0], f"{1000 * median:,.1f}", work[1], *cells])
    calls = len(results["rows"][0]["seconds"]["ours"])
    return measure.markdown(
        ["", "GFLOP", "ours (ms)", "GFLOP/s", *(f"{LABELS[name]} (ms)" for name in names[1:])],
        rows,
        f"Batches of {results['batch_size']}; medians of {calls} calls of "
        f"{results['iterations']} iterations, taken in turns; XLA's own gradient of a kernel: one "
        f"call of {_SLOW_ITERATIONS} iterations.",
        measure.caption(results, LABELS),
    )


def _shapes(row: Mapping[str, Any]) -> str:
    images, kernel = row["images"], row["kernel"]
    if row["kind"] == "dense":
        return f"{kernel[0]} -> {kernel[1]}"
    size = f"{images[1]}x{images[2]}x{images[3]}"
    return f"{size} -> {kernel[3]}" if kernel else size


def list_rows(config: Config, batch_size: int, net: str = "") -> list[Row]:
    """Every operation of the net of a config, but for its output layer, with its FLOPs.

    net: one of NETS; "" for the data set of the config.
    """
    net = net or config.dataset
    rows: list[Row] = []

    def add(layer: str, kind: str, images: Sequence[int], kernel: Sequence[int], of: int) -> None:
        directions = ("forward", "both") if kind == "pool" else ("forward", "kernel", "images")
        facts = {"net": net, "layer": layer, "kind": kind, "flops": of}
        shapes = {"images": list(images), "kernel": list(kernel), "padding": config.padding}
        rows.extend({**facts, **shapes, "direction": direction} for direction in directions)

    height, width, channels = contest.SHAPES[net]
    lost = 0 if config.padding == "same" else 2
    for i, (filters, pool) in enumerate(zip(config.filters, config.pools, strict=True)):
        images, kernel = (batch_size, height, width, channels), (3, 3, channels, filters)
        height, width, channels = height - lost, width - lost, filters
        flops = 2 * batch_size * height * width * int(np.prod(kernel))
        add(f"conv_{i}", "conv", images, kernel, flops)
        if pool > 1:
            add(f"pool_{i}", "pool", (batch_size, height, width, channels), (), 0)
            height, width = height // pool, width // pool
    inputs = height * width * channels
    for i, units in enumerate(config.dense):
        flops = 2 * batch_size * inputs * units
        add(f"dense_{i}", "dense", (batch_size, inputs), (inputs, units), flops)
        inputs = units
    return rows


def _own_pool(images: jax.Array) -> jax.Array:
    """XLA's own pool, for two times two entries as in all the nets."""
    windows = (1, 2, 2, 1)
    return lax.reduce_window(images, -jnp.inf, lax.max, windows, windows, "VALID")


def _function(row: Row, *, own: bool) -> Operation:
    """The forward pass of (images, kernel), or of (images,) for a pool."""
    padding = row["padding"]
    if row["kind"] == "pool":
        return _own_pool if own else lambda images: conv.max_pool(images, 2)
    if row["kind"] == "dense":
        return jnp.matmul
    if not own:
        return lambda images, kernel: conv.conv2d(images, kernel, padding=padding)
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lambda images, kernel: lax.conv_general_dilated(
        images, kernel, (1, 1), padding.upper(), dimension_numbers=dimensions
    )


def make_operation(row: Row, *, own: bool) -> tuple[Operation, list[jax.Array]]:
    """One direction of one layer, and operands for it: the others of images, kernel, cotangent.

    own: XLA's own form of it.
    """
    function = _function(row, own=own)
    generator = np.random.default_rng(0)

    def draw(shape: Sequence[int]) -> jax.Array:
        return jnp.asarray(generator.standard_normal(shape, np.float32))

    images = draw(row["images"])
    kernel = [draw(row["kernel"])] if row["kernel"] else []
    if row["direction"] == "forward":
        return function, [images, *kernel]
    cotangent = draw(jax.eval_shape(function, images, *kernel).shape)
    if row["kind"] == "pool":
        return lambda x, c: jax.vjp(function, x)[1](c)[0], [images, cotangent]
    # The operand that the gradient is of does not enter it, for all these are linear in it.
    if row["direction"] == "kernel":
        zeros = np.zeros(row["kernel"], np.float32)
        return lambda x, c: jax.vjp(lambda k: function(x, k), zeros)[1](c)[0], [images, cotangent]
    zeros = np.zeros(row["images"], np.float32)
    return lambda k, c: jax.vjp(lambda x: function(x, k), zeros)[1](c)[0], [*kernel, cotangent]


def make_call(
    operation: Operation, operands: Sequence[jax.Array], iterations: int, *, tuned: bool
) -> Callable[[], jax.Array]:
    """Compile a scan of the operation; a call goes on with what the last one has left.

    tuned: with the compiler options.
    """
    shape = jax.eval_shape(operation, *operands)
    carry = [jnp.copy(each) for each in operands], jnp.zeros(shape.shape, shape.dtype)

    def body(
        carry: tuple[list[jax.Array], jax.Array], _: None
    ) -> tuple[tuple[list[jax.Array], jax.Array], None]:
        operands = carry[0]
        result = operation(*operands)
        entry = 1e-3 * result[(0,) * result.ndim]
        changed = [each.at[(0,) * each.ndim].set(entry) for each in operands]
        return (changed, result), None

    scan = jax.jit(
        lambda carry: lax.scan(body, carry, length=iterations)[0],
        compiler_options=sharding.compiler_options() if tuned else None,
        donate_argnums=0,
    )
    program = scan.lower(carry).compile()

    def call() -> jax.Array:
        nonlocal carry
        carry = jax.block_until_ready(program(carry))
        return carry[1]

    return call


def measure_row(
    row: Row, iterations: int, rounds: int, torch: measure.Paced | None
) -> dict[str, list[float]]:
    """Seconds of an iteration in every form, every call a sample."""
    operation, operands = make_operation(row, own=False)
    calls: dict[str, Callable[[], object]] = {}
    with native.unused():
        calls["ours"] = make_call(operation, operands, iterations, tuned=True)
    if native.settings() and row["kind"] == "conv":
        calls["native"] = make_call(operation, operands, iterations, tuned=True)
    if torch is not None:
        calls["torch"] = torch.turn
    slow: dict[str, list[float]] = {}
    if row["kind"] != "dense":
        own, _ = make_operation(row, own=True)
        if row["direction"] == "kernel":
            call = make_call(own, operands, _SLOW_ITERATIONS, tuned=True)
            began = time.perf_counter()
            _ = call()
            slow["xla"] = [(time.perf_counter() - began) / _SLOW_ITERATIONS]
        else:
            calls["xla"] = make_call(own, operands, iterations, tuned=True)
        if row["direction"] == "forward":
            calls["xla_default"] = make_call(own, operands, iterations, tuned=False)
    taken = measure.alternate(calls, rounds)
    return {name: [s / iterations for s in samples] for name, samples in taken.items()} | slow


def peer_options(rows: Sequence[Row], iterations: int, turns: int) -> list[str]:
    """What PyTorch is told to do: so many turns of so many iterations of every row, in order."""
    return [f"--rows={json.dumps(rows)}", f"--iterations={iterations}", f"--turns={turns}"]


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    missing = [name for name in measure.find_missing(_FLAGS.peer_python) if name == "torch"]
    sharding.configure(cpu_devices=1, cpu_threads=0, seeds=1)
    if wrong := sorted(set(_NETS.value) - set(NETS)):
        commands.fail(f"nets: {', '.join(wrong)} unknown; valid: {', '.join(NETS)}")
    configs: dict[str, Config] = {
        net: masks.get_config("vgg") if net == "masks" else cnn.get_config(net)
        for net in _NETS.value
    }
    batch_size = _BATCH_SIZE.value or next(iter(configs.values())).batch_size
    rows = [row for net, config in configs.items() for row in list_rows(config, batch_size, net)]
    iterations, rounds = _ITERATIONS.value, _ROUNDS.value
    print(native.enable("runs/.compiled"), file=sys.stderr, flush=True)
    contestants: dict[str, dict[str, Any]] = {
        "ours": {
            "versions": ours.versions(),
            "threads": os.cpu_count(),
            "data": "random numbers",
        }
    }
    with contextlib.ExitStack() as stack:
        torch = None
        if not missing:
            options = peer_options(rows, iterations, rounds + 1)
            command = [_FLAGS.peer_python, "-m", "benchmarks.peer_torch_layers", *options]
            torch = stack.enter_context(measure.Paced(LABELS["torch"], command))
            contestants["torch"] = torch.facts
        for row in rows:
            row["seconds"] = measure_row(row, iterations, rounds, torch)
            done = f"{row['net']} {row['layer']} {row['direction']}: done"
            print(done, file=sys.stderr, flush=True)
    results = {**measure.describe(), "missing": missing, **measure.summarize(contestants)}
    results |= {"batch_size": batch_size, "iterations": iterations, "rows": rows}
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
