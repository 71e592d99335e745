"""What 8 and 256 accelerators would do, on paper: work, bytes, time of a step, what limits it.

    python -m benchmarks.plan

Nothing is measured. Operations are counted from the shapes of the nets or by XLA, bytes from their
parameters; what the machines can do is from their makers, and what nobody states is assumed. Time
is the sum of three parts, none of which hides another: computing, starting the operations, and
exchanging gradients.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import measure
from configs import cnn, mlp
from research.experiments import classifiers, depth, trainer
from research.experiments.noise import nets
from research.models import costs
from research.runtime import sharding
from research.structs import Array, Batch, Config, PyTree
from research.training.step import init_state, make_step

_FLAGS = measure.make_flags("plan", data=False)
_ROWS = flags.DEFINE_integer(
    "rows", 128, "Images of the step that XLA counts.", lower_bound=1, flag_values=_FLAGS
)

COUNTS = (8, 256)
DIGITS, PICTURES = 60_000, 50_000  # training images of MNIST and CIFAR-10
ATTACKED, CLASSES = 10_000, 10
GROUPS = (1000, 100)  # cells that are advanced at once, as in `generate.SIZES`
TOGETHER = 32  # seeds of one device in the row that says what to do
# Assumed: nobody states them, and they differ from net to net.
UTILISATION = 0.3  # of the peak, by the convolutions
NARROW = 0.05  # by products that are 32 wide: a quarter of a TPU's unit, few of a GPU's
OPERATIONS = 10  # of the accelerator for every layer of a step: products, activations, statistics


class Machine(NamedTuple):
    """An accelerator and what connects so many of it.

    flops: a second, of products of float32 at matmul_precision "highest".  launch: seconds to start
    an operation.  bandwidth: bytes a second that one device sends while it receives as many.
    latency: seconds of an all-reduce of almost nothing.
    """

    label: str
    flops: float
    launch: float
    bandwidth: dict[int, float]
    latency: dict[int, float]


MACHINES = (
    Machine("H100", 67e12, 5e-6, {8: 450e9, 256: 50e9}, {8: 20e-6, 256: 60e-6}),
    Machine("TPU v5e", 197e12 / 6, 1e-6, {8: 200e9, 256: 200e9}, {8: 10e-6, 256: 40e-6}),
)

SOURCES = (
    "H100 SXM: 67 TFLOP/s of float32, 3.35 TB/s of memory "
    "([H100](https://glennklockwood.com/garden/processors/h100), after NVIDIA's data sheet); "
    "NVLink 900 GB/s in both directions together, so 450 ([HGX H100](https://developer.nvidia.com/blog/"
    "introducing-nvidia-hgx-h100-an-accelerated-server-platform-for-ai-and-high-performance-"
    "computing/)); beyond a node of eight, one 400 Gb/s InfiniBand adapter a GPU, so 50 GB/s "
    "([a system of MLPerf](https://github.com/mlcommons/inference_results_v3.1/blob/main/closed/"
    "Dell/systems/XE9680_H100_SXM_80GBx8_TRT.json)).",
    "TPU v5e: 197 TFLOP/s of bfloat16, 16 GB at 819 GB/s, links of 400 GB/s in both directions "
    "together, so 200 ([TPU v5e](https://docs.cloud.google.com/tpu/docs/v5e), slices 2x4 and "
    "16x16; 51.2 TB/s for an all-reduce of 256 chips are 200 GB/s each); at `highest` a product "
    "takes six passes of bfloat16 ([jax.lax.Precision](https://docs.jax.dev/en/latest/"
    "jax.lax.html#jax.lax.Precision)), so 33 TFLOP/s.",
    "A ring sends 2 (n - 1) / n times the gradients ([nccl-tests](https://github.com/NVIDIA/"
    "nccl-tests/blob/master/doc/PERFORMANCE.md)), 4 bytes a parameter.",
)


class Work(NamedTuple):
    """What one device does again and again.

    rows: images of a step on the device that has most.  flops: of the step.  operations: of the
    step.  parameters: whose gradients are exchanged in every step, 0 for none.  steps: of all.
    utilisation: share of the peak while it computes.
    """

    rows: float
    flops: float
    operations: int
    parameters: int
    steps: float
    utilisation: float


def works(figures: Mapping[str, Any], count: int) -> dict[str, Work]:
    """The workloads on `count` devices: {what it is: work of a device}."""
    study, picture, cell = figures["study"], figures["picture"], figures["cell"]
    layers, per_image = study["layers"] / study["nets"], study["flops"] / study["nets"]
    operations = round(OPERATIONS * layers)
    steps = study["nets"] * study["epochs"] * -(-DIGITS // study["batch_size"])
    batch, each = study["batch_size"], study["parameters"] // study["nets"]
    share, part = -(-batch // count), -(-picture["batch_size"] // count)
    cells = -(-ATTACKED * CLASSES // count)
    groups = _groups(cells)
    calls = sum(groups.values())
    mean = sum(size * number for size, number in groups.items()) / calls
    return {
        f"twelve nets, {count} seeds": Work(batch, batch * per_image, operations, 0, steps, NARROW),
        f"twelve nets, {count * TOGETHER:,} seeds": Work(
            batch * TOGETHER, batch * TOGETHER * per_image, operations, 0, steps, NARROW
        ),
        "twelve nets, one seed over all": Work(
            share, share * per_image, operations, each, steps, NARROW
        ),
        f"cifar10-best, batch {picture['batch_size']}": Work(
            part,
            part * picture["flops"],
            OPERATIONS * picture["layers"],
            picture["parameters"],
            picture["epochs"] * -(-PICTURES // picture["batch_size"]),
            UTILISATION,
        ),
        f"attack, {ATTACKED:,} images x {CLASSES}": Work(
            mean,
            mean * cell["flops"],
            OPERATIONS * cell["layers"],
            0,
            calls * cell["gradients"],
            UTILISATION,
        ),
    }


def exchanged(parameters: int, count: int) -> float:
    """Bytes that a device sends in a step, and receives: a ring's all-reduce of the gradients."""
    return 2 * (count - 1) / count * 4 * parameters


