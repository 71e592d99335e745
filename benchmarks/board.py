"""The board: how small the noise of each attack is at a number of gradients, on bytes.

    python -m research.main --config=configs/cnn.py:mnist --workdir=RUN
    python -m benchmarks.board --data_dir=DIR --run=RUN --peer_python=.venv-peers/bin/python

--run may be given several times, once for each net, and --contestants names some of those below.
The nets are such as `benchmarks.judge` can compute, and it judges; the images are the first
correctly classified ones from --first on, where no setting was chosen (ours were chosen on images
1,000 to 1,130): every image towards each of the nine other classes, and away from its own.
Settings of up to 200 gradients have --images, longer ones --few, and the shortest of the first net
by the attacks of `_MAIN` have --many; each sample begins with the smaller ones, so that rows are
compared on the images that they have in common.
A contestant takes a turn for each setting, and --jobs of them run at once. A row is written to
--output as soon as it is there, and not measured again where net, images, setting and versions are
the same: the same command goes on where it was stopped, and another adds its rows.

Local optimality after AttackBench (Cina et al. 2024): 1 - (A - A*) / (D - A*), where A is the area
under the share of cases that withstand noise of a norm, up to D, the largest norm of the lower
envelope of the attacks that took at most as many gradients, and A* is the area under this envelope.
"""

import hashlib
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import attacks, contest, judge, measure, ours
from research.runtime import commands, progress

