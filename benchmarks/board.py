"""The board: how small the noise of each attack is at a number of gradients, on bytes.

    python -m research.main --config=configs/cnn.py:mnist --workdir=RUN
    python -m benchmarks.board --data_dir=DIR --run=RUN --peer_python=.venv-peers/bin/python

--run may be given several times, once for each net, and --contestants names some of those below.
The nets are such as `benchmarks.judge` can compute, and it judges; the images are the first
correctly classified ones from --first on, where no setting was chosen (ours were chosen on images
1,000 to 1,130): every image towards each of the nine other classes, and away from its own.
Contestants take their turns one after the other, one setting a turn. A row is written to --output
as soon as it is there; the same command goes on where it was stopped, and other runs, images,
contestants or steps are added to the rows of before, a table for each net and sample.

Local optimality after AttackBench (Cina et al. 2024): 1 - (A - A*) / (D - A*), where A is the area
under the share of cases that withstand noise of a norm, up to D, the largest norm of the lower
envelope of the attacks that took at most as many gradients, and A* is the area under this envelope.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import attacks, contest, judge, measure
from research.runtime import commands

_FLAGS = measure.make_flags("board", peers=True)
_CIFAR = flags.DEFINE_string("cifar_dir", "", "Directory of CIFAR-10.", flag_values=_FLAGS)
_RUNS = flags.DEFINE_multi_string(
    "run", [], "Work directory of a run of configs/cnn.py, for each net.", flag_values=_FLAGS
)
_FIRST = flags.DEFINE_integer("first", 5000, "First test image.", flag_values=_FLAGS)
_IMAGES = flags.DEFINE_integer("images", 50, "Attacked images.", lower_bound=1, flag_values=_FLAGS)
_STEPS = flags.DEFINE_integer(
    "steps", 200, "Most gradients of a setting; those with more are left out.", flag_values=_FLAGS
)
_THREADS = flags.DEFINE_integer(
    "threads", 0, "CPU threads of a contestant; 0: all.", lower_bound=0, flag_values=_FLAGS
)
_LOGITS = flags.DEFINE_float(
    "logits",
    1.0,
    "Factor of the last layer, which changes no class and leaves the softmax no gradient.",
    lower_bound=1.0,
    flag_values=_FLAGS,
)
_CHOSEN = flags.DEFINE_list(
    "contestants", [], "Those that take part; all without any.", flag_values=_FLAGS
)

_BUDGETS = (30, 100, 200, 500, 1000)
_LONG = _BUDGETS[1:]  # of attacks that are made for many


class Contestant(NamedTuple):
    """module: its process.  package: what a peer's Python must have.  settings: of its turns, by
    the number of their gradients."""

    module: str
    package: str
    settings: dict[int, dict[str, Any]]


def _ours(method: str) -> Contestant:
    """A success takes about five gradients, and the polish up to eight."""
    shares = {20: (16, 0), 30: (26, 0), 100: (90, 8), 200: (187, 8), 500: (487, 8), 1000: (987, 8)}
    settings = {n: {"method": method, "steps": s, "polish": p} for n, (s, p) in shares.items()}
    return Contestant("ours_attack", "", settings)


def _adv_lib(attack: str, steps: str, budgets: Sequence[int] = _LONG, **others: Any) -> Contestant:
    settings = {n: {"attack": attack, steps: n, **others} for n in budgets}
    return Contestant("peer_advlib", "adv_lib", settings)


def _foolbox(setting: Callable[[int], dict[str, Any]], budgets: Sequence[int]) -> Contestant:
    settings = {n: {"tracked": True, **setting(n)} for n in budgets}
    return Contestant("peer_foolbox", "foolbox", settings)


def _searches(gradients: int) -> int:
    """Values of its constant that C&W tries: with few gradients each of them needs many."""
    return 2 if gradients < 500 else 5


CONTESTANTS = {
    "lagrangian": _ours("lagrangian"),
    "minimal": _ours("minimal"),
    "ddn": _adv_lib("ddn", "steps", _BUDGETS),
    "alma": _adv_lib("alma", "num_steps"),
    "fmn": _adv_lib("fmn", "steps", _BUDGETS, norm=2),
    "pdgd": _adv_lib("pdgd", "num_steps"),
    "pdpgd": _adv_lib("pdpgd", "num_steps", norm=2),
    "cw": Contestant(
        "peer_advlib",
        "adv_lib",
        {
            n: {
                "attack": "carlini_wagner_l2",
                "binary_search_steps": _searches(n),
                "max_iterations": n // _searches(n),
                "initial_const": 10.0,
                "learning_rate": 0.3,
            }
            for n in _LONG
        },
    ),
    "apgd-t": Contestant(
        "peer_advlib",
        "adv_lib",  # a run of APGD takes a gradient more than it has steps
        {n: {"attack": "apgd", "budgets": 5, "n_iter": n // 5 - 1} for n in _LONG},
    ),
    "foolbox-ddn": _foolbox(lambda n: {"attack": "ddn", "steps": n}, _BUDGETS),
    "foolbox-cw": _foolbox(
        lambda n: {
            "attack": "cw",
            "binary_search_steps": _searches(n),
            "steps": n // _searches(n),
            "initial_const": 10.0,
            "stepsize": 0.3,
        },
        _LONG,
    ),
    "torchattacks-cw": Contestant(
        "peer_torchattacks",
        "torchattacks",
        {n: {"tracked": True, "steps": n, "c": 10, "lr": 0.3, "inside": 1e-6} for n in _LONG},
    ),
}
_OURS = ("lagrangian", "minimal")


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table for each net, with their notes; pure."""
    parts: list[str] = []
    for rows in _samples(results["rows"]).values():
        lines: list[list[str]] = []
        for row in rows:
            line = [f"{row['name']} {row['budget']}", f"{row['gradients']:.1f}"]
            line += [f"{row['seconds']:.0f}"]
            for kind in _KINDS:
                rivals = [one[kind] for one in rows if _affords(row, one)]
                line += [*_cells(row[kind]), f"{local_optimality(row[kind], rivals):.3f}"]
            lines.append(line)
        head = ["attack, budget", "gradients", "seconds"]
        for words in ("targets reached", "own class left"):
            head += [words, "L2: median / mean / 90 %", "as floats", "lost (%)", "optimality"]
        about = rows[0]
        note = (
            f"Net {about['net']}: convolutions of {about['filters']} filters, dense layers of "
            f"{about['dense']}, after epoch {about['epoch']}; {about['images']} images from number "
            f"{about['first']} on; {about['data']}."
        )
        parts.append(measure.markdown(head, lines, note, winners(rows)))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    about = (
        "Correctly classified test images, each toward nine classes and away from its own; judged "
        "on the PNG by a forward pass in NumPy. Quantiles are over all cells, a cell that is not "
        "reached counting as infinitely far away; the mean is over those reached. Of a peer the "
        "best image on bytes of all that it gave the net counts; beside it the median of the best "
        "as floats, and the share of these that rounding takes away. Optimality: the local one of "
        "AttackBench, among the rows of at most as many gradients. Gradients are those of a cell; "
        "seconds are of one call, with compiling, on a machine that had other work to do."
    )
    if results["missing"]:
        about += f" Not installed: {', '.join(results['missing'])}."
    parts.append(f"{about} {results['device']}; {versions}; {results['date']}.")
    return "\n\n".join(parts)