def parts(work: Work, machine: Machine, count: int) -> dict[str, float]:
    """Seconds of one step, by what takes them."""
    return {
        "computing": work.flops / (machine.flops * work.utilisation),
        "starting": work.operations * machine.launch,
        "bandwidth": exchanged(work.parameters, count) / machine.bandwidth[count],
        "latency": machine.latency[count] if work.parameters else 0.0,
    }


def table(results: Mapping[str, Any]) -> str:
    """The plan as a Markdown table with its notes; pure."""
    rows = [
        _row(f"{count} x {machine.label}: {name}", work, machine, count)
        for machine in MACHINES
        for count in COUNTS
        for name, work in works(results["figures"], count).items()
    ]
    figures = results["figures"]
    head = ["devices: work", "rows", "MFLOP", "kB sent", "computing (us)", "starting (us)"]
    return measure.markdown(
        [*head, "exchange (us)", "all steps", "most of it"],
        rows,
        "Rows, MFLOP, bytes and microseconds of one step on one device; all steps: "
        f"{figures['study']['epochs'] - 1} epochs of every net and one to probe it, "
        f"{figures['picture']['epochs']} epochs of the classifier, "
        f"{figures['cell']['gradients']:.0f} gradients a cell (mean of `benchmarks.attacks`), "
        "without compiling, reading and writing. Independent work exchanges nothing until the "
        f"attack's images are gathered at its end ({ATTACKED * CLASSES * 784 / 1e6:.0f} MB).",
        *_advice(figures),
        f"Assumed: {UTILISATION:.0%} of the peak while convolutions compute, {NARROW:.0%} while "
        "nets of width 32 do, waiting for the memory included; "
        f"{OPERATIONS} operations a layer and step; "
        + "; ".join(
            f"{machine.label} {1e6 * machine.launch:.0f} us to start one and "
            f"{1e6 * machine.latency[8]:.0f} or {1e6 * machine.latency[256]:.0f} us for an "
            "all-reduce of almost nothing on 8 or 256"
            for machine in MACHINES
        )
        + "; one all-reduce a step, although recording the gradients of a shared batch takes more.",
        *SOURCES,
        f"FLOPs counted {results['date']}.",
    )


def _row(label: str, work: Work, machine: Machine, count: int) -> list[str]:
    taken = parts(work, machine, count)
    exchange, seconds = taken["bandwidth"] + taken["latency"], sum(taken.values())
    slower = max(("bandwidth", "latency"), key=lambda part: taken[part])
    shares = {
        "computing": taken["computing"],
        "starting operations": taken["starting"],
        f"exchange, above all its {slower}": exchange,
    }
    most = max(shares, key=lambda part: shares[part])
    return [
        label,
        f"{work.rows:,.0f}",
        _number(work.flops / 1e6),
        f"{exchanged(work.parameters, count) / 1e3:,.0f}",
        *(f"{1e6 * each:,.0f}" for each in (taken["computing"], taken["starting"], exchange)),
        _duration(seconds * work.steps),
        f"{most} ({shares[most] / seconds:.0%})",
    ]


