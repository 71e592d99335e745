"""One net under attack: its cells made, written, judged again from their files, and drawn."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.adversarial import diagnostics, distances, generate
from research.adversarial.loop import Method, Progress
from research.data import datasets
from research.experiments import trainer
from research.experiments.noise import attack_figures
from research.experiments.noise.nets import Net
from research.experiments.noise.samples import Sample
from research.runtime import files, preemption, profiling
from research.storage import attack_files, checkpoint, run_directory
from research.structs import Config, UserError
from research.training import scores

RESTARTED = 50  # failed cells at most that are tried again from another start
_TRACES = ("start_l2", "dead_first", "dead_last", "gradient_first", "gradient_last", "last_margin")


def attack(
    config: Config,
    net: Net,
    methods: Sequence[Method],
    sample: Sample,
    into: Path,
    source: datasets.Source,
) -> dict[str, Any]:
    """Make what is missing of a net's cells in `into`, judge the files, draw; for summary.json.

    Raises preemption.Stopped between two calls when told to stop, and UserError if the cells that
    are there were made against another net.
    """
    files.make_folder(into)
    _claim(net, into)
    classes = datasets.CLASSES[config.dataset]
    log = attack_files.CellLog(into, cells=len(classes))
    logits = generate.logits_of(
        net.apply_fn, net.params, sample.images, batch_size=config.eval_batch_size
    )
    for number, image in zip(sample.numbers, sample.images, strict=True):
        attack_files.write_png(into / clean_file(number), image)
    _make(config, net, methods, sample, log, into)
    rows = [row for row in log.rows() if row["image"] in sample.numbers]
    restarted = _restart(config, net, methods, sample, rows)
    summary = {
        **summarise(rows, dict(zip(sample.numbers.tolist(), logits.argmax(axis=1), strict=True))),
        "verified": _verify(config, net, into, rows),
        "diagnostics": diagnostics.examine(rows, restarted),
    }
    words = _words(summary)
    caption = f"{source.caption()}. {config.method}, {sample.words}, seed {config.seed}"
    shares, matrix = scores.softmax(logits), summary["success_matrix"]
    run_directory.save_figures(
        into,
        lambda: attack_figures.draw(net.name, into, rows, matrix, shares, sample, classes, caption),
    )
    trainer.say(f"{net.name}: {words}")
    return {**summary, "words": words, "run": str(net.workdir), "epochs": net.epochs}


def clean_file(number: int) -> str:
    """Where the picture of a test image without noise lies."""
    return f"clean/{number:05d}.png"


def cell_file(number: int, target: int) -> str:
    """Where the picture of a cell lies."""
    return f"cells/{number:05d}-to-{target}.png"


def summarise(rows: Sequence[Mapping[str, Any]], said: Mapping[int, int]) -> dict[str, Any]:
    """Rates, norms and costs of the cells.

    rows: of cells.jsonl.  said: {image: what the net says without noise}.
    Targeted cells and untargeted ones are never counted together.
    """
    summary: dict[str, Any] = {"cells": len(rows)}
    for kind, own in (("targeted", False), ("untargeted", True)):
        these = [row for row in rows if (row["target"] == row["actual"]) == own]
        right = [row for row in these if said[row["image"]] == row["actual"]]
        won = [row for row in these if row["success"]]
        summary[kind] = {
            "tried": len(these),
            "won": len(won),
            "tried_correct": len(right),
            "won_correct": sum(row["success"] for row in right),
            **{
                key: _quantiles([row[key] for row in won if row[key] is not None])
                for key in ("l0", "l2", "linf", "psnr", "ssim", "probability", "margin", "steps")
            },
            "start_l2": _quantiles([row["start_l2"] for row in these]),
        }
    summary["gradients"] = sum(row["gradients"] for row in rows)
    summary["success_matrix"] = success_matrix(rows, said)
    return summary


def success_matrix(
    rows: Sequence[Mapping[str, Any]], said: Mapping[int, int]
) -> dict[str, list[list[int]]]:
    """Counts [K, K] of cells, rows the actual class, columns the target.

    won and tried, and the same of the images that the net has right without noise.
    """
    size = 1 + max(row["target"] for row in rows)
    counts = {name: np.zeros((size, size), int) for name in ("won", "tried")}
    counts |= {f"{name}_correct": np.zeros((size, size), int) for name in counts}
    for row in rows:
        place = row["actual"], row["target"]
        right = said[row["image"]] == row["actual"]
        counts["tried"][place] += 1
        counts["won"][place] += row["success"]
        counts["tried_correct"][place] += right
        counts["won_correct"][place] += right and row["success"]
    return {name: count.tolist() for name, count in counts.items()}


def successes(
    into: Path, rows: Sequence[Mapping[str, Any]], sample: Sample
) -> tuple[np.ndarray, np.ndarray]:
    """The successful images [M, H, W, C] among the rows, and whose they are, [M] into `sample`."""
    where = {int(number): place for place, number in enumerate(sample.numbers)}
    won = [row for row in rows if row["success"] and row["image"] in where]
    if not won:
        return sample.images[:0], np.zeros(0, np.int64)
    images = np.stack([attack_files.read_png(into / row["file"]) for row in won])
    return images, np.array([where[row["image"]] for row in won])


def _claim(net: Net, into: Path) -> None:
    """Note whose cells lie in `into`."""
    path = into / "net.json"
    asked = {"run": str(net.workdir), "epoch": net.epochs, **checkpoint.digests(net.params)}
    begun = run_directory.read_json(path)
    if begun is None:
        run_directory.write_json(path, asked)
        return
    if any(begun.get(key) != asked[key] for key in asked if key != "run"):
        raise UserError(
            f"{into} was begun against another net: that of {begun['run']} after epoch "
            f"{begun['epoch']}, and now it is that of {net.workdir} after epoch {net.epochs}. "
            "Give another --workdir"
        )


def _make(
    config: Config,
    net: Net,
    methods: Sequence[Method],
    sample: Sample,
    log: attack_files.CellLog,
    into: Path,
) -> None:
    """Attack the images that have no rows yet, `config.batch` in a call."""
    done = log.finished(sample.numbers.tolist())
    todo = [i for i, number in enumerate(sample.numbers.tolist()) if number not in done]
    if done:
        trainer.say(f"{net.name}: {len(done):,} images are done already")
    began = time.monotonic()
    for first in range(0, len(todo), config.batch):
        chosen = np.array(todo[first : first + config.batch])
        with profiling.one_call(into):
            progress = _generate(config, net, methods, sample, chosen, config.seed)
        rows = list(_write_cells(config, net, sample, chosen, progress, into))
        log.write(rows)
        ended = first + len(chosen)
        left = (time.monotonic() - began) / ended * (len(todo) - ended)
        trainer.say(
            f"{net.name}: {ended:,} of {len(todo):,} images attacked, "
            f"{sum(row['success'] for row in rows):,} of the last {len(rows):,} cells won, "
            f"about {left:.0f} s left"
        )
        preemption.raise_if_requested()


def _generate(
    config: Config,
    net: Net,
    methods: Sequence[Method],
    sample: Sample,
    chosen: np.ndarray,
    seed: int,
) -> Progress:
    """The cells of the chosen images, as NumPy arrays.

    A call is always filled up to as many images, so that nothing is compiled again.
    """
    full = np.resize(chosen, min(config.batch, len(sample.images)))
    progress = generate.generate(
        net.apply_fn,
        net.params,
        sample.images[full],
        sample.labels[full],
        methods=methods,
        seed=seed,
        numbers=sample.numbers[full],
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(chosen)], progress)


def _write_cells(
    config: Config, net: Net, sample: Sample, chosen: np.ndarray, progress: Any, into: Path
) -> Iterator[dict[str, Any]]:
    """Write the pictures of some images' cells: the best, or for a failure the last; yields rows.

    A success must also be one at the batch size of the judges of files.
    """
    targets = progress.success.shape[1]
    shown = np.where(progress.success[..., None, None, None], progress.best, progress.last)
    flat = shown.reshape(-1, *shown.shape[2:])
    clean = np.repeat(sample.images[chosen], targets, axis=0)
    logits = generate.logits_of(net.apply_fn, net.params, flat, batch_size=config.eval_batch_size)
    shares, measured = scores.softmax(logits), distances.measure(clean, flat).rows()
    for i, n in enumerate(chosen):
        number, actual = int(sample.numbers[n]), int(sample.labels[n])
        for target in range(targets):
            row = i * targets + target
            margin = margin_of(logits[row], actual, target)
            won = bool(progress.success[i, target])
            attack_files.write_png(into / cell_file(number, target), flat[row])
            yield {
                "image": number,
                "actual": actual,
                "target": target,
                "success": won and margin > 0,
                "steps": int(progress.first[i, target] if won else progress.steps[i, target]),
                "predicted": int(logits[row].argmax()),
                "probability": float(shares[row].max()),
                "margin": margin,
                **measured[row],
                "file": cell_file(number, target),
                "gradients": int(progress.steps[i, target]),
                "success_lost": won and margin <= 0,
                **{name: _finite(getattr(progress, name)[i, target]) for name in _TRACES},
            }


def margin_of(logits: np.ndarray, actual: int, target: int) -> float:
    """As `judge.margin`, of logits [K] on the host."""
    above = float(logits[target] - np.delete(logits, target).max())
    return -above if target == actual else above


def _verify(
    config: Config, net: Net, into: Path, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Judge every success again from its file, at a batch size that no call had."""
    won = [row for row in rows if row["success"]]
    size = config.eval_batch_size + 1
    survived = 0
    for first in range(0, len(won), 20 * size):
        part = won[first : first + 20 * size]
        images = np.stack([attack_files.read_png(into / row["file"]) for row in part])
        logits = generate.logits_of(net.apply_fn, net.params, images, batch_size=size)
        survived += sum(
            margin_of(each, row["actual"], row["target"]) > 0
            for each, row in zip(logits, part, strict=True)
        )
    return {"files": len(won), "survived": survived, "batch_size": size}


