"""The Jacobian of drawn nets against theory, Lanczos against a dense Hessian, and what it costs.

    python -m benchmarks.spectrum --data_dir=DIR

Nothing is trained but the epochs of the depth study that the cost is compared with.
"""

import statistics
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree

from benchmarks import measure, ours
from configs import mlp
from configs import spectrum as configs
from research.experiments import spectrum
from research.models.mlp import MLP
from research.runtime import sharding
from research.structs import Dataset
from research.theory import jacobian
from research.training import losses, sharpness
from research.training.step import as_input, init_state

_FLAGS = measure.make_flags("spectrum")
_NETS = flags.DEFINE_list(
    "nets",
    [*(f"{net} glorot_uniform" for net in mlp.NETS), "relu-40 he", "tanh-40 orthogonal"],
    "Nets with their inits.",
    flag_values=_FLAGS,
)
_DRAWS = flags.DEFINE_integer("draws", 10, "Of each net.", lower_bound=2, flag_values=_FLAGS)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Of the cost.", lower_bound=1, flag_values=_FLAGS)
_TIMED = ("relu-5", "tanh-40")
_IMAGES = (512, 2000)
# What theory and program are held to.
_SPREAD_OFF, _RANK, _DENSE_ERROR, _SHARE = 0.1, 20, 1e-5, 0.25


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    rows = [
        [
            net,
            f"{row['rms']:.2g} / {row['predicted_rms']:.2g}",
            f"{row['spread']:.3g} ± {row['error']:.2g}",
            f"{row['wide']:.3g} ({row['spread'] / row['wide']:.2f})",
            f"{row['finite']:.3g} ({row['weighted'] / row['finite']:.2f})",
            f"{row['rank']:.1f}",
        ]
        for net, row in results["nets"].items()
    ]
    cost = results["cost"]
    percent = {
        net: [f"{100 * measure.ratio(taken, times['epoch']):.0f} % on {images} images"
              for images, taken in times["sharpness"].items()]
        for net, times in cost.items()
    }  # fmt: skip
    costs = "; ".join(f"{net} {', '.join(shares)}" for net, shares in percent.items())
    seconds = ", ".join(
        f"{net} {statistics.median(times['epoch']):.2f} s" for net, times in cost.items()
    )
    return measure.markdown(
        ["net", "rms of s", "spread", "wide nets", "at this width", "effective rank"],
        rows,
        "Singular values s of the Jacobian of the hidden layers before the first step: measured / "
        "predicted root mean square; Var(s^2) / mean(s^2)^2, mean over nets and images with its "
        "standard error; predicted for wide nets, in brackets measured over predicted; at 32 "
        "units, where a matrix counts as its mean of s^2 squared, and so does it in the measured "
        "value of the brackets; effective rank 32 / (1 + spread), its mean. "
        f"{results['draws']} nets each, {results['inputs']} images.",
        f"Lanczos, 20 products, against the dense Hessian of {results['dense']['parameters']} "
        f"parameters: relative error {results['dense']['error']:.1g}.",
        f"Time of one sharpness by an epoch of the depth study on 60,000 images with its probe: "
        f"{costs} (epochs of {seconds}).",
        f"Bars: {'; '.join(bars(results))}.",
        f"{results['device']}; {results['data']}; {results['date']}.",
    )


def bars(results: Mapping[str, Any]) -> list[str]:
    """What theory and program are held to, each with what came out and whether it is met."""
    nets, cost = results["nets"], results["cost"]
    five = [row["spread"] / row["wide"] for net, row in nets.items() if "-5 " in net]
    lines = list[tuple[str, bool]]()
    if five:
        worst = max(five, key=lambda ratio: abs(ratio - 1))
        text = f"spread of wide nets within {_SPREAD_OFF:.0%} at 5 layers: {worst:.3f} at worst"
        lines.append((text, abs(worst - 1) <= _SPREAD_OFF))
    if "tanh-40 orthogonal" in nets:
        rank = nets["tanh-40 orthogonal"]["rank"]
        text = f"effective rank of orthogonal tanh-40 over {_RANK}: {rank:.1f}"
        lines.append((text, rank > _RANK))
    error = results["dense"]["error"]
    lines.append((f"Lanczos within {_DENSE_ERROR:g}: {error:.1g}", error <= _DENSE_ERROR))
    share = max(
        measure.ratio(taken, times["epoch"])
        for times in cost.values()
        for taken in times["sharpness"].values()
    )
    text = f"sharpness in at most {_SHARE:.0%} of an epoch: {share:.0%} at worst"
    lines.append((text, share <= _SHARE))
    return [f"{text} ({'met' if met else 'missed'})" for text, met in lines]


