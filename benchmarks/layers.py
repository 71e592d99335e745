"""Should the hidden layers be written out or scanned? Compile time and a steady epoch of both.

    python -m benchmarks.layers --data_dir=DIR

The scanned net lives here only: its first hidden layer stands alone, the others are one layer with
stacked parameters under `nn.scan`. Both nets live in one process and take turns.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from absl import flags

from benchmarks import measure, ours
from research.models.activations import ACTIVATIONS
from research.models.mlp import INITIALIZERS, MLP
from research.structs import Array, PyTree
from research.training import probes
from research.training.step import Probe

_FLAGS = measure.make_flags("layers")
_NET = flags.DEFINE_string("net", "tanh-40", "Net to measure.", flag_values=_FLAGS)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 10, "Epochs of every form.", lower_bound=1, flag_values=_FLAGS
)
_COMPILATIONS = flags.DEFINE_integer(
    "compilations", 3, "Compilations of every form.", lower_bound=1, flag_values=_FLAGS
)


class Hidden(nn.Module):
    """One hidden layer, in the form that `nn.scan` repeats."""

    width: int
    activation: str
    init_name: str

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        dense = nn.Dense(
            self.width, kernel_init=INITIALIZERS[self.init_name].function, name="dense"
        )
        return ACTIVATIONS[self.activation].function(self.perturb("signal", dense(x))), None


class ScannedMLP(MLP):
    """`MLP` with all but the first hidden layer under {hidden: {dense: {kernel [L - 2, ...]}}}."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # nothing here is random
        x = images.reshape(images.shape[0], -1)
        x = self.preactivation("hidden_00", self.width, x)
        x = ACTIVATIONS[self.activation].function(x)
        stacked = nn.scan(
            Hidden,
            variable_axes={"params": 0, "perturbations": 0},
            split_rngs={"params": True},
            length=self.depth - 1,
        )
        x, _ = stacked(self.width, self.activation, self.init_name, name="hidden")(x, None)
        return self.preactivation("output", self.classes, x)


def scanned_probe(model: ScannedMLP) -> Probe:
    """The same statistics from the stacked gradients."""

    def probe(gradients: PyTree, signals: PyTree) -> dict[str, Array]:
        layers, by_signal = dict(gradients), {}
        for i, name in enumerate(model.layer_names):
            if 0 < i < model.depth:
                layers[name] = jax.tree.map(lambda g, i=i: g[i - 1], gradients["hidden"]["dense"])
                by_signal[name] = signals["hidden"]["signal"][i - 1]
            else:
                by_signal[name] = signals[f"{name}_signal"]
        return probes.layer_statistics(layers, by_signal, model.layer_names)

    return probe


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for measured, label in (("compile", "compile"), ("epoch", "steady epoch")):
        for probe in ("on", "off"):
            unrolled, scanned = (
                results[measured][f"{form}, probe {probe}"] for form in ("unrolled", "scanned")
            )
            medians = [f"{statistics.median(samples):.2f}" for samples in (unrolled, scanned)]
            ratio = f"{measure.ratio(unrolled, scanned):.2f}"
            rows.append([f"{label}, probe {probe} (s)", *medians, ratio])
    return measure.markdown(
        [results["net"], "unrolled", "scanned", "unrolled / scanned"],
        rows,
        "Medians, and the median of the ratios of every turn; compiling includes tracing.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def measure_compilation(
    trainers: Mapping[str, ours.Trainer], rounds: int
) -> dict[str, list[float]]:
    """Seconds from the Python function to the compiled steps of an epoch, in turns."""
    samples: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(rounds):
        for name, trainer in trainers.items():
            jax.clear_caches()
            began = time.perf_counter()
            _ = trainer.lower().compile()
            samples[name].append(time.perf_counter() - began)
    return samples


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    jax.config.update("jax_enable_compilation_cache", False)
    study = ours.load(_NET.value, _FLAGS.data_dir)
    unrolled = study.model
    scanned = ScannedMLP(unrolled.depth, unrolled.width, unrolled.activation, unrolled.init_name)
    trainers: dict[str, ours.Trainer] = {}
    for form, model, probe in (
        ("unrolled", unrolled, ours.probe_of(study)),
        ("scanned", scanned, scanned_probe(scanned)),
    ):
        mine = study._replace(model=model)
        trainers[f"{form}, probe on"] = ours.Trainer(mine, probe=probe)
        trainers[f"{form}, probe off"] = ours.Trainer(mine)
    results: dict[str, Any] = {**measure.describe(), "net": _NET.value, "data": study.caption}
    results["compile"] = measure_compilation(trainers, _COMPILATIONS.value)
    calls = {name: trainer.epoch for name, trainer in trainers.items()}
    results["epoch"] = measure.alternate(calls, _ROUNDS.value)
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
