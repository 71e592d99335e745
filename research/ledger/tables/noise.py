"""Tables of the adversarial noise: what an attack reaches, what it takes, what withstands it."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import noise
from research.storage import run_directory
from research.structs import UserError

FIGURE = "figures/distributions.png"  # of a run, shown in README.md
SHOWN = "mnist"  # the run whose figure it is
_LEVELS = 255
# Keys that may differ from the stated configuration, for they do not change what is measured.
_FREE_KEYS = (
    "data", "run", "batch", "eval_batch_size", "cpu_devices", "cpu_threads", "matmul_precision",
)  # fmt: skip
_SHOWN_KEYS = (
    "method",
    "images",
    "minimal",
    "faithful",
    "baselines",
)  # those that differ are in the command


def table(result: Mapping[str, Any]) -> str:
    """Markdown table of attacks, a row for each net and method, from results/noise.json."""
    lines = [
        "| net | attack | targeted | untargeted | hold on their files | L2, median (90 %) | "
        "Linf, levels | PSNR, dB | SSIM | gradients a cell | dead at first, at last (%) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    for run in result.values():
        lines += [_row(name, run["method"], net) for name, net in run["nets"].items()]
        notes.append(f"{run['words']}; {run['data']['caption']}; `{run['command']}`.")
    first = next(iter(result.values()))
    notes.append(f"Device: {first['device']}, jax {first['packages']['jax']}.")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def robust_table(result: Mapping[str, Any]) -> str:
    """Markdown table of the accuracy within budgets, in percent; a run without one is left out."""
    lines: list[str] = []
    for run in result.values():
        robust = run.get("robust_accuracy")
        if robust is None or run["method"] != "minimal":
            continue
        levels = robust["levels"]
        lines += [
            f"| {run['name']}: {robust['norm']} budget, levels of 255 | "
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


def collect(workdir: Path) -> dict[str, Any]:
    """{name of the run: what results/noise.json keeps of it}, paths of the machine left out.

    Raises UserError if the run is not finished, or differs from the stated configuration in more
    than the method, its settings and the number of images.
    """
    summary = run_directory.finished_summary(workdir)
    if summary is None or "method" not in summary:
        raise UserError(f"{workdir} holds no finished attack (no such summary.json)")
    versions = json.loads((workdir / "versions.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    if config["name"] not in noise.VARIANTS:
        raise UserError(f"{workdir} holds {config['name']!r}, not one of {noise.VARIANTS}")
    stated = json.loads(noise.get_config(config["name"]).to_json())
    free = (*_FREE_KEYS, *_SHOWN_KEYS)
    changed = [key for key in stated if config[key] != stated[key] and key not in free]
    if changed:
        wrong = ", ".join(changed)
        raise UserError(f"{workdir} is not a run of the stated configuration ({wrong})")
    if not versions["data"]["full"]:
        raise UserError(f"{workdir} was not run on the full set: {versions['data']['caption']}")
    options = list(_options(config, stated))
    name = " ".join([config["name"], *options])
    kept = ("targeted", "untargeted", "verified", "diagnostics", "cells", "gradients", "epochs")
    return {
        name: {
            "name": config["name"],
            "command": " ".join(
                [f"python -m research.main --config=configs/noise.py:{config['name']}"]
                + [shlex.quote(f"--config.{option}") for option in options]
                + ["--config.data.dir=DIR"]
            ),
            "method": summary["method"],
            "words": summary["sample"],
            "nets": {
                net: {key: found[key] for key in kept}
                | {"diagnostics": _short(found["diagnostics"])}
                for net, found in summary["nets"].items()
            },
            **{key: summary[key] for key in ("robust_accuracy", "transfer") if key in summary},
            "figure_sha256": hashlib.sha256((workdir / FIGURE).read_bytes()).hexdigest(),
            "data": {k: v for k, v in versions["data"].items() if k != "source"},
            "device": versions["device"],
            "packages": versions["packages"],
            "git_commit": versions["git_commit"],
        }
    }


def _row(name: str, method: str, net: Mapping[str, Any]) -> str:
    targeted, own, files, health = (
        net[k] for k in ("targeted", "untargeted", "verified", "diagnostics")
    )

    def median(key: str, form: str, factor: float = 1.0) -> str:
        found = targeted[key]
        return "-" if found is None else format(factor * found["median"], form)

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


def _options(config: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    """ "key=value" of the settings that differ and are allowed to."""
    found: list[str] = []
    for key in _SHOWN_KEYS:
        asked, usual = config[key], stated[key]
        if isinstance(usual, dict):
            found += [f"{key}.{k}={asked[k]}" for k in usual if asked[k] != usual[k]]
        elif asked != usual:
            found.append(f"{key}={tuple(asked) if isinstance(asked, list) else asked}")
    return found


def _short(health: Mapping[str, Any]) -> dict[str, Any]:
    """Diagnostics without the list of single cells."""
    return {key: value for key, value in health.items() if key != "failures"}
