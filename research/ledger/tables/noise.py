"""Tables of the adversarial noise: what an attack reaches, what it takes, what withstands it."""

from collections.abc import Mapping, Sequence
from typing import Any

from research.ledger.published import command, net_commands
from research.storage.run_directory import Run

_LEVELS = 255


def table(runs: Sequence[Run]) -> str:
    """Markdown table of attacks, a row for each net of each run."""
    lines = [
        "| net | attack | targeted | untargeted | hold on their files | L2, median (90 %) | "
        "Linf, levels | PSNR, dB | SSIM | gradients a cell | dead at first, at last (%) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for run in runs:
        summary = run.summary
        lines += [_row(name, summary["method"], net) for name, net in summary["nets"].items()]
        notes.append(f"{summary['sample']}; {run.caption}; `{command(run)}`.")
        notes += [f"the net {net}: `{words}`." for net, words in net_commands(run).items()]
    versions = runs[0].versions
    notes.append(f"Device: {versions['device']}, jax {versions['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def robust_table(runs: Sequence[Run]) -> str:
    """Markdown table of the accuracy within budgets, in percent; a run without one is left out."""
    lines: list[str] = []
    for run in runs:
        robust = run.summary.get("robust_accuracy")
        if robust is None:
            continue
        levels = robust["levels"]
        lines += [
            f"| {run.name}: {robust['norm']} budget, levels of 255 | "
            f"{' | '.join(f'{level:g}' for level in levels)} |",
            "|---" + "|---:" * len(levels) + "|",
        ]
        for name, hits in robust["hits"].items():
            shares = " | ".join(f"{100 * hit / robust['count']:.1f}" for hit in hits)
            lines.append(f"| {name} | {shares} |")
        lines += [
            "",
            f"Percent of the first {robust['count']:,} test images; PGD on 8-bit images, "
            f"{robust['steps']} steps, {robust['restarts']} starts.",
            "",
        ]
    return "\n".join(lines[:-1])


def failures_table(runs: Sequence[Run]) -> str:
    """Markdown table of the nets with failed cases: why, and what other starts reach.

    The last column is of another attack with several random starts, PGD at its largest budget.
    """
    lines = [
        "| net | attack | failed | why | another start reaches (%) "
        "| images that withstand PGD (%) |",
        "|---|---|---:|---|---:|---:|",
    ]
    for run in runs:
        robust = run.summary.get("robust_accuracy") or {"hits": {}}
        for name, net in run.summary["nets"].items():
            health = net["diagnostics"]
            if not health["failed_cells"]:
                continue
            why = "; ".join(f"{count}: {reason}" for reason, count in health["why_failed"].items())
            gain, hits = health["restart_gain"], robust["hits"].get(name)
            cells = [
                f"{health['failed_cells']:,} of {net['cells']:,}",
                why,
                "-" if gain is None else f"{100 * gain:.0f}",
                "-" if hits is None else f"{100 * hits[-1] / robust['count']:.1f}",
            ]
            lines.append(f"| {name} | {run.summary['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(name: str, method: str, net: Mapping[str, Any]) -> str:
    targeted, own, files, health = (
        net[k] for k in ("targeted", "untargeted", "verified", "diagnostics")
    )

    def median(key: str, form: str, factor: float = 1.0) -> str:
        norm = targeted[key]
        return "-" if norm is None else format(factor * norm["median"], form)

    spread = "-" if targeted["l2"] is None else f"{targeted['l2']['p90']:.2f}"
    dead = " , ".join(f"{100 * health[f'dead_share_{when}']:.0f}" for when in ("first", "last"))
    cells = [
        f"{targeted['won']:,} of {targeted['tried']:,}",
        f"{own['won']:,} of {own['tried']:,}",
        f"{files['survived']:,} of {files['files']:,}",
        f"{median('l2', '.3f')} ({spread})",
        median("linf", ".0f", _LEVELS),
        median("psnr", ".1f"),
        median("ssim", ".3f"),
        f"{net['gradients'] / net['cells']:,.0f}",
        dead.replace(" ,", ","),
    ]
    return f"| {name} | {method} | {' | '.join(cells)} |"
