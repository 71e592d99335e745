"""One net under attack: its cases are attacked, written, judged again from their files, and drawn.

A success is judged three times, each time by other means: in the compiled loop, on the logits of
the picture that is written, and on the logits of its file, at a batch size that no call had.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.adversarial import criterion, diagnostics, distances, generate
from research.adversarial.loop import Method, Progress
from research.data import datasets
from research.experiments import trainer
from research.experiments.noise import attack_figures
from research.experiments.noise.nets import Net
from research.experiments.noise.samples import Sample
from research.runtime import files, preemption, profiling, progress
from research.storage import attack_files, checkpoint, run_directory
from research.structs import Array, Config, UserError
from research.training import scores

RESTARTED = 50  # failed cases at most that are tried again from another start
_TRACES = ("start_l2", "dead_first", "dead_last", "gradient_first", "gradient_last", "last_margin")

Row = Mapping[str, Any]  # of cells.jsonl


def attack(
    config: Config,
    net: Net,
    methods: Sequence[Method],
    sample: Sample,
    into: Path,
    source: datasets.Source,
) -> dict[str, Any]:
    """Attack the images of a sample that have no rows in `into` yet, and evaluate all of them.

    methods: run one after the other; the first alone tries failed cases again.
    Returns what summary.json says of the net.  Raises preemption.Stopped between two calls when
    told to stop, and UserError if the rows that are there are of another net.
    """
    files.make_folder(into)
    claim(net, into)
    classes = datasets.CLASSES[config.dataset]
    log = attack_files.CellLog(into, cells=len(classes))
    for number, image in zip(sample.numbers, sample.images, strict=True):
        attack_files.write_png(into / clean_file(number), image)

    done = log.finished(sample.numbers.tolist())
    if done:
        progress.say(f"{net.name}: {len(done):,} images are done already")
    todo = [i for i, number in enumerate(sample.numbers.tolist()) if number not in done]
    size = min(config.batch, len(sample.images))
    with progress.bar(
        None, f"{net.name}: attack", unit="images", total=len(sample.images), done=len(done)
    ) as bar:
        for first in range(0, len(todo), config.batch):
            chosen = np.array(todo[first : first + config.batch])
            full = np.resize(chosen, size)  # a call is filled up: nothing is compiled again
            with profiling.one_call(into):
                outcome = generate.generate(
                    net.apply_fn,
                    net.params,
                    sample.images[full],
                    sample.labels[full],
                    methods=methods,
                    seed=config.seed,
                    numbers=sample.numbers[full],
                )
                outcome = jax.tree.map(lambda leaf: np.asarray(leaf), outcome)
            required = methods[-1].required
            rows = list(_write_cases(config, net, sample, chosen, outcome, required, into))
            log.write(rows)
            preemption.mark_unsaved()  # a later call takes as long as the first, less compiling
            _ = bar.update(len(chosen))
            won = sum(row["success"] for row in rows)
            progress.say(f"{net.name}: {won:,} of the last {len(rows):,} cells won")
            preemption.raise_if_requested()

    rows = [row for row in log.rows() if row["image"] in sample.numbers]
    logits = net.logits(sample.images, config.eval_batch_size)
    predicted = dict(zip(sample.numbers.tolist(), logits.argmax(axis=1), strict=True))
    restarted = _restart(config, net, methods[:1], sample, rows)
    summary = {
        **summarise(rows, predicted),
        "verified": _verify(config, net, into, rows, methods[-1].required),
        "diagnostics": diagnostics.examine(rows, restarted),
    }
    words = _words(summary, config.norm)
    trained_on = trainer.trained_on(net.origin, source)
    words = "; ".join(filter(None, (words, trained_on)))
    caption = ", of a net ".join(filter(None, (source.caption(), trained_on)))
    caption += f". {config.method}, {sample.words}, seed {config.seed}"
    shares, matrix = scores.softmax(logits), summary["success_matrix"]
    run_directory.save_figures(
        into,
        lambda: attack_figures.draw(net.name, into, rows, matrix, shares, sample, classes, caption),
    )
    progress.say(f"{net.name}: {words}")
    return {
        **summary,
        "words": words,
        "run": str(net.workdir),
        "epochs": net.epochs,
        "origin": dict(net.origin),
    }


def clean_file(number: int) -> str:
    """Path of the picture of a test image without noise, below the net's directory."""
    return f"clean/{number:05d}.png"


