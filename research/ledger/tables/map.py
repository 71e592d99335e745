"""Tables of the maps of trainability: how well the theory tells which cells train."""

from collections.abc import Sequence

import numpy as np

from research.experiments import map as study
from research.ledger.published import command
from research.storage.run_directory import Run
from research.theory import depth_scales


def table(runs: Sequence[Run]) -> str:
    """Markdown table, a row a map over sigma_w; the first one's threshold is what the others get.

    Two scores: depth over the depth scale at the fixed point, and of the layers as they are.
    """
    lines = [
        "| | cells that train | agree with depth < 6 ξ | AUC | best threshold | balanced accuracy "
        "at 6 | at that of the first | layers as they are: AUC | at that of the first |",
        f"|---|{'---:|' * 8}",
    ]
    first = _scored(runs[0])
    borrowed = [depth_scales.best_threshold(deep, first[0]) for deep in first[1:]]
    for run in runs:
        outcomes, fixed, layers = _scored(run)
        agree = np.mean((fixed < depth_scales.LIMIT) == outcomes)
        own = depth_scales.best_threshold(fixed, outcomes)
        sorted_ = [
            depth_scales.balanced_accuracy(deep, outcomes, threshold)
            for deep, threshold in (
                (fixed, depth_scales.LIMIT),
                (fixed, borrowed[0]),
                (layers, borrowed[1]),
            )
        ]
        cells = (
            run.map["activation"],
            f"{100 * outcomes.mean():.0f} %",
            f"{100 * agree:.1f} %",
            f"{depth_scales.auc(fixed, outcomes):.3f}",
            f"{own:.1f}",
            f"{sorted_[0]:.3f}",
            f"{sorted_[1]:.3f}",
            f"{depth_scales.auc(layers, outcomes):.3f}",
            f"{sorted_[2]:.3f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    maps = [run.map for run in runs]
    cells = {f"{m['test_accuracy'].shape[0]} x {m['test_accuracy'].shape[1]}" for m in maps}
    config = runs[0].config
    times = ", ".join(map(_minutes, runs))
    return "\n".join(
        [
            *lines,
            "",
            f"A cell trains if the test accuracy reaches {study.TRAINED:.0%}, mean of "
            f"{config['seeds']} seeds, after {config['steps']} steps at learning rate "
            f"{config['learning_rate']:g}; {' and '.join(sorted(cells))} cells, depth x sigma_w. "
            f"Thresholds found on {maps[0]['activation']}: {borrowed[0]:.1f} and, of the layers "
            f"as they are, {borrowed[1]:.1f}. Minutes: {times}. Data: {runs[0].caption}. Device: "
            f"{runs[0].versions['device']}. Command: `{command(runs[0])}`.",
        ]
    )


def _scored(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every cell whether it trains, and its depth in the two kinds of depth scales: [D X]."""
    arrays = run.map
    outcomes = study.accuracy(arrays) >= study.TRAINED
    return outcomes.ravel(), study.depth_in_scales(arrays).ravel(), arrays["scales"].ravel()


def note(runs: Sequence[Run]) -> str:
    """What came of the maps as plain text, for the docstring of their config."""
    lines = [
        f"    {command(runs[0])}",
        f"    minutes on two CPU cores: {', '.join(_minutes(run) for run in runs)}",
    ]
    for run in runs:
        auc = run.summary["auc"]
        lines.append(
            f"    {run.map['activation']}: {run.summary['trained']:.0%} of the cells train, "
            f"{run.summary['agreement']:.0%} agree with depth < {depth_scales.LIMIT:g} depth "
            f"scales, AUC {auc:.3f}"
        )
    return "\n".join(lines)


def _minutes(run: Run) -> str:
    return f"{run.summary['seconds'] / 60:.1f}"
