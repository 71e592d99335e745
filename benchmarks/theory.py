"""How far mean-field theory is from nets that are drawn: the first gradients of every layer.

    python -m benchmarks.theory --data_dir=DIR

The nets of the depth study as they begin, one batch of 64 images, many seeds; nothing is trained.
"""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import measure, ours
from configs import mlp
from research.experiments import depth
from research.structs import Batch
from research.training.epoch import make_snapshot, snapshot_batch
from research.training.step import Loop, init_state

_FLAGS = measure.make_flags("theory")
_NETS = flags.DEFINE_list("nets", list(mlp.NETS), "Nets to measure.", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 400, "Of each net.", lower_bound=2, flag_values=_FLAGS)
WITHIN = 0.1  # of the standard deviation for one image
_NAMES = ("kernel_rms", "kernel_abs", "signal_rms", "signal_abs")


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    within = 0
    for net, sizes in results["nets"].items():
        cells: list[str] = []
        for name in ("kernel_rms", "signal_rms", "kernel_abs"):
            ratio = np.array(sizes["predicted"][name]) / np.array(sizes["measured"][name])
            worst = ratio[np.argmax(np.abs(np.log(ratio)))]
            cells.append(f"{np.median(ratio):.2f} [{worst:.2f}]")
        for name, places in (("sd", (0, -1)), ("one_image_sd", (0, (len(ratio) - 1) // 2))):
            for place in places:
                ours_, theirs = (sizes[side][name][place] for side in ("predicted", "measured"))
                cells.append(f"{ours_:.2f} / {theirs:.2f}")
        spreads = [np.array(sizes[side]["one_image_sd"]) for side in ("predicted", "measured")]
        close = np.abs(spreads[0] / spreads[1] - 1) <= WITHIN
        within += bool(close[0] and close[(len(close) - 1) // 2])
        rows.append([net, *cells])
    head = ["net", "rms of dL/dW", "rms of dL/dz", "max of dL/dW", "sd, first layer", "sd, output"]
    return measure.markdown(
        [*head, "one image: sd, first", "middle layer"],
        rows,
        "Predicted over measured median, of the median layer and [of the worst one]; predicted / "
        "measured standard deviation of ln rms of dL/dW, of batches of 64 and of a single image. "
        f"Of a single image it is right to {WITHIN:.0%} in both layers for {within} of {len(rows)} "
        f"nets. {results['seeds']} seeds.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    results: dict[str, Any] = {**measure.describe(), "nets": {}, "seeds": _SEEDS.value}
    for net in _NETS.value:
        study = ours.load(net, _FLAGS.data_dir)
        results["data"] = study.caption
        predicted, measured = dict[str, Any](), dict[str, Any]()
        for prefix, size in (("", study.config.batch_size), ("one_image_", 1)):
            theory = depth.predict(study.model, study.train, size)
            values = measure_sizes(study, size, _SEEDS.value)
            for name in _NAMES if size > 1 else ():
                predicted[name] = theory[f"{name}_median"].tolist()
                measured[name] = np.median(values[f"{name}_batch"], axis=0).tolist()
            predicted[f"{prefix}sd"] = theory["kernel_rms_sd"].tolist()
            measured[f"{prefix}sd"] = np.log(values["kernel_rms_batch"]).std(axis=0).tolist()
        results["nets"][net] = {"predicted": predicted, "measured": measured}
        print(net, file=sys.stderr, flush=True)
    measure.finish(results, output, table)
    return 0


def measure_sizes(study: ours.Study, batch_size: int, seeds: int) -> dict[str, np.ndarray]:
    """The snapshots of so many seeds as they begin, on one batch: {statistic: [seeds, L]}."""
    model = study.model
    loop = Loop(1, batch_size, 1, depth.make_probe(model), depth.make_snapshot(model))
    snapshot = make_snapshot(model, study.tx, loop)
    images = study.train.images[:1]

    @jax.jit
    def all_seeds(numbers: jax.Array, batch: Batch) -> Any:
        return jax.lax.map(
            lambda seed: snapshot(init_state(model, study.tx, seed, images), seed, batch), numbers
        )

    values = all_seeds(jnp.arange(seeds, dtype=jnp.uint32), snapshot_batch(study.train, batch_size))
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