def case_file(number: int, target: int) -> str:
    """Path of the picture of a case, below the net's directory."""
    return f"cells/{number:05d}-to-{target}.png"


def summarise(rows: Sequence[Row], predicted: Mapping[int, int]) -> dict[str, Any]:
    """Rates, norms and costs of the cases.

    predicted: {image: the class that the net gives it without noise}.
    Targeted cases and untargeted ones are never counted together.
    """
    summary: dict[str, Any] = {"cells": len(rows)}
    for kind, own in (("targeted", False), ("untargeted", True)):
        these = [row for row in rows if (row["target"] == row["actual"]) == own]
        right = [row for row in these if predicted[row["image"]] == row["actual"]]
        won = [row for row in these if row["success"]]
        summary[kind] = {
            "tried": len(these),
            "won": len(won),
            "tried_correct": len(right),
            "won_correct": sum(row["success"] for row in right),
            **{
                key: _quantiles([row[key] for row in won if row[key] is not None])
                for key in (
                    *("l0", "l1", "l2", "linf"),
                    *("psnr", "ssim", "probability", "margin", "steps"),
                )
            },
            "start_l2": _quantiles([row["start_l2"] for row in these]),
        }
    summary["gradients"] = sum(row["gradients"] for row in rows)
    summary["success_matrix"] = success_matrix(rows, predicted)
    return summary


def success_matrix(rows: Sequence[Row], predicted: Mapping[int, int]) -> dict[str, list[list[int]]]:
    """Counts [K, K] of cases, rows the actual class, columns the target.

    won and tried, and the same of the images that the net has right without noise.
    """
    size = 1 + max(row["target"] for row in rows)
    counts = {name: np.zeros((size, size), int) for name in ("won", "tried")}
    counts |= {f"{name}_correct": np.zeros((size, size), int) for name in counts}
    for row in rows:
        place = row["actual"], row["target"]
        right = predicted[row["image"]] == row["actual"]
        counts["tried"][place] += 1
        counts["won"][place] += row["success"]
        counts["tried_correct"][place] += right
        counts["won_correct"][place] += right and row["success"]
    return {name: count.tolist() for name, count in counts.items()}


def claim(net: Net, into: Path) -> None:
    """Note the net whose cases lie in `into`; raises UserError if another is noted there."""
    path = into / "net.json"
    asked = {"run": str(net.workdir), "epoch": net.epochs, **checkpoint.digests(net.params)}
    begun = run_directory.read_json(path, "run", "epoch")
    if begun is None:
        run_directory.write_json(path, asked)
        return
    if any(begun.get(key) != asked[key] for key in asked if key != "run"):
        raise UserError(
            f"{into} was begun against another net: that of {begun['run']} after epoch "
            f"{begun['epoch']}, and now it is that of {net.workdir} after epoch {net.epochs}. "
            "Give another --workdir"
        )


def judge(
    logits: np.ndarray, actual: np.ndarray, target: np.ndarray, required: float
) -> tuple[np.ndarray, np.ndarray]:
    """Margins [N] float32 of logits [N, K], and whether they are successes, [N] bool.

    actual, target: [N] int32.  required: of the method; of a margin any is enough here, for logits
    depend on the batch by rounding, but no tie where the method takes none.
    """
    lead = min(required, criterion.ANY_LEAD)
    margins, successes = _judge_all(logits, actual, target, lead)
    return np.asarray(margins), np.asarray(successes)


@functools.partial(jax.jit, static_argnames="required")
def _judge_all(
    logits: Array, actual: Array, target: Array, required: float
) -> tuple[jax.Array, jax.Array]:
    succeeds = functools.partial(criterion.succeeds, required=required)
    cases = (logits, actual, target)
    return jax.vmap(criterion.margin)(*cases), jax.vmap(succeeds)(*cases)


