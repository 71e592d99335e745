"""Adversarial digits: judged successes per second against foolbox, torchattacks and Keras.

    python -m research.main --config=configs/cnn.py:mnist --workdir=RUN
    python -m benchmarks.attacks --data_dir=DIR --run=RUN --peer_python=.venv-peers/bin/python

All attack the same weights, those of the run's first seed, on the first ten test images of each of
0, 2, 4, 6 and 8 that are classified correctly: every image towards each of the nine other classes
(the targeted cells), and away from its own (the own cells). What comes out is judged by
`benchmarks.judge`, which shares no code with any of them: rounded to bytes, saved as PNG, read and
classified.

With --tune the same command tries the settings of GRIDS on ten other images, all targets, and
keeps for every peer the fastest whose share of judged successes is at least --min_success, or else
the one with most. The benchmark reads those.

Every contestant is a process of its own; they take turns, all cells in one turn. The report's loop
would take hours: it takes some epochs of one cell a turn, and what it would need is extrapolated.
"""

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import cnn, contest, judge, measure
from research.runtime import commands

_FLAGS = measure.make_flags("attacks", peers=True)
_RUN = flags.DEFINE_string(
    "run", "", "Work directory of a run of configs/cnn.py:mnist.", flag_values=_FLAGS
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 5, "Turns of every contestant that count.", lower_bound=1, flag_values=_FLAGS
)
_IMAGES = flags.DEFINE_integer(
    "images", 10, "Attacked images of each digit.", lower_bound=1, flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 50, "Epochs of a turn of the report's loop.", lower_bound=2, flag_values=_FLAGS
)
_TUNE = flags.DEFINE_bool("tune", False, "Choose the peers' settings.", flag_values=_FLAGS)
_TUNING = flags.DEFINE_string(
    "tuning",
    str(measure.RESULTS / "attack_tuning.json"),
    "File of the peers' settings.",
    flag_values=_FLAGS,
)
_MIN_SUCCESS = flags.DEFINE_float(
    "min_success",
    0.96,
    "Share of judged successes that a setting must reach; the default is about that of the "
    "report's own attack.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=_FLAGS,
)

_RACERS = ("ours", "quick", "first")
DIGITS = (0, 2, 4, 6, 8)
PROBES = 1000  # test images on which classifiers are compared, and of which some are attacked
CLOSE = 1e-4  # by which logits may differ
TUNING_IMAGES = 2  # of each digit, after the first ten


class Contestant(NamedTuple):
    """label: in the table.  module: its process.  packages: what a peer's Python must have."""

    label: str
    module: str
    packages: tuple[str, ...] = ()


CONTESTANTS = {
    "ours": Contestant("ours", "ours_attack"),
    "quick": Contestant("ours, few steps", "ours_attack"),
    "first": Contestant("ours, first success", "ours_attack"),
    "faithful": Contestant("ours, faithful", "ours_attack"),
    "cw": Contestant("foolbox C&W", "peer_foolbox", ("torch", "foolbox")),
    "ddn": Contestant("foolbox DDN", "peer_foolbox", ("torch", "foolbox")),
    "ddn_100": Contestant("foolbox DDN, 100 steps", "peer_foolbox", ("torch", "foolbox")),
    "torchattacks": Contestant("torchattacks C&W", "peer_torchattacks", ("torch", "torchattacks")),
    "loop": Contestant("the report's loop", "peer_keras_attack", ("tensorflow",)),
}
LABELS = {name: contestant.label for name, contestant in CONTESTANTS.items()}
FIXED: dict[str, dict[str, Any]] = {
    "ours": {"method": "lagrangian"},
    # The noise of 100 steps of DDN, or less.
    "quick": {"method": "lagrangian", "steps": 16, "polish": 0},
    "first": {"method": "lagrangian", "steps": 1, "polish": 0},
    "faithful": {"method": "faithful", "dropout": True},
    "ddn_100": {"attack": "ddn", "steps": 100, "gamma": 0.05, "init_epsilon": 1.0},
}


def _grid(keys: str, *rows: Sequence[float], **shared: Any) -> list[dict[str, Any]]:
    return [{**shared, **dict(zip(keys.split(), row, strict=True))} for row in rows]


