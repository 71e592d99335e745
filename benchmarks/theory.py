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
from research.training.epoch import make_snapshot, snapshot_batch
from research.training.step import Loop, init_state

_FLAGS = measure.make_flags("theory")
_NETS = flags.DEFINE_list("nets", list(mlp.NETS), "Nets to measure.", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 100, "Of each net.", lower_bound=2, flag_values=_FLAGS)


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows: list[list[str]] = []
    for net, found in results["nets"].items():
        cells: list[str] = []
        for name in ("kernel_rms", "signal_rms", "kernel_abs"):
            ratio = np.array(found["predicted"][name]) / np.array(found["measured"][name])
            worst = ratio[np.argmax(np.abs(np.log(ratio)))]
            cells.append(f"{np.median(ratio):.2f} [{worst:.2f}]")
        spreads = zip(found["predicted"]["sd"], found["measured"]["sd"], strict=True)
        pairs = [f"{ours_:.2f} / {theirs:.2f}" for ours_, theirs in spreads]
        rows.append([net, *cells, pairs[0], pairs[-1]])
    return measure.markdown(
        ["net", "rms of dL/dW", "rms of dL/dz", "max of dL/dW", "sd, first layer", "sd, output"],
        rows,
        "Predicted over measured median, of the median layer and [of the worst one]; predicted / "
        f"measured standard deviation of ln rms of dL/dW. {results['seeds']} seeds.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    results: dict[str, Any] = {**measure.describe(), "nets": {}, "seeds": _SEEDS.value}
    for net in _NETS.value:
        study = ours.load(net, _FLAGS.data_dir)
        model, batch_size = study.model, study.config.batch_size
        loop = Loop(1, batch_size, 1, depth.make_probe(model), depth.make_snapshot(model))
        snapshot = jax.jit(make_snapshot(model, study.tx, loop))
        batch = snapshot_batch(study.train, batch_size)
        seen = [
            snapshot(
                init_state(model, study.tx, seed, study.train.images[:1]), np.uint32(seed), batch
            )
            for seed in range(_SEEDS.value)
        ]
        values = jax.tree.map(lambda *leaves: np.float64(jnp.stack(leaves)), *seen)
        theory = depth.predict(model, study.train, batch_size)
        names = ("kernel_rms", "kernel_abs", "signal_rms", "signal_abs")
        results["nets"][net] = {
            "predicted": {
                **{name: theory[f"{name}_median"].tolist() for name in names},
                "sd": theory["kernel_rms_sd"].tolist(),
            },
            "measured": {
                **{name: np.median(values[f"{name}_batch"], 0).tolist() for name in names},
                "sd": np.log(values["kernel_rms_batch"]).std(0).tolist(),
            },
        }
        results["data"] = study.caption
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