_KINDS = ("targeted", "own")


def _samples(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, int, int], list[dict[str, Any]]]:
    """The rows of each net and sample of images, in the order of the contestants."""
    samples: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    names = list(CONTESTANTS)
    for row in sorted(rows, key=lambda row: (names.index(row["name"]), row["budget"])):
        samples.setdefault((row["net"], row["first"], row["images"]), []).append(row)
    return dict(sorted(samples.items(), key=lambda item: -item[0][2]))


def _affords(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `other` took at most as many gradients; settings cannot hit a number exactly."""
    return other["gradients"] <= 1.1 * one["gradients"]


def _cells(one: Mapping[str, Any]) -> list[str]:
    """Share reached, norms on bytes, median as floats and percentage lost of a kind of cells."""
    norms, floats = _array(one["norms"]), _array(one["floats"])
    reached = np.isfinite(norms)
    words = "-"
    if reached.any():
        mean = f"{norms[reached].mean():.3f}"
        words = f"{_quantile(norms, 0.5):.3f} / {mean} / {_quantile(norms, 0.9):.3f}"
    kept = np.isfinite(floats)
    lost = f"{100 * one['lost'] / kept.sum():.1f}" if kept.any() else "-"
    return [f"{reached.mean():.1%}", words, f"{_quantile(floats, 0.5):.3f}", lost]


def _array(norms: Sequence[float | None]) -> np.ndarray:
    """Norms with infinity for what is not reached, which JSON has not."""
    return np.array([np.inf if norm is None else norm for norm in norms], np.float64)


def _quantile(norms: np.ndarray, share: float) -> float:
    """An order statistic, so that one that is not reached does not spoil it by interpolation."""
    return float(np.sort(norms)[int(share * (len(norms) - 1))])


def local_optimality(one: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> float:
    """Of an attack against the lower envelope of its rivals, itself among them.

    1 where no rival has smaller noise anywhere.
    """
    envelope = np.stack([_array(rival["norms"]) for rival in rivals]).min(axis=0)
    most = envelope[np.isfinite(envelope)].max(initial=0.0)
    area, least = (np.minimum(x, most).mean() for x in (_array(one["norms"]), envelope))
    return 1 - float((area - least) / (most - least)) if most > least else 1.0


def winners(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which peers have a smaller median or 90 % quantile than ours of at most their gradients."""
    lines: list[str] = []
    for kind, words in zip(_KINDS, ("targeted", "untargeted"), strict=True):
        for peer in rows:
            if peer["name"] in _OURS:
                continue
            rivals = [row for row in rows if row["name"] in _OURS and _affords(peer, row)]
            for share, name in ((0.5, "median"), (0.9, "90 % quantile")):
                theirs = _quantile(_array(peer[kind]["norms"]), share)
                best = [_quantile(_array(row[kind]["norms"]), share) for row in rivals]
                if best and theirs < min(best):
                    lines.append(
                        f"{peer['name']} {peer['budget']}, {words}, {name}: "
                        f"{theirs:.3f} against {min(best):.3f}"
                    )
    if not lines:
        return "No peer has a smaller median or 90 % quantile than ours for as many gradients."
    return f"A peer has the smaller noise: {'; '.join(lines)}."


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Median L2 of targeted cells against gradients, a curve an attack and a panel a sample."""
    from matplotlib.figure import Figure  # not for those who only want a table
    from matplotlib.ticker import ScalarFormatter

    samples = _samples(results["rows"])
    figure = Figure(figsize=(5 * len(samples), 3.8), layout="constrained")
    axes = figure.subplots(1, len(samples), squeeze=False)[0]
    for axis, ((net, _, images), rows) in zip(axes, samples.items(), strict=True):
        for name in dict.fromkeys(row["name"] for row in rows):
            points = sorted(
                (row["gradients"], _quantile(_array(row["targeted"]["norms"]), 0.5))
                for row in rows
                if row["name"] == name
            )
            width = 2.5 if name in _OURS else 1.2
            colour = f"C{list(CONTESTANTS).index(name)}"  # the same in every panel
            line = {"marker": "o", "color": colour, "label": name, "linewidth": width}
            _ = axis.plot(*zip(*points, strict=True), **line)
        axis.set(
            xscale="log",
            yscale="log",
            title=f"{net}, {images} images",
            xlabel="gradients of a case",
            ylabel="median L2 of the noise, on bytes",
        )
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(ScalarFormatter())
            side.set_minor_formatter(ScalarFormatter())
        _ = axis.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def prepare(directory: Path, run: str) -> dict[str, Any]:
    """Write weights and sample into `directory`; returns what our side says of the run."""
    options = {"run": run, "data_dir": _FLAGS.data_dir, "directory": directory}
    options["cifar_dir"] = _CIFAR.value
    argv = [sys.executable, "-m", "benchmarks.ours_attack", "--export"]
    exported = measure.run([*argv, *(f"--{key}={value}" for key, value in options.items())])
    if exported.returncode:
        commands.fail(measure.last_line(exported.errors).removeprefix("error: "))
    facts: dict[str, Any] = json.loads(exported.output)
    with np.load(directory / "weights.npz") as file:
        weights = dict(file)
    if _LOGITS.value != 1:
        facts["name"] += f", logits times {_LOGITS.value:g}"
        for leaf in ("output/kernel", "output/bias"):
            weights[leaf] = weights[leaf] * np.float32(_LOGITS.value)
        np.savez(directory / "weights.npz", **weights)
    with np.load(directory / "digits.npz") as digits:
        images, labels = digits["images"][_FIRST.value :], digits["labels"][_FIRST.value :]
    probes = images[: 2 * _IMAGES.value]
    reference = judge.logits(weights, probes / 255)
    labels = labels[: len(probes)].astype(np.int64)
    right = np.flatnonzero(reference.argmax(axis=1) == labels)[: _IMAGES.value]
    if len(right) < _IMAGES.value:
        commands.fail(f"--images: only {len(right)} from {_FIRST.value} on are right in {run}")
    sample = contest.Sample(probes[right], labels[right], probes, reference)
    np.savez(directory / "sample.npz", **sample._asdict())
    return facts


def row_of(directory: Path, name: str, turn: int) -> dict[str, Any]:
    """Norms of what a contestant made at a turn, None where it failed, and its gradients a cell."""
    sample, weights = contest.read_attacked(directory)
    with np.load(contest.found_path(directory, name, turn)) as file:
        outcome = dict(file)
    verdict = judge.judge(weights, sample.images, sample.labels, outcome["images"])
    won, norms, lost = verdict.success, verdict.l2, np.zeros_like(verdict.success)
    floats = np.where(won, norms, np.inf)
    if "floats" in outcome:
        exact = judge.judge(weights, sample.images, sample.labels, outcome["floats"])
        moved = outcome["floats"].astype(np.float64) - sample.images[:, None] / 255
        length = np.sqrt(np.square(moved).sum(axis=(2, 3, 4)))
        floats, lost = np.where(exact.floats, length, np.inf), exact.floats & ~exact.success
    norms = np.where(won, norms, np.inf)
    own = judge.own_cells(sample.labels, 10)
    row: dict[str, Any] = {"gradients": int(outcome["gradients"]) / own.size}
    for kind, cells in zip(_KINDS, (~own, own), strict=True):
        row[kind] = {
            "norms": [round(x, 5) if np.isfinite(x) else None for x in norms[cells].tolist()],
            "floats": [round(x, 5) if np.isfinite(x) else None for x in floats[cells].tolist()],
            "lost": int(lost[cells].sum()),
        }
    return row


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    if not _RUNS.value:
        commands.fail("--run: name the work directory of a run of configs/cnn.py")
    if unknown := [name for name in _CHOSEN.value if name not in CONTESTANTS]:
        commands.fail(f"--contestants: {unknown[0]!r} is not one of {', '.join(CONTESTANTS)}")
    results: dict[str, Any] = {"rows": [], "versions": {}}
    if output.exists():
        results = measure.read(output)
    results |= measure.describe()
    chosen = {name: CONTESTANTS[name] for name in _CHOSEN.value or CONTESTANTS}
    peers = {name: (one.package,) for name, one in chosen.items() if one.package}
    missing, _ = measure.find_packages(_FLAGS.peer_python, peers) if peers else ([], [])
    there = {row["name"] for row in results["rows"]}
    results["missing"] = [name for name in missing if name not in there]
    for run in _RUNS.value:
        with tempfile.TemporaryDirectory() as place:
            facts = prepare(Path(place), run)
            about = {
                "net": facts["name"],
                "weights": facts["weights"],
                "epoch": facts["epoch"],
                "filters": facts["net"]["filters"],
                "dense": facts["net"]["dense"],
                "images": _IMAGES.value,
                "first": _FIRST.value,
                "data": facts["data"],
            }
            # Rows of other weights or data under the name of this net do not belong beside it.
            results["rows"] = [
                row
                for row in results["rows"]
                if row["net"] != facts["name"]
                or all(row[key] == about[key] for key in ("weights", "data"))
            ]
            for name in chosen:
                if name not in missing:
                    _compete(name, Path(place), facts["net"], about, results, output)
    measure.finish(results, output, table)
    draw(results, output.with_suffix(".png"))
    return 0


def replace(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """`rows` with `row` in the place of the one of its contestant, budget, net and sample."""
    keys = ("net", "name", "budget", "first", "images")
    return [one for one in rows if any(one[key] != row[key] for key in keys)] + [row]


def _compete(
    name: str,
    place: Path,
    net: Mapping[str, Any],
    about: Mapping[str, Any],
    results: dict[str, Any],
    output: Path,
) -> None:
    """Add the rows of a contestant that `results` lacks, and write them at once."""
    module, package, every = CONTESTANTS[name]
    settings: dict[int, dict[str, Any]] = {}
    for budget, setting in every.items():
        key = {"name": name, "budget": budget, "setting": setting, **about}
        there = any(all(row[k] == value for k, value in key.items()) for row in results["rows"])
        if budget <= _STEPS.value and not there:
            settings[budget] = setting
    if not settings:
        return
    python = _FLAGS.peer_python if package else sys.executable
    command = [python, "-m", f"benchmarks.{module}", f"--name={name}", f"--net={json.dumps(net)}"]
    command += [f"--settings={json.dumps([*settings.values()])}", f"--directory={place}"]
    command += [f"--threads={_THREADS.value}"]
    with measure.Paced(name, command) as contestant:
        if not contestant.facts["difference"] <= attacks.CLOSE * _LOGITS.value:
            commands.fail(f"{name}: logits differ by {contestant.facts['difference']:.1e}")
        results["versions"] |= contestant.facts["versions"]
        for turn, (budget, setting) in enumerate(settings.items()):
            seconds = contestant.turn()
            row = {"name": name, "budget": budget, "setting": setting, **about}
            row |= {"seconds": seconds, **row_of(place, name, turn)}
            results["rows"] = replace(results["rows"], row)
            output.parent.mkdir(parents=True, exist_ok=True)
            _ = output.write_text(json.dumps(results) + "\n")
            print(f"{row['net']}, {name} {budget}: {_cells(row['targeted'])}", file=sys.stderr)


if __name__ == "__main__":
    measure.start(main)