GRIDS = {
    "cw": _grid(
        "binary_search_steps steps initial_const confidence stepsize",
        (1, 100, 10, 1, 0.01),
        (3, 100, 10, 0.5, 0.01),
        (1, 100, 10, 0.5, 0.1),
        (3, 100, 1, 0.5, 0.1),
        (1, 25, 10, 0.5, 0.3),
        (1, 50, 10, 0, 0.3),
        (1, 50, 10, 0.5, 0.3),
        (1, 50, 3, 0.5, 0.3),
        (1, 100, 3, 0.5, 0.3),
        (3, 50, 1, 0.5, 0.3),
        (1, 15, 10, 0.5, 1.0),
        (1, 25, 10, 0.5, 1.0),
        (1, 50, 10, 0.5, 1.0),
        (1, 50, 3, 0.5, 1.0),
        (1, 100, 3, 0.5, 1.0),
        (3, 50, 1, 0.5, 1.0),
        attack="cw",
    ),
    "ddn": _grid(
        "steps gamma",
        (10, 0.3),
        (15, 0.2),
        (25, 0.1),
        (40, 0.1),
        (50, 0.1),
        (50, 0.05),
        (100, 0.05),
        (200, 0.05),
        attack="ddn",
        init_epsilon=1.0,
    ),
    "torchattacks": _grid(
        "steps c kappa lr inside",
        (50, 1, 0, 0.01, 0.0),
        (100, 10, 0.5, 0.1, 0.0),
        (100, 10, 0.5, 0.1, 1e-6),
        (100, 10, 0.5, 0.3, 1e-6),
        (50, 10, 0.5, 0.3, 1e-6),
        (50, 10, 0.5, 1.0, 1e-6),
        (100, 3, 0.5, 1.0, 1e-6),
    ),
}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table with its notes; pure."""
    found, cells = results["contestants"], results["cells"]
    names = [name for name in LABELS if name in found]
    whole = {name: one for name, one in found.items() if name != "loop"}
    rates = {name: _rates(one) for name, one in whole.items()}
    seconds = {name: one["seconds"][1:] for name, one in whole.items()}
    if "loop" in found:
        rates["loop"], seconds["loop"] = _extrapolate(found["loop"], found["faithful"])
    once = {n: [max(0.0, one["seconds"][0] - _median(seconds[n]))] for n, one in whole.items()}
    memory = {name: [one["peak_mib"]] for name, one in found.items()}

    def each(value: Callable[[Mapping[str, Any]], float | None]) -> dict[str, list[float]]:
        values = {n: [value(turn) for turn in one["turns"][1:]] for n, one in whole.items()}
        return {name: [x for x in some if x is not None] for name, some in values.items()}

    rows = [
        _row("judged successes per second", names, rates, 2, max, guess="loop", raced=True),
        _row("all cells, one call (s)", names, seconds, 1, None, guess="loop"),
        _row("once, in the first call (s)", names, once, 1, min),
        _row(f"targets reached, of {cells['targeted']}", names, each(_get("targeted")), 0, max),
        _row(f"own class left, of {cells['own']}", names, each(_get("own")), 0, max),
        _row("median L2 of targets reached", names, each(_get("median_l2")), 2, min),
        _row("float successes lost in the PNG (%)", names, each(_lost), 1, min),
        _row("gradients of an image per success", names, each(_gradients), 0, min),
        _row("peak memory (MiB)", names, memory, 0, min),
    ]
    return measure.markdown(["", *(LABELS[name] for name in names)], rows, *_notes(results))


def tuning_table(tuning: Mapping[str, Any]) -> str:
    """Every setting that was tried, the chosen ones bold; pure."""
    rows: list[list[str]] = []
    for name, tried in tuning["tried"].items():
        for one in tried:
            mark = "**" if one["setting"] == tuning["chosen"][name] else ""
            l2 = "-" if one["median_l2"] is None else f"{one['median_l2']:.2f}"
            share = _successes(one) / tuning["cells"]
            label = f"{mark}{LABELS[name].partition(',')[0]}: {_describe(one['setting'])}{mark}"
            rows.append([label, f"{share:.1%}", l2, f"{one['seconds']:.1f}"])
    return measure.markdown(
        ["", "judged successes", "median L2 of targets reached", "seconds"],
        rows,
        f"{tuning['cells']} cells of images outside the benchmark's, the faster of two calls;"
        f" bold the fastest with {tuning['min_success']:.0%} or more, or else the one with most. "
        f"{tuning['device']}; {_versions(tuning)}; {tuning['data']}; {tuning['date']}.",
    )


def choose(tried: Sequence[Mapping[str, Any]], cells: int, min_success: float) -> Mapping[str, Any]:
    """The fastest of those whose share of successes is large enough, else the one with most."""
    enough = [one for one in tried if _successes(one) >= min_success * cells]
    if enough:
        return min(enough, key=lambda one: one["seconds"])
    return max(tried, key=lambda one: (_successes(one), -one["seconds"]))


def _get(key: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda turn: turn[key]


def _median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def _successes(turn: Mapping[str, Any]) -> int:
    return turn["targeted"] + turn["own"]


def _lost(turn: Mapping[str, Any]) -> float | None:
    return 100 * (1 - turn["survivors"] / turn["floats"]) if turn["floats"] else None


def _gradients(turn: Mapping[str, Any]) -> float | None:
    return turn["gradients"] / _successes(turn) if _successes(turn) else None


def _rates(one: Mapping[str, Any]) -> list[float]:
    """Judged successes per second of every turn but the first."""
    turns = zip(one["turns"][1:], one["seconds"][1:], strict=True)
    return [_successes(turn) / seconds for turn, seconds in turns]


def _extrapolate(
    loop: Mapping[str, Any], faithful: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    """Successes per second and seconds of the report's loop, if it took in every turn the steps of
    our faithful mode with the same outcome: for every cell what comes before its second epoch, and
    then an epoch for every step."""
    rates: list[float] = []
    taken: list[float] = []
    for theirs, ours in zip(loop["turns"][1:], faithful["turns"][1:], strict=True):
        later = ours["gradients"] - ours["cells"]
        taken.append(ours["cells"] * theirs["begin"] + later * theirs["epoch"])
        rates.append(_successes(ours) / taken[-1])
    return rates, taken


def _row(
    label: str,
    names: Sequence[str],
    samples: Mapping[str, Sequence[float]],
    digits: int,
    best: Callable[[Iterable[float]], float] | None,
    *,
    guess: str = "",
    raced: bool = False,
) -> list[str]:
    """A row of medians, bold where none is better as printed, unless there is no better.

    guess: whose samples are extrapolated, if anybody's.  raced: with the ratios ours / theirs.
    """
    texts = {n: f"{_median(some):,.{digits}f}" for n, some in samples.items() if some}
    numbers = {n: float(text.replace(",", "")) for n, text in texts.items() if n != guess}
    cells = [label]
    for name in names:
        cell = texts.get(name, "-")
        if name == guess:
            cell = f"≈ {cell}"
        elif best and name in numbers and numbers[name] == best(numbers.values()):
            cell = f"**{cell}**"
        if raced and name not in _RACERS and all(samples[name]):
            ours = [our for our in _RACERS if our in samples]
            ratios = [measure.ratio(samples[our], samples[name]) for our in ours]
            cell += f" ({'; '.join(f'{r:,.{2 if r < 100 else 0}f}' for r in ratios)})"
        cells.append(cell)
    return cells


def _notes(results: Mapping[str, Any]) -> list[str]:
    found, tuning = results["contestants"], results["tuning"]
    whole = [name for name in LABELS if name in found and name != "loop"]
    black = {n: max(turn["black"] for turn in found[n]["turns"][1:]) for n in whole}
    settings = "; ".join(f"{LABELS[n]}: {_describe(found[n]['setting'])}" for n in whole)
    short = [LABELS[name] for name in tuning["short"] if name in found]
    gap = max(one["difference"] for one in found.values())
    notes = [
        f"Medians of {len(found['ours']['seconds']) - 1} turn(s), taken one after the other; in "
        "brackets the first three columns / theirs, the medians of the ratios of every turn; bold: "
        "none is better. "
        "Judged on the PNG by a forward pass in NumPy. Gradients are rows of backward passes, of "
        "ours those that a cell has used, without rows that only fill up a batch. "
        f"Logits differ from the judge's by at most {gap:.1e} on {PROBES:,} images. "
        f"Net: {results['parameters']:,} parameters, seed {results['run']['seed']}, epoch "
        f"{results['run']['epoch']}, {results['accuracy']:.1%} of those images right.",
        f"Settings: {settings}.",
        f"Those of the peers, but 100 steps of DDN, were chosen on {tuning['cells']} other cells: "
        f"the fastest in the grid with at least {tuning['min_success']:.0%} judged successes"
        + (f", which none of {' and '.join(short)} had: the one with most." if short else "."),
    ]
    if any(black.values()):
        counts = ", ".join(f"{LABELS[n]}: {count}" for n, count in black.items() if count)
        notes.append(f"All-black images among the successes: {counts}.")
    if "loop" in found:
        notes.append(_describe_loop(found["loop"]))
    return [*notes, measure.caption(results, LABELS)]


def _describe_loop(loop: Mapping[str, Any]) -> str:
    begin, epoch = (_median([turn[k] for turn in loop["turns"][1:]]) for k in ("begin", "epoch"))
    return (
        f"≈: extrapolated. The report's loop took one cell a turn for {loop['setting']['epochs']} "
        f"epochs: {begin:.2f} s until the first was done and {1000 * epoch:.1f} ms for each other; "
        "steps and successes are taken to be those of our faithful mode."
    )


def _describe(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting.items() if key != "attack")


def _versions(results: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in results["versions"].items())


def find_missing(python: str) -> list[str]:
    """The peers that `python` cannot run.  Exits with one line if that is all of them."""
    packages = {name: one.packages for name, one in CONTESTANTS.items()}
    missing, lacking = measure.find_packages(python, packages)
    if len(missing) == sum(bool(one.packages) for one in CONTESTANTS.values()):
        commands.fail(
            f"{python} lacks {', '.join(lacking)}; install "
            "benchmarks/requirements.txt into an environment of its own and name its Python with "
            "--peer_python"
        )
    return missing


def choose_images(right: np.ndarray, labels: np.ndarray, first: int, count: int) -> np.ndarray:
    """Indices of images of every digit of DIGITS, from the `first` on that is classified right.

    Exits with one line if there are too few.
    """
    chosen: list[np.ndarray] = []
    for digit in DIGITS:
        found = np.flatnonzero(right & (labels == digit))[first : first + count]
        if len(found) < count:
            commands.fail(f"--images: too few of digit {digit} among {len(labels)} are right")
        chosen.append(found)
    return np.concatenate(chosen)


class Prepared(NamedTuple):
    """What the parent knows: facts of the run, the weights, and the sample in `directory`."""

    facts: dict[str, Any]
    weights: dict[str, np.ndarray]
    sample: contest.Sample
    accuracy: float
    directory: Path


def prepare(directory: Path, first: int, count: int) -> Prepared:
    """Let our side export the weights, choose the images, and write them into `directory`."""
    options = {"run": _RUN.value, "data_dir": _FLAGS.data_dir, "directory": directory}
    argv = [sys.executable, "-m", "benchmarks.ours_attack", "--export"]
    exported = measure.run([*argv, *(f"--{key}={value}" for key, value in options.items())])
    if exported.returncode:
        message = measure.last_line(exported.errors).removeprefix("error: ")
        sys.exit(f"error: {message}")
    facts = json.loads(exported.output)
    with np.load(directory / "weights.npz") as file:
        weights = dict(file)
    with np.load(directory / "digits.npz") as file:
        probes, labels = file["images"][:PROBES], file["labels"][:PROBES].astype(np.int64)
    reference = judge.logits(weights, probes / 255)
    right = reference.argmax(axis=1) == labels
    chosen = choose_images(right, labels, first, count)
    sample = contest.Sample(probes[chosen], labels[chosen], probes, reference)
    np.savez(directory / "sample.npz", **sample._asdict())
    return Prepared(facts, weights, sample, float(right.mean()), directory)


def command(
    name: str, settings: Sequence[Mapping[str, Any]], directory: Path, peer_python: str
) -> list[str]:
    """The command line of a contestant."""
    contestant = CONTESTANTS[name]
    net = cnn.net_of(cnn.WORKS["gradient"])
    return [
        peer_python if contestant.packages else sys.executable,
        "-m",
        f"benchmarks.{contestant.module}",
        f"--name={name}",
        f"--net={json.dumps(net)}",
        f"--settings={json.dumps(settings)}",
        f"--directory={directory}",
    ]


def run_contestants(
    settings: Mapping[str, Sequence[Mapping[str, Any]]], turns: int, prepared: Prepared
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Let contestants take turns and judge what they made; what was found, and announcements.

    Exits with one line if the nets are not the same.
    """
    with contextlib.ExitStack() as stack:
        contestants = {
            name: stack.enter_context(
                measure.Paced(
                    LABELS[name], command(name, each, prepared.directory, _FLAGS.peer_python)
                )
            )
            for name, each in settings.items()
        }
        facts = {name: contestant.facts for name, contestant in contestants.items()}
        check_nets(facts)
        seconds = measure.pace(contestants, turns)
    found = {
        name: {
            "difference": facts[name]["difference"],
            "peak_mib": contestant.peak_mib,
            "seconds": seconds[name],
            "turns": [judge_turn(name, turn, prepared) for turn in range(turns)],
        }
        for name, contestant in contestants.items()
    }
    return found, facts