def of_net(name: str, train: Dataset, draws: int) -> dict[str, float]:
    """Measured and predicted spectrum of a net such as "tanh-40 orthogonal"."""
    net, init = name.split(" ")
    config = configs.get_config(net)
    config.init, config.draws = init, draws
    record = spectrum.measure_jacobian(config, net, np.asarray(train.images))
    square = record["singular_values"] ** 2
    first, second = square.mean(axis=2), (square**2).mean(axis=2)
    spreads = record["spread"][:, -1]
    return {
        "rms": float(np.sqrt(first.mean())),
        "predicted_rms": float(np.sqrt(record["predicted_mean"][-1])),
        "spread": float(spreads.mean()),
        "error": float(spreads.std(ddof=1) / np.sqrt(draws)),
        "weighted": float(second.mean() / np.mean(first**2) - 1),
        "wide": float(record["predicted_spread"][-1]),
        "finite": float(record["predicted_finite_spread"][-1]),
        "rank": float(np.nanmean(config.width / (1 + jacobian.spread(record["singular_values"])))),
    }


def dense_check(train: Dataset) -> dict[str, float]:
    """Relative error of the sharpness of a net that is small enough for its whole Hessian."""
    small = Dataset(train.images[:64, 10:18, 10:18], train.labels[:64])
    model = MLP(3, 4, "tanh")
    params = init_state(model, spectrum.optim.make_optimizer(0.1), 0, small.images[:1]).params
    flat, unravel = ravel_pytree(params)

    def loss(flat: jax.Array) -> jax.Array:
        logits = model.apply({"params": unravel(flat)}, as_input(small.images))
        assert isinstance(logits, jax.Array)
        return jnp.mean(losses.cross_entropy(logits, small.labels))

    dense = np.linalg.eigvalsh(np.asarray(jax.hessian(loss)(flat), np.float64))[-1]
    found = sharpness.make_sharpness(model, images=64, iterations=20)(params, small)["sharpness"]
    return {"parameters": flat.size, "error": float(abs(float(found) / dense - 1))}


def cost(net: str, data_dir: str, rounds: int) -> dict[str, Any]:
    """Seconds of epochs of the depth study and of sharpness, in turns."""
    study = ours.load(net, data_dir)
    study = study._replace(test=jax.tree.map(lambda array: array[:1], study.test))
    trainer = ours.Trainer(study, probe=ours.probe_of(study))
    data = jax.device_put(study.train)
    programs = {
        str(images): sharding.over_seeds(
            lambda state, _, data, images=images: sharpness.make_sharpness(
                study.model, images=images, iterations=20
            )(state.params, data),
            trainer.mesh,
        )
        for images in _IMAGES
    }

    def once(images: str) -> object:
        return jax.block_until_ready(programs[images](trainer.states, trainer.seeds, data))

    contestants = {"epoch": trainer.epoch, **{n: lambda n=n: once(n) for n in programs}}
    samples = measure.alternate(contestants, rounds)
    return {"epoch": samples["epoch"], "sharpness": {n: samples[n] for n in programs}}


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    study = ours.load("relu-5", _FLAGS.data_dir)
    results: dict[str, Any] = {
        **measure.describe(),
        "data": study.caption,
        "draws": _DRAWS.value,
        "inputs": configs.get_config().inputs,
        "cost": {net: cost(net, _FLAGS.data_dir, _ROUNDS.value) for net in _TIMED},
        "dense": dense_check(study.train),
        "nets": {net: of_net(net, study.train, _DRAWS.value) for net in _NETS.value},
    }
    measure.finish(results, output, table)
    return 0


if __name__ == "__main__":
    measure.start(main)
