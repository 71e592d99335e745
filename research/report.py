"""Tables of README.md, made from records and checked against them.

python -m research.report --collect=runs/mlp/all,seeds=5   # run directories -> results/
python -m research.report                                  # results/ -> README.md
python -m research.report --check                          # fails if README.md says otherwise
"""

import hashlib
import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from configs import cnn, mlp
from research import record, scores
from research.tables import masks as mask_tables
from research.tables import noise as noise_tables
from research.types import UserError

_COLLECT = flags.DEFINE_multi_string(
    "collect", [], "Run directory whose summary goes into results/; may be given several times."
)
_CHECK = flags.DEFINE_bool("check", False, "Change nothing; fail if README.md is out of date.")

ROOT = Path(__file__).parents[1]
DEPTHS = (5, 20, 40)
FIGURE = "figure_3"  # of the depth study, shown in README.md
CONFUSION = "cifar10-best"  # the classifier whose confusion matrix is shown
NOISE = "noise_distributions.png"  # what an adversarial image takes
# Keys that may differ from the stated configuration, for they do not change what is measured.
_FREE_KEYS = ("seeds", "data", "cpu_devices", "cpu_threads", "eval_batch_size", "matmul_precision")

# Test accuracy in percent, report Parts B and D.
REPORTED = {
    "relu-5": 96.2, "relu-20": 91.8, "relu-40": 19.6,
    "tanh-5": 96.1, "tanh-20": 96.2, "tanh-40": 95.4,
    "sigmoid-5": 11.3, "sigmoid-20": 11.3, "sigmoid-40": 11.3,
    "lecun-5": 96.1, "lecun-20": 96.2, "lecun-40": 96.3,
}  # fmt: skip

REPORTED_CLASSIFIERS = {"mnist": 97.0, "cifar10": 75.0}  # test accuracy in percent, Exercise 2