def check_nets(facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Exit with one line if contestants' nets differ in size, or their logits from the judge's."""
    sizes = {LABELS[name]: fact["parameters"] for name, fact in facts.items()}
    if len(set(sizes.values())) > 1:
        sys.exit(f"error: the nets differ in their parameters: {sizes}")
    for name, fact in facts.items():
        if not fact["difference"] <= CLOSE:
            sys.exit(f"error: {LABELS[name]}: logits differ by {fact['difference']:.1e}")


def judge_turn(name: str, turn: int, prepared: Prepared) -> dict[str, Any]:
    """What a contestant's file of a turn amounts to."""
    with np.load(contest.found_path(prepared.directory, name, turn)) as file:
        found = dict(file)
    if "images" not in found:
        return {"begin": float(found["begin"]), "epoch": float(np.median(found["epochs"]))}
    sample = prepared.sample
    verdict = judge.judge(prepared.weights, sample.images, sample.labels, found["images"])
    return {
        **judge.summarize(verdict, sample.labels),
        "cells": verdict.success.size,
        "claimed": int(found["claimed"].sum()) if "claimed" in found else None,
        "gradients": int(found["gradients"]),
    }


def tune(directory: Path, missing: Sequence[str]) -> dict[str, Any]:
    """Try every setting of every peer, all of them in turn and then all once more."""
    prepared = prepare(directory, 10, TUNING_IMAGES)
    cells = prepared.sample.labels.size * 10
    tuning: dict[str, Any] = {**measure.describe(), "data": prepared.facts["data"]}
    tuning |= {"min_success": _MIN_SUCCESS.value, "cells": cells, "versions": {}}
    tuning |= {"tried": {}, "chosen": {}, "short": []}
    for name, grid in GRIDS.items():
        if name in missing:
            continue
        found, facts = run_contestants({name: grid}, 2 * len(grid), prepared)
        seconds, turns = found[name]["seconds"], found[name]["turns"]
        passes = zip(grid, seconds[: len(grid)], seconds[len(grid) :], strict=True)
        tried = [
            {"setting": setting, "seconds": min(both), **turn}
            for (setting, *both), turn in zip(passes, turns[len(grid) :], strict=True)
        ]
        best = choose(tried, cells, _MIN_SUCCESS.value)
        tuning["tried"][name], tuning["chosen"][name] = tried, best["setting"]
        tuning["versions"] |= facts[name]["versions"]
        if _successes(best) < _MIN_SUCCESS.value * cells:
            tuning["short"].append(name)
        print(f"{LABELS[name]}: done", file=sys.stderr, flush=True)
    return tuning


def compete(
    directory: Path, missing: Sequence[str], tuning: Mapping[str, Any], rounds: int
) -> dict[str, Any]:
    """Measure every contestant that is not missing, with the settings chosen before."""
    chosen = {**FIXED, **tuning["chosen"], "loop": {"epochs": _EPOCHS.value}}
    lacking = [name for name in LABELS if name not in missing and name not in chosen]
    if lacking:
        commands.fail(f"{_TUNING.value} has no settings of {', '.join(lacking)}; --tune again")
    prepared = prepare(directory, 0, _IMAGES.value)
    twice = ["ddn"] if chosen.get("ddn") == chosen["ddn_100"] else []
    settings = {n: [chosen[n]] for n in LABELS if n not in [*missing, *twice]}
    found, facts = run_contestants(settings, rounds + 1, prepared)
    facts["ours"]["data"] = prepared.facts["data"]
    images = prepared.sample.labels.size
    return {
        **measure.describe(),
        "missing": list(missing),
        **measure.summarize(facts),
        "run": prepared.facts,
        "accuracy": prepared.accuracy,
        "parameters": facts["ours"]["parameters"],
        "cells": {"targeted": 9 * images, "own": images},
        "tuning": {key: tuning[key] for key in ("min_success", "cells", "short", "date")},
        "contestants": {name: {"setting": chosen[name], **one} for name, one in found.items()},
    }


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    commands.check_together(_FLAGS, (), {"min_success": "tune"})
    if not _RUN.value:
        commands.fail("--run: name the work directory of a run of configs/cnn.py:mnist")
    contest.check_digits(_FLAGS.data_dir)
    missing = find_missing(_FLAGS.peer_python)
    path = Path(_TUNING.value)
    with tempfile.TemporaryDirectory() as place:
        if _TUNE.value:
            measure.finish(tune(Path(place), missing), path, tuning_table)
        else:
            tuning = read_tuning(path)
            results = compete(Path(place), missing, tuning, _ROUNDS.value)
            measure.finish(results, output, table)
    return 0


def read_tuning(path: Path) -> dict[str, Any]:
    """The settings chosen before.  Exits with one line if there are none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        commands.fail(f"--tuning: {path} cannot be read ({error}); choose settings with --tune")


if __name__ == "__main__":
    measure.start(main)