def _write_cases(
    config: Config,
    net: Net,
    sample: Sample,
    chosen: np.ndarray,
    outcome: Progress,
    required: float,
    into: Path,
) -> Iterator[dict[str, Any]]:
    """Write a picture of each case, the best or for a failure the last, and yield its row.

    chosen: [N] places in the sample.  outcome: arrays [N or more, T, ...] of these images.
    A success must be one at `eval_batch_size` as well.
    """
    outcome = jax.tree.map(lambda leaf: leaf[: len(chosen)], outcome)
    targets = outcome.success.shape[1]
    shown = np.where(outcome.success[..., None, None, None], outcome.best, outcome.last)
    flat = shown.reshape(-1, *shown.shape[2:])
    clean = np.repeat(sample.images[chosen], targets, axis=0)
    logits = net.logits(flat, config.eval_batch_size)
    shares, measured = scores.softmax(logits), distances.measure(clean, flat).rows()
    actuals = np.repeat(sample.labels[chosen], targets)
    wanted = np.tile(np.arange(targets, dtype=np.int32), len(chosen))
    margins, successes = judge(logits, actuals, wanted, required)
    for i, n in enumerate(chosen):
        number, actual = int(sample.numbers[n]), int(sample.labels[n])
        for target in range(targets):
            row = i * targets + target
            won, holds = bool(outcome.success[i, target]), bool(successes[row])
            attack_files.write_png(into / case_file(number, target), flat[row])
            yield {
                "image": number,
                "actual": actual,
                "target": target,
                "success": won and holds,
                "steps": int(outcome.first[i, target] if won else outcome.steps[i, target]),
                "predicted": int(logits[row].argmax()),
                "probability": float(shares[row].max()),
                "margin": float(margins[row]),
                **measured[row],
                "file": case_file(number, target),
                "gradients": int(outcome.steps[i, target]),
                "success_lost": won and not holds,
                **{name: _finite(getattr(outcome, name)[i, target]) for name in _TRACES},
            }


def _verify(
    config: Config, net: Net, into: Path, rows: Sequence[Row], required: float
) -> dict[str, Any]:
    """Judge every success again from its file, at a batch size that no call had."""
    won = [row for row in rows if row["success"]]
    size = config.eval_batch_size + 1
    survived = 0
    for first in range(0, len(won), 20 * size):
        part = won[first : first + 20 * size]
        images = np.stack([attack_files.read_png(into / row["file"]) for row in part])
        logits = net.logits(images, size)
        actual, target = (
            np.array([row[key] for row in part], np.int32) for key in ("actual", "target")
        )
        survived += int(judge(logits, actual, target, required)[1].sum())
    return {"files": len(won), "survived": survived, "batch_size": size}


def _restart(
    config: Config,
    net: Net,
    methods: Sequence[Method],
    sample: Sample,
    rows: Sequence[Row],
) -> dict[tuple[int, int], bool]:
    """{(image, target): whether another random start succeeds}, of some failed cases."""
    failed = [(row["image"], row["target"]) for row in rows if not row["success"]][:RESTARTED]
    if not failed:
        return {}
    progress.say(f"{net.name}: trying {len(failed)} failed cells from another random start")
    where = {int(number): place for place, number in enumerate(sample.numbers)}
    places = np.resize([where[image] for image, _ in failed], RESTARTED)
    targets = np.resize([target for _, target in failed], RESTARTED)
    outcome = generate.generate(
        net.apply_fn,
        net.params,
        sample.images[places],
        sample.labels[places],
        targets=targets[:, None],
        methods=methods,
        seed=config.seed + 1,
        numbers=sample.numbers[places],
    )
    won = np.asarray(outcome.success)[:, 0].tolist()
    return dict(zip(failed, won, strict=False))


def _words(summary: Mapping[str, Any], norm: str) -> str:
    """Rates and the median of a norm in one line."""
    parts: list[str] = []
    for kind in ("targeted", "untargeted"):
        counts = summary[kind]
        words = f"{counts['won']:,} of {counts['tried']:,} {kind} cells"
        if counts[norm]:
            words += f", median {norm.capitalize()} {counts[norm]['median']:.3f}"
        parts.append(words)
    verified = summary["verified"]
    parts.append(f"{verified['survived']:,} of {verified['files']:,} successes hold on their files")
    return "; ".join(parts)


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, high = np.quantile(np.asarray(values, np.float64), (0.5, 0.9))
    return {"median": float(median), "p90": float(high)}


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