def _advice(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """What follows from the table."""

    def step(machine: Machine, name: str) -> float:
        return sum(parts(works(figures, 8)[name], machine, 8).values())

    alone, many = "twelve nets, 8 seeds", f"twelve nets, {8 * TOGETHER:,} seeds"
    dearer = " and ".join(
        f"{step(machine, many) / step(machine, alone):.1f} times ({machine.label})"
        for machine in MACHINES
    )
    ratio = step(MACHINES[0], "twelve nets, one seed over all") / step(MACHINES[0], alone)
    return (
        "What to do: the nets of the study are so small that a device mostly starts operations; "
        f"give every device as many seeds as the question is worth: a step of {TOGETHER} takes "
        f"{dearer} that of one. One seed over all devices is a bad idea: on 8 H100 its step takes "
        f"{ratio:.2f} times that of 8 seeds, for one net and not eight, and three quarters of 256 "
        "devices get no row. The classifier with its batch kept leaves half of 256 devices without "
        "a row; a batch that grows with the devices fills them and is another training (learning "
        "rate, epochs). The attack exchanges nothing; on 256 devices only its small groups are "
        "left: more images, not more devices.",
    )


def _groups(cells: int) -> dict[int, int]:
    """{size: number} of the groups in which a device advances its cells."""
    large, small = GROUPS
    found = {large: cells // large, small: -(-(cells % large) // small)}
    return {size: number for size, number in found.items() if number}


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{_number(seconds)} s"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def count_study() -> dict[str, Any]:
    """FLOPs of an image, layers and parameters, summed over the nets of the study."""
    config: Config = mlp.get_config("all")
    found = {"nets": len(config.nets), "flops": 0, "layers": 0, "parameters": 0}
    for net in config.nets:
        model = depth.make_model(config, net)
        params = _parameters(model, (28, 28, 1))
        kernels = {name: params[name]["kernel"].shape for name in model.layer_names}
        found["flops"] += costs.flops_per_image(kernels)
        found["layers"] += len(kernels)
        found["parameters"] += costs.parameter_count(kernels)
    return {**found, "batch_size": config.batch_size, "epochs": config.epochs + config.probe}


def count_picture(rows: int) -> dict[str, Any]:
    """FLOPs of an image in a step of cifar10-best, its layers and parameters."""
    config: Config = cnn.get_config("cifar10-best")
    with config.unlocked():
        batch, config.batch_size = config.batch_size, rows
    task = classifiers.make_task(config, PICTURES)
    params = _parameters(task.model, (32, 32, 3))
    return {
        "flops": _count_step(task, rows) / rows,
        "layers": _layers(params),
        "parameters": _size(params),
        **{"batch_size": batch, "epochs": config.epochs},
    }


def count_cell(rows: int) -> dict[str, Any]:
    """FLOPs of a cell's gradient under the report's MNIST net, and how many a cell takes."""
    model = classifiers.make_model(cnn.get_config("mnist"), CLASSES)
    params, apply_fn = _parameters(model, (28, 28, 1)), nets.apply_of(model)

    def gradient(params: PyTree, images: Array) -> Any:
        return jax.grad(lambda images: jnp.sum(apply_fn(params, images)[:, 0]))(images)

    images = jax.ShapeDtypeStruct((rows, 28, 28, 1), np.float32)
    flops = _flops(jax.jit(gradient, compiler_options=sharding.compiler_options()), params, images)
    attacks = measure.read(measure.RESULTS / "attacks.json")["contestants"]["ours"]["turns"]
    taken = [turn["gradients"] / turn["cells"] for turn in attacks]
    return {"flops": flops / rows, "layers": _layers(params), "gradients": float(np.mean(taken))}


def _count_step(task: trainer.Task, rows: int) -> float:
    """FLOPs of one training step as XLA counts them."""
    images, shape = np.zeros((1, 32, 32, 3), np.uint8), jax.ShapeDtypeStruct
    state = jax.eval_shape(lambda: init_state(task.model, task.tx, 0, images))
    arrays: Any = (
        shape((rows, 32, 32, 3), np.uint8),
        shape((rows,), np.int32),
        shape((rows,), np.bool_),
    )
    program = jax.jit(
        make_step(task.model, task.tx, task.loop), compiler_options=sharding.compiler_options()
    )
    return _flops(program, state, Batch(*arrays), shape((), np.uint32), shape((), np.bool_))


def _flops(program: jax.stages.Wrapped, *shapes: Any) -> float:
    cost = program.lower(*shapes).compile().cost_analysis()
    assert cost is not None
    return float(cost["flops"])


def _parameters(model: Any, shape: Sequence[int]) -> PyTree:
    """The shapes of a net's parameters."""
    images = jnp.zeros((1, *shape), jnp.float32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images))["params"]


def _size(params: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _layers(params: PyTree) -> int:
    """How many kernels there are."""
    return sum(leaf.ndim > 1 for leaf in jax.tree.leaves(params))


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    rows = _ROWS.value
    figures = {"study": count_study(), "picture": count_picture(rows), "cell": count_cell(rows)}
    measure.finish({"date": measure.describe()["date"], "figures": figures}, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