def _restart(
    config: Config,
    net: Net,
    methods: Sequence[Method],
    sample: Sample,
    rows: Sequence[Mapping[str, Any]],
) -> dict[tuple[int, int], bool]:
    """{(image, target): whether another random start succeeds}, of some failed cells."""
    failed = [(row["image"], row["target"]) for row in rows if not row["success"]][:RESTARTED]
    if not failed:
        return {}
    trainer.say(f"{net.name}: trying {len(failed)} failed cells from another random start")
    where = {int(number): place for place, number in enumerate(sample.numbers)}
    places = np.resize([where[image] for image, _ in failed], RESTARTED)
    targets = np.resize([target for _, target in failed], RESTARTED)
    progress = generate.generate(
        net.apply_fn,
        net.params,
        sample.images[places],
        sample.labels[places],
        targets=targets[:, None],
        methods=methods[:1],
        seed=config.seed + 1,
        numbers=sample.numbers[places],
    )
    won = np.asarray(progress.success)[:, 0].tolist()
    return dict(zip(failed, won, strict=False))


def _words(summary: Mapping[str, Any]) -> str:
    """What a person wants to know first."""
    parts: list[str] = []
    for kind in ("targeted", "untargeted"):
        own = summary[kind]
        norm = f", median L2 {own['l2']['median']:.3f}" if own["l2"] else ""
        parts.append(f"{own['won']:,} of {own['tried']:,} {kind} cells{norm}")
    files = summary["verified"]
    parts.append(f"{files['survived']:,} of {files['files']:,} successes hold on their files")
    return "; ".join(parts)


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, high = np.quantile(np.asarray(values, np.float64), (0.5, 0.9))
    return {"median": float(median), "p90": float(high)}


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