_FLAGS = measure.make_flags("board", peers=True)
_CIFAR = flags.DEFINE_string("cifar_dir", "", "Directory of CIFAR-10.", flag_values=_FLAGS)
_RUNS = flags.DEFINE_multi_string(
    "run", [], "Work directory of a run of configs/cnn.py, for each net.", flag_values=_FLAGS
)
_FIRST = flags.DEFINE_integer("first", 5000, "First test image.", flag_values=_FLAGS)
_IMAGES = flags.DEFINE_integer("images", 10, "Attacked images.", lower_bound=1, flag_values=_FLAGS)
_FEW = flags.DEFINE_integer(
    "few", 5, "Images for more than 200 gradients.", lower_bound=1, flag_values=_FLAGS
)
_MANY = flags.DEFINE_integer(
    "many",
    50,
    "Images of the first net for up to 100 gradients of its main contestants.",
    lower_bound=1,
    flag_values=_FLAGS,
)
_STEPS = flags.DEFINE_integer(
    "steps", 1000, "Most gradients of a setting; those with more are left out.", flag_values=_FLAGS
)
_JOBS = flags.DEFINE_integer(
    "jobs", 2, "Contestants that run at once.", lower_bound=1, flag_values=_FLAGS
)
_THREADS = flags.DEFINE_integer(
    "threads", 1, "CPU threads of a contestant; 0: all.", lower_bound=0, flag_values=_FLAGS
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

_SOURCE = measure.ROOT / "research" / "adversarial"
_BUDGETS = (30, 100, 200, 500, 1000)
_LONG = _BUDGETS[1:]  # of attacks that are made for many


class Contestant(NamedTuple):
    """module: its process.  package: what a peer's Python must have.  settings: of its turns, by
    the number of their gradients."""

    module: str
    package: str
    settings: dict[int, dict[str, Any]]


def _ours(method: str, budgets: Sequence[int]) -> Contestant:
    """A success takes about five gradients, and the polish up to eight."""
    shares = {20: (16, 0), 30: (26, 0), 100: (90, 8), 200: (187, 8), 500: (487, 8), 1000: (987, 8)}
    settings = {
        n: {"method": method, "steps": shares[n][0], "polish": shares[n][1]} for n in budgets
    }
    return Contestant("ours_attack", "", settings)


def _adv_lib(attack: str, steps: str, budgets: Sequence[int] = _LONG, **others: Any) -> Contestant:
    settings = {n: {"attack": attack, steps: n, **others} for n in budgets}
    return Contestant("peer_advlib", "adv-lib", settings)


def _foolbox(setting: Callable[[int], dict[str, Any]], budgets: Sequence[int]) -> Contestant:
    settings = {n: {"tracked": True, **setting(n)} for n in budgets}
    return Contestant("peer_foolbox", "foolbox", settings)


def _searches(gradients: int) -> int:
    """Values of its constant that C&W tries: with few gradients each of them needs many."""
    return 2 if gradients < 500 else 5


CONTESTANTS = {
    "lagrangian": _ours("lagrangian", (20, *_BUDGETS)),
    "minimal": _ours("minimal", _BUDGETS[:2]),
    "ddn": _adv_lib("ddn", "steps", _BUDGETS),
    "alma": _adv_lib("alma", "num_steps"),
    "fmn": _adv_lib("fmn", "steps", _BUDGETS, norm=2),
    "pdgd": _adv_lib("pdgd", "num_steps"),
    "pdpgd": _adv_lib("pdpgd", "num_steps", norm=2),
    "cw": Contestant(
        "peer_advlib",
        "adv-lib",
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
        "adv-lib",  # a run of APGD takes a gradient more than it has steps
        {n: {"attack": "apgd", "budgets": 5, "n_iter": n // 5 - 1} for n in _LONG},
    ),
    "apgd-t-restarts": Contestant(
        "peer_advlib",
        "adv-lib",
        {
            n: {"attack": "apgd", "budgets": 5, "n_restarts": 4, "n_iter": n // 20 - 1}
            for n in _BUDGETS[3:]
        },
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
_MAIN = ("lagrangian", "ddn", "alma", "fmn")


def table(results: Mapping[str, Any]) -> str:
    """The results as Markdown tables, one for each net and sample, with their notes; pure."""
    parts: list[str] = []
    for net in _nets(results["rows"]):
        parts += [_table_of(net, count) for count in sorted({r["images"] for r in net})[::-1]]
    versions: dict[str, list[str]] = {}
    for row in results["rows"]:
        for package, version in row["versions"].items():
            if version not in versions.setdefault(package, []):
                versions[package].append(version)
    made_by = ", ".join(f"{package} {' and '.join(each)}" for package, each in versions.items())
    about = (
        "Correctly classified test images, each toward nine classes and away from its own; judged "
        "on the PNG by a forward pass in NumPy. Quantiles are over all cells, a cell that is not "
        "reached counting as infinitely far away; the mean is over those reached. Of a peer the "
        "best image on bytes of all that it gave the net counts; beside it the median of the best "
        "as floats, and the share of these that rounding takes away. Optimality: the local one of "
        "AttackBench, among the rows of at most as many gradients. Gradients are those of a cell; "
        "seconds are of the call on the row's largest sample, with compiling, beside "
        "other work that may have stopped it."
    )
    if results["missing"]:
        about += f" Not installed: {', '.join(results['missing'])}."
    parts.append(f"{about} {results['device']}; {made_by}; {results['date']}.")
    return "\n\n".join(parts)


_KINDS = ("targeted", "own")


def _nets(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each net and first image, by contestants; the net of the most images first."""
    nets: dict[tuple[str, int], list[dict[str, Any]]] = {}
    names = list(CONTESTANTS)
    for row in sorted(rows, key=lambda row: (names.index(row["name"]), row["budget"])):
        nets.setdefault((row["net"], row["first"]), []).append(row)
    return sorted(nets.values(), key=lambda net: -max(row["images"] for row in net))


def on_common_images(rows: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The rows of a net that have `count` images or more, on the first `count` of them.

    Of one contestant and budget the row of the fewest images.
    """
    common: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = row["name"], row["budget"]
        if row["images"] < count or (key in common and common[key]["images"] < row["images"]):
            continue
        common[key] = row
    for key, row in common.items():
        kinds = {}
        for kind in _KINDS:
            share = len(row[kind]["norms"]) // row["images"]  # cells of an image
            kinds[kind] = {name: cells[: share * count] for name, cells in row[kind].items()}
        common[key] = row | kinds
    return list(common.values())


def _table_of(net: list[dict[str, Any]], count: int) -> str:
    """The rows of a net at those numbers of gradients for which a sample has `count` images."""
    budgets = {row["budget"] for row in net if row["images"] == count}
    rows = on_common_images(net, count)
    shown = [row for row in rows if row["budget"] in budgets]
    lines: list[list[str]] = []
    for row in shown:
        line = [f"{row['name']} {row['budget']}", f"{row['gradients']:.1f}"]
        line += [f"{row['seconds']:.0f}"]
        for kind in _KINDS:
            rivals = [one[kind] for one in rows if _affords(row, one)]
            line += [*_cells(row[kind]), f"{local_optimality(row[kind], rivals):.3f}"]
        lines.append(line)
    head = ["attack, budget", "gradients", "seconds"]
    for words in ("targets reached", "own class left"):
        head += [words, "L2: median / mean / 90 %", "as floats", "lost (%)", "optimality"]
    about = net[0]
    note = (
        f"Net {about['net']}: convolutions of {about['filters']} filters, dense layers of "
        f"{about['dense']}, after epoch {about['epoch']}; {count} images from number "
        f"{about['first']} on; {about['data']}."
    )
    peers = [row for row in shown if row["name"] not in _OURS]
    return measure.markdown(head, lines, note, winners(peers, rows))


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
    lost = f"{100 * sum(one['lost']) / kept.sum():.1f}" if kept.any() else "-"
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


def winners(peers: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Which peers have a smaller median or 90 % quantile than ours, in `rows`, of at most their
    gradients, and by how much."""
    lines: list[str] = []
    for kind, words in zip(_KINDS, ("targeted", "untargeted"), strict=True):
        for peer in peers:
            rivals = [row for row in rows if row["name"] in _OURS and _affords(peer, row)]
            for share, name in ((0.5, "median"), (0.9, "90 % quantile")):
                theirs = _quantile(_array(peer[kind]["norms"]), share)
                best = min(
                    (_quantile(_array(row[kind]["norms"]), share) for row in rivals), default=0.0
                )
                if theirs < best:
                    lines.append(
                        f"{peer['name']} {peer['budget']}, {words}, {name}: "
                        f"{theirs:.3f} against {best:.3f} ({1 - theirs / best:.1%} less)"
                    )
    if not lines:
        return "No peer has a smaller median or 90 % quantile than ours for as many gradients."
    return f"A peer has the smaller noise: {'; '.join(lines)}."


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Median L2 of targeted cells against gradients: a panel a net, a curve an attack, all on the
    images that every row of the net has."""
    from matplotlib.figure import Figure  # not for those who only want a table
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    nets = _nets(results["rows"])
    figure = Figure(figsize=(5 * len(nets) + 1.5, 3.8), layout="constrained")
    curves: dict[str, Any] = {}
    for axis, net in zip(figure.subplots(1, len(nets), squeeze=False)[0], nets, strict=True):
        count = min(row["images"] for row in net)
        rows = on_common_images(net, count)
        for name in dict.fromkeys(row["name"] for row in rows):
            points = sorted(
                (row["gradients"], _quantile(_array(row["targeted"]["norms"]), 0.5))
                for row in rows
                if row["name"] == name
            )
            width = 2.5 if name in _OURS else 1.2
            place = list(CONTESTANTS).index(name)  # the same colour in every panel
            line = {"marker": "o", "color": f"C{place}", "label": name, "linewidth": width}
            line["linestyle"] = "-" if place < 10 else "--"  # after so many colours come again
            curves[name] = axis.plot(*zip(*points, strict=True), **line)[0]
        axis.set(
            xscale="log",
            yscale="log",
            title=f"{net[0]['net']}, {count} images",
            xlabel="gradients of a case",
            ylabel="median L2 of the noise, on bytes",
        )
        axis.set_xticks(sorted({row["budget"] for row in rows}), minor=False)
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(ScalarFormatter())
    _ = figure.legend(handles=[*curves.values()], loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


class Job(NamedTuple):
    """What one contestant has to do on one sample of one net.

    place: the directory of net and sample.  net: what makes it.  about: of its rows, all but what
    a turn adds.  settings: by their gradients.
    """

    place: Path
    net: dict[str, Any]
    about: dict[str, Any]
    settings: dict[int, dict[str, Any]]


def prepare(directory: Path, run: str, counts: Iterable[int]) -> dict[str, Any]:
    """Write weights and a sample of each of `counts` images into `directory`/count.

    Returns what our side says of the run.
    """
    directory.mkdir()
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
    with np.load(directory / "digits.npz") as digits:
        images, labels = digits["images"][_FIRST.value :], digits["labels"][_FIRST.value :]
    for count in counts:
        probes = images[: 3 * count + 20]
        reference = judge.logits(weights, probes / 255)
        classes = labels[: len(probes)].astype(np.int64)
        right = np.flatnonzero(reference.argmax(axis=1) == classes)[:count]
        if len(right) < count:
            commands.fail(
                f"--images, --few, --many: only {len(right)} of the {len(probes)} images from "
                f"{_FIRST.value} on are right in {run}, not {count}"
            )
        (directory / str(count)).mkdir()
        sample = contest.Sample(probes[right], classes[right], probes, reference)
        np.savez(directory / str(count) / "sample.npz", **sample._asdict())
        np.savez(directory / str(count) / "weights.npz", **weights)
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
            "lost": [int(each) for each in lost[cells]],
        }
    return row


def samples(names: Sequence[str], first_net: bool) -> dict[int, dict[str, dict[int, Any]]]:
    """{number of images: {contestant: its settings, by their gradients, on so many}}."""
    wanted: dict[int, dict[str, dict[int, Any]]] = {}
    for name in names:
        for budget, setting in CONTESTANTS[name].settings.items():
            count = _IMAGES.value if budget <= 200 else _FEW.value
            if first_net and budget <= 100 and name in _MAIN:
                count = _MANY.value
            if budget <= _STEPS.value:
                wanted.setdefault(count, {}).setdefault(name, {})[budget] = setting
    return wanted


def has(row: Mapping[str, Any], **wanted: Any) -> bool:
    """Whether the row has these values."""
    return all(row[key] == value for key, value in wanted.items())


def find_versions(python: str, names: Iterable[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The contestants that `python` lacks the package of, and what made the rows of the others.

    Of ours that is its source as well.
    """
    source = b"".join(path.read_bytes() for path in sorted(_SOURCE.glob("*.py")))
    of_ours = {"research": hashlib.sha256(source).hexdigest()[:8], **ours.versions()}
    packages = sorted({CONTESTANTS[name].package for name in names} - {""})
    installed = measure.find_versions(python, (*packages, "torch")) if packages else {}
    missing: list[str] = []
    versions: dict[str, dict[str, str]] = {}
    for name in names:
        package = CONTESTANTS[name].package
        if package and package not in installed:
            missing.append(name)
        else:
            versions[name] = of_ours
            if package:
                versions[name] = {each: installed[each] for each in (package, "torch")}
    return missing, versions


def main(argv: Sequence[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    if not _RUNS.value:
        commands.fail("--run: name the work directory of a run of configs/cnn.py")
    if unknown := [name for name in _CHOSEN.value if name not in CONTESTANTS]:
        commands.fail(f"--contestants: {unknown[0]!r} is not one of {', '.join(CONTESTANTS)}")
    results: dict[str, Any] = {"rows": []}
    if output.exists():
        results = measure.read(output)
    results |= measure.describe()
    chosen = {name: CONTESTANTS[name] for name in _CHOSEN.value or CONTESTANTS}
    missing, versions = find_versions(_FLAGS.peer_python, chosen)
    there = {row["name"] for row in results["rows"]}
    results["missing"] = [name for name in missing if name not in there]
    with tempfile.TemporaryDirectory() as place:
        jobs: list[Job] = []
        for number, run in enumerate(_RUNS.value):
            wanted = samples([name for name in chosen if name not in missing], number == 0)
            directory = Path(place) / str(number)
            facts = prepare(directory, run, wanted)
            about = {"net": facts["name"], "first": _FIRST.value}
            about |= {key: facts[key] for key in ("weights", "epoch", "data")}
            about |= {key: facts["net"][key] for key in ("filters", "dense")}
            # Rows of other weights or data under the name of this net do not belong beside it.
            results["rows"] = [
                row
                for row in results["rows"]
                if row["net"] != facts["name"]
                or has(row, weights=facts["weights"], data=facts["data"])
            ]
            for count, contestants in wanted.items():
                for name, settings in contestants.items():
                    rest = about | {"images": count, "name": name, "versions": versions[name]}
                    lacking = {
                        budget: setting
                        for budget, setting in settings.items()
                        if not any(has(row, setting=setting, **rest) for row in results["rows"])
                    }
                    if lacking:
                        jobs.append(Job(directory / str(count), facts["net"], rest, lacking))
        # The largest samples of all nets first: they take the least time for what they tell.
        jobs.sort(key=lambda job: -job.about["images"])
        work = [10 * job.about["images"] * sum(job.settings) for job in jobs]
        turn = threading.Lock()
        with progress.bar(None, "board", total=sum(work), unit="gradients") as bar:

            def publish(row: dict[str, Any]) -> None:
                with turn:
                    results["rows"] = replace(results["rows"], row)
                    output.parent.mkdir(parents=True, exist_ok=True)
                    _ = output.write_text(json.dumps(results) + "\n")
                    reached, norms, *_ = _cells(row["targeted"])
                    progress.say(
                        f"{row['net']}, {row['images']} images, {row['name']} {row['budget']}: "
                        f"{reached} reached, L2 {norms}, {row['seconds']:.0f} s"
                    )
                    _ = bar.update(10 * row["images"] * row["budget"])

            with futures.ThreadPoolExecutor(_JOBS.value) as pool:
                works = [pool.submit(compete, job, publish) for job in jobs]
                try:
                    for done in futures.as_completed(works):
                        done.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    measure.finish(results, output, table)
    draw(results, output.with_suffix(".png"))
    return 0


def replace(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """`rows` with `row` in the place of the one of its contestant, budget, net and sample."""
    keys = ("net", "name", "budget", "first", "images")
    return [one for one in rows if any(one[key] != row[key] for key in keys)] + [row]


def compete(job: Job, publish: Callable[[dict[str, Any]], None]) -> None:
    """Have a contestant take its turns, and publish the row of each at once."""
    name = job.about["name"]
    module, package, _ = CONTESTANTS[name]
    python = _FLAGS.peer_python if package else sys.executable
    command = [python, "-m", f"benchmarks.{module}", f"--name={name}"]
    command += [
        f"--net={json.dumps(job.net)}",
        f"--settings={json.dumps([*job.settings.values()])}",
    ]
    command += [f"--directory={job.place}", f"--threads={_THREADS.value}"]
    with measure.Paced(name, command) as contestant:
        if not contestant.facts["difference"] <= attacks.CLOSE * _LOGITS.value:
            commands.fail(f"{name}: logits differ by {contestant.facts['difference']:.1e}")
        for turn, (budget, setting) in enumerate(job.settings.items()):
            seconds = contestant.turn()
            row = job.about | {"budget": budget, "setting": setting, "seconds": seconds}
            publish(row | row_of(job.place, name, turn))


if __name__ == "__main__":
    measure.start(main)
