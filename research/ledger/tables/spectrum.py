"""Table of the spectrum study: sharpness in training against 2 / learning rate."""

from collections.abc import Sequence

from research.ledger.published import command
from research.storage.run_directory import Run
from research.training import sharpness

PLATEAU = 300  # steps at the edge of stability that one net at least shows


def table(runs: Sequence[Run]) -> str:
    """Markdown table of the trainings of each run, and the sentence of each."""
    low, high = sharpness.BAND
    lines = [
        f"| net | training | 2 / learning rate | steps at {low:g} to {high:g} of it | in a row | "
        "highest | after the last step |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    notes = list[str]()
    for run in runs:
        net = run.summary["net"]
        notes.append(f"- {net}: {run.summary['explained']}. `{command(run)}`.")
        for training in run.summary["trainings"].values():
            seen = [f"{max(training[key]):,}" for key in ("at_edge", "plateau")]
            sizes = [max(training[key]) for key in ("highest_over_edge", "last_over_edge")]
            lines.append(
                f"| {net} | {training['words']} | {run.summary['edge']:g} | {seen[0]} of "
                f"{training['steps']:,} | {seen[1]} | {sizes[0]:.2f} | {sizes[1]:.2f} |"
            )
    longest = max(max(run.summary["trainings"]["full_batch"]["plateau"]) for run in runs)
    met = "met" if longest >= PLATEAU else "missed"
    bar = f"Bar: {PLATEAU} steps in a row at full batch, of one net: {longest:,} ({met})."
    caption = f"Data: {runs[0].caption}, the first {runs[0].config['images']:,} training images."
    return "\n".join(
        [*lines, "", f"Highest and last in units of 2 / learning rate. {bar} {caption}", "", *notes]
    )