def depth_table(result: Mapping[str, Any]) -> str:
    """Markdown table of test accuracies, a row a net, from the content of results/depth.json."""
    lines = [
        "| net | mean | sd | min | max | the report |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for net, accuracies in result["test_accuracy"].items():
        values = 100 * np.asarray(accuracies)
        numbers = (values.mean(), values.std(ddof=1), values.min(), values.max())
        cells = " | ".join(f"{number:.2f}" for number in numbers)
        lines.append(f"| {net} | {cells} | {REPORTED[net]:.1f} |")
    seeds = len(next(iter(result["test_accuracy"].values())))
    return "\n".join(
        [
            *lines,
            "",
            f"Test accuracy in percent after {result['epochs']} epochs, {seeds} seeds. "
            f"Data: {result['data']['caption']}. Device: {result['device']}, "
            f"jax {result['packages']['jax']}. Command: `{result['command']}`.",
        ]
    )


def claims_table(result: Mapping[str, Any]) -> str:
    """What the report says of orders and trends in Parts B and D, and what these runs say."""
    rows = [
        ("B17", "sigmoid fails at every depth (at most 20 %)", *_sigmoid_fails(result)),
        ("B19", "best of nine: tanh-20, along with relu-5", *_best_of_nine(result)),
        ("B20", "tanh keeps its accuracy at every depth (95 % or more)", *_tanh_keeps(result)),
        ("B21", "ReLU loses accuracy with depth", *_relu_loses(result)),
        ("D10", "LeCun gains accuracy with depth", *_lecun_gains(result)),
        ("D11", "with 5 layers LeCun and tanh are about equal", *_equal_at_five(result)),
        *(
            (
                "D12",
                f"{depth} layers: LeCun has the better accuracy and loss, train and test",
                *_lecun_better(result, depth),
            )
            for depth in (20, 40)
        ),
        ("D15", "LeCun's gradients are larger than tanh's in general", *_lecun_larger(result)),
        ("D16", "... especially with 5 and with 40 layers", *_lecun_largest_where(result)),
    ]
    head = ["| claim | the report says | these runs | |", "|---|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def _percent(result: Mapping[str, Any], net: str) -> np.ndarray:
    return 100 * np.asarray(result["test_accuracy"][net])


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


def _sigmoid_fails(result: Mapping[str, Any]) -> tuple[str, str]:
    best = max(_percent(result, f"sigmoid-{depth}").max() for depth in DEPTHS)
    return f"best of all seeds and depths: {best:.2f} %", _verdict(best <= 20)


def _best_of_nine(result: Mapping[str, Any]) -> tuple[str, str]:
    nine = [net for net in REPORTED if not net.startswith("lecun")]
    mean = {net: _percent(result, net).mean() for net in nine}
    first, second = sorted(nine, key=lambda net: -mean[net])[:2]
    least = _percent(result, first).min()
    level = all(_percent(result, net).max() >= least for net in ("tanh-20", "relu-5"))
    said = f"{first} {mean[first]:.2f} %, then {second} {mean[second]:.2f} %; the seeds of tanh-20 "
    said += f"and relu-5 {'reach' if level else 'do not reach'} those of {first}"
    return said, _verdict(level)


def _tanh_keeps(result: Mapping[str, Any]) -> tuple[str, str]:
    means = [_percent(result, f"tanh-{depth}").mean() for depth in DEPTHS]
    return f"{_arrows(means)} %", _verdict(min(means) >= 95)


def _relu_loses(result: Mapping[str, Any]) -> tuple[str, str]:
    each = np.array([_percent(result, f"relu-{depth}") for depth in DEPTHS])
    falling = int(np.sum(np.all(np.diff(each, axis=0) < 0, axis=0)))
    said = f"{_arrows(each.mean(axis=1))} %; in {falling} of {each.shape[1]} seeds"
    return said, _verdict(bool(np.all(np.diff(each.mean(axis=1)) < 0)))


def _lecun_gains(result: Mapping[str, Any]) -> tuple[str, str]:
    means = [_percent(result, f"lecun-{depth}").mean() for depth in DEPTHS]
    return f"{_arrows(means)} %", _verdict(bool(np.all(np.diff(means) > 0)))


def _equal_at_five(result: Mapping[str, Any]) -> tuple[str, str]:
    lecun, tanh = _percent(result, "lecun-5"), _percent(result, "tanh-5")
    difference = lecun.mean() - tanh.mean()
    # Two standard errors of an accuracy near 95 % over 10,000 images.
    return f"LeCun {difference:+.2f} points", _verdict(abs(difference) <= 0.44)


def _lecun_better(result: Mapping[str, Any], depth: int) -> tuple[str, str]:
    signs = {"train_accuracy": 1, "test_accuracy": 1, "train_loss": -1, "test_loss": -1}
    wins = []
    for key, sign in signs.items():
        lecun, tanh = (np.asarray(result[key][f"{name}-{depth}"]) for name in ("lecun", "tanh"))
        wins.append((int(np.sum(sign * lecun > sign * tanh)), sign * (lecun.mean() - tanh.mean())))
    names = [key.replace("_", " ") for key in signs]
    seeds = len(result["test_loss"][f"tanh-{depth}"])
    said = ", ".join(f"{name} {won}" for name, (won, _) in zip(names, wins, strict=True))
    return f"seeds of {seeds} in which LeCun is better: {said}", _verdict(
        all(gain > 0 for _, gain in wins)
    )


def _lecun_over_tanh(result: Mapping[str, Any], depth: int) -> np.ndarray:
    """Ratio of the gradient maxima, LeCun to tanh: [epoch, layer]."""
    lecun, tanh = (np.array(result["gradient_maxima"][f"{n}-{depth}"]) for n in ("lecun", "tanh"))
    return lecun / tanh


def _lecun_larger(result: Mapping[str, Any]) -> tuple[str, str]:
    shares = [float(np.mean(_lecun_over_tanh(result, depth) > 1)) for depth in DEPTHS]
    said = ", ".join(f"{100 * s:.0f} % ({d})" for s, d in zip(shares, DEPTHS, strict=True))
    return f"share of layers and epochs in which they are: {said}", _verdict(min(shares) > 0.5)


def _lecun_largest_where(result: Mapping[str, Any]) -> tuple[str, str]:
    ratios = [float(np.median(_lecun_over_tanh(result, depth))) for depth in DEPTHS]
    said = ", ".join(f"{r:.2f} ({d})" for r, d in zip(ratios, DEPTHS, strict=True))
    return f"median ratio: {said}", _verdict(min(ratios[0], ratios[2]) > ratios[1])


def _arrows(means: Sequence[float] | np.ndarray) -> str:
    return " -> ".join(f"{mean:.2f}" for mean in means)


def classifiers_table(result: Mapping[str, Any]) -> str:
    """Markdown table of the classifiers, from the content of results/classifiers.json."""
    lines = [
        "| net | parameters | epochs | seeds | test accuracy (%) | min | max | 95 % of the first | "
        "calibration error | the report |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for name in (name for name in cnn.VARIANTS if name in result):
        row = result[name]
        values = 100 * np.asarray(row["test_accuracy"])
        low, high = scores.wilson_interval(row["correct"][0], row["count"])
        epochs = f"{row['epochs']}"
        if row["epochs"] != row["stated_epochs"]:
            epochs += f" of {row['stated_epochs']}"
        reported = REPORTED_CLASSIFIERS.get(name)
        lines.append(
            f"| {name} | {row['parameters']:,} | {epochs} | {len(values)} | {values.mean():.2f} | "
            f"{values.min():.2f} | {values.max():.2f} | {100 * low:.2f} - {100 * high:.2f} | "
            f"{np.mean(row['ece']):.4f} | {'-' if reported is None else f'{reported:.0f}'} |"
        )
        notes.append(
            f"{name}: {row['data']['caption']}; peak memory {row['peak_memory_mib']:,.0f} MiB; "
            f"`{row['command']}`."
        )
    first = next(iter(result.values()))
    notes.append(f"Device: {first['device']}, jax {first['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def _benchmark(name: str) -> tuple[str, Callable[[Mapping[str, Any]], str]]:
    """Results and table of one module of benchmarks/."""

    def table(result: Mapping[str, Any]) -> str:
        return importlib.import_module(f"benchmarks.{name}").table(result)

    return f"benchmarks/results/{name}.json", table


# Name of a block in README.md: (file it is made from, how).
BLOCKS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "depth": ("results/depth.json", depth_table),
    "depth-claims": ("results/depth.json", claims_table),
    "classifiers": ("results/classifiers.json", classifiers_table),
    "noise": ("results/noise.json", noise_tables.table),
    "noise-robust": ("results/noise.json", noise_tables.robust_table),
    "masks-counts": ("results/masks.json", mask_tables.counts_table),
    "masks": ("results/masks.json", mask_tables.table),
    "masks-trends": ("results/masks.json", mask_tables.trends_table),
    **{
        f"benchmark-{name}": _benchmark(name)
        for name in (
            *("depth", "study", "probe", "layers", "seeds", "cnn", "layers_cnn", "attacks"),
            *("detect", "ingest", "masks_net"),
        )
    },
    "benchmark-layers_masks": (
        "benchmarks/results/layers_masks.json",
        _benchmark("layers_cnn")[1],
    ),
}


def stale_figures(root: Path) -> list[str]:
    """Names of the figures in results/ that are not of the runs that the tables are made from."""
    results = root / "results"
    depth = json.loads((results / "depth.json").read_text())
    classifiers = json.loads((results / "classifiers.json").read_text())
    noise = json.loads((results / "noise.json").read_text())
    recorded = {
        f"{FIGURE}.png": depth["figure_sha256"],
        f"confusion_{CONFUSION}.png": classifiers[CONFUSION]["figure_sha256"],
        NOISE: noise[noise_tables.SHOWN]["figure_sha256"],
    }
    pictures = results / mask_tables.PICTURES
    if pictures.exists():
        about = json.loads(pictures.read_text())
        recorded |= {name: picture["sha256"] for name, picture in about.items()}
    return [name for name, sha256 in recorded.items() if _sha256(results / name) != sha256]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def render(text: str, root: Path) -> str:
    """`text` with every block between its two comments made anew from the files under `root`.

    Raises UserError for a block that is not in `BLOCKS`, has no end, or whose file is missing.
    """

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name not in BLOCKS:
            raise UserError(f"generated block {name!r} is unknown; valid: {', '.join(BLOCKS)}")
        file, make = BLOCKS[name]
        try:
            result = json.loads((root / file).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{root / file} cannot be read ({error})") from error
        return f"<!-- generated: {name} -->\n{make(result)}\n<!-- end -->"

    made, count = re.subn(
        r"<!-- generated: ([\w-]+) -->\n.*?<!-- end -->", replaced, text, flags=re.DOTALL
    )
    if count != text.count("<!-- generated:"):
        raise UserError("a generated block has no `<!-- end -->`")
    return made


def collect(workdir: Path) -> dict[str, Any]:
    """What results/depth.json keeps of a run of several nets: numbers and where they come from.

    Paths of the machine are left out.  Raises UserError if the run is not finished.
    """
    summary = record.finished_summary(workdir)
    if summary is None or "nets" not in summary:
        raise UserError(f"{workdir} holds no finished run of several nets (no such summary.json)")
    if set(summary["nets"]) != set(REPORTED):
        raise UserError(f"{workdir} does not hold the twelve nets of the report")
    versions = json.loads((workdir / "versions.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    stated = json.loads(mlp.get_config("all").to_json())
    changed = [key for key in stated if config[key] != stated[key] and key not in _FREE_KEYS]
    if changed or config["seeds"] < 2:
        wrong = ", ".join(changed) or "seeds: fewer than two"
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    if versions["data"]["name"] != "MNIST":
        raise UserError(f"{workdir} was not run on the full MNIST: {versions['data']['caption']}")
    rows = {net: record.rows(workdir / net)[-1] for net in REPORTED}
    return {
        "command": "python -m research.main --config=configs/mlp.py:all "
        f"--config.seeds={config['seeds']} --config.data.dir=DIR",
        "epochs": config["epochs"],
        "data": {k: v for k, v in versions["data"].items() if k != "source"},
        "device": versions["device"],
        "packages": versions["packages"],
        "git_commit": versions["git_commit"],
        "figure_sha256": _sha256(workdir / "figures" / f"{FIGURE}.png"),
        "gradient_maxima": {net: _gradient_maxima(workdir / net) for net in REPORTED},
        **{
            key: {net: rows[net][key] for net in rows}
            for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        },
    }


def collect_classifier(workdir: Path) -> dict[str, Any]:
    """{variant: what results/classifiers.json keeps of its run}, paths of the machine left out.

    Raises UserError if the run is not finished, or not of the stated configuration; another number
    of epochs is allowed, and shown in the table.
    """
    summary = record.finished_summary(workdir)
    if summary is None or "parameters" not in summary:
        raise UserError(f"{workdir} holds no finished run of a classifier (no such summary.json)")
    versions = json.loads((workdir / "versions.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    if config["name"] not in cnn.VARIANTS:
        raise UserError(f"{workdir} holds {config['name']!r}, not one of {', '.join(cnn.VARIANTS)}")
    stated = json.loads(cnn.get_config(config["name"]).to_json())
    config = record.complete(config, stated)
    changed = [
        key
        for key in stated
        if config[key] != stated[key] and key not in (*_FREE_KEYS, "epochs", "look_every")
    ]
    if changed:
        wrong = ", ".join(changed)
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    if not versions["data"]["full"]:
        raise UserError(f"{workdir} was not run on the full set: {versions['data']['caption']}")
    words = [f"python -m research.main --config=configs/cnn.py:{config['name']}"]
    words += [
        f"--config.{key}={config[key]}" for key in ("seeds", "epochs") if config[key] != stated[key]
    ]
    kept = ("parameters", "peak_memory_mib")
    judged = summary["test"]
    return {
        config["name"]: {
            "command": " ".join([*words, "--config.data.dir=DIR"]),
            "epochs": config["epochs"],
            "stated_epochs": stated["epochs"],
            "test_accuracy": [each["accuracy"] for each in judged],
            "correct": [each["correct"] for each in judged],
            "count": judged[0]["count"],
            "ece": [each["ece"] for each in judged],
            "figure_sha256": _sha256(workdir / "figures" / "confusion.png"),
            **{key: summary[key] for key in kept},
            "data": {k: v for k, v in versions["data"].items() if k != "source"},
            "device": versions["device"],
            "packages": versions["packages"],
            "git_commit": versions["git_commit"],
        }
    }


def _gradient_maxima(workdir: Path) -> list[list[float]]:
    """Largest |dL/dW| of epochs 1-3, the median over seeds: [epoch][layer]."""
    found = np.median(record.gradients(workdir)["kernel_abs_max"][1:4], axis=1)
    return [[float(f"{value:.4g}") for value in layer_values] for layer_values in found]


def collect_into(results: Path, workdir: Path) -> None:
    """Keep what the tables need of a run, whatever its experiment."""
    summary = record.finished_summary(workdir) or {}
    if "method" in summary:
        path = results / "noise.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        found = noise_tables.collect(workdir)
        record.write_json(path, kept | found)
        if noise_tables.SHOWN in found:
            _ = shutil.copyfile(workdir / noise_tables.FIGURE, results / NOISE)
        return
    if mask_tables.picture_of(workdir, summary) is not None:
        mask_tables.collect_picture(results, workdir, summary)
        return
    if "epochs_trained" in summary:
        path = results / "masks.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        record.write_json(path, kept | mask_tables.collect(workdir))
        return
    if "nets" in summary:
        record.write_json(results / "depth.json", collect(workdir))
        _ = shutil.copyfile(workdir / "figures" / f"{FIGURE}.png", results / f"{FIGURE}.png")
        return
    path = results / "classifiers.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = collect_classifier(workdir)
    record.write_json(path, kept | found)
    for name in found:
        if name == CONFUSION:
            figure = workdir / "figures" / "confusion.png"
            _ = shutil.copyfile(figure, results / f"confusion_{name}.png")


def main(argv: Sequence[str]) -> int:
    """The door: flags to exit code."""
    del argv
    readme = ROOT / "README.md"
    try:
        for directory in _COLLECT.value:
            collect_into(ROOT / "results", Path(directory))
        text = readme.read_text()
        made = render(text, ROOT)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if stale := stale_figures(ROOT):
        said = f"results/{stale[0]} is not of the run that its table is made from; use --collect"
        print(f"error: {said} again", file=sys.stderr)
        return 1
    if made == text:
        print(f"{readme.name} agrees with its records", file=sys.stderr)
        return 0
    if _CHECK.value:
        message = "error: README.md differs from its records; run python -m research.report"
        print(message, file=sys.stderr)
        return 1
    _ = readme.write_text(made)
    print(f"{readme.name} is made anew from its records", file=sys.stderr)
    return 0


if __name__ == "__main__":
    app.run(main)
