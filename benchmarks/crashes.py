"""Kills, full disks, signals, closed streams, damaged files and second starts, by the hundred.

    python -m benchmarks.crashes

Each trial is a run of `python -m research.main` on synthetic data that something happens to, and
the same command once more: it has to end with the same bits as a run that nothing happened to, or,
where a file was damaged, to refuse by one line that names it. What happens is timed by counting the
changes that the run makes below its directory, whichever library makes them (`crashes.c`, loaded by
LD_PRELOAD; needs a C compiler). What a kill at any change of a run would leave is copied by it, and
gone on with; some runs are killed indeed. Trials are forked off a process that has the libraries
loaded. Fails if a trial ends in another way.
"""

import collections
import contextlib
import ctypes
import hashlib
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import measure
from research.storage import run_directory

_FLAGS = measure.make_flags("crashes", data=False)
_JOBS = flags.DEFINE_integer(
    "jobs", 2, "Trials at the same time.", lower_bound=1, flag_values=_FLAGS
)
_SHARE = flags.DEFINE_float(
    "share", 1.0, "Share of the trials that is made.", lower_bound=0.0, flag_values=_FLAGS
)
_ONLY = flags.DEFINE_multi_string(
    "only", [], "Studies; all of them by default.", flag_values=_FLAGS
)

TINY = ("filters=(2,)", "pools=(2,)", "dropouts=(0.0,)", "dense=(4,)", "dense_dropouts=(0.0,)")
STUDIES = {
    "depth": ("configs/mlp.py:tanh-5,smoke",),
    "classifiers": ("configs/cnn.py:mnist,smoke", *TINY),
    "noise": (
        "configs/noise.py:mlp,smoke",
        "nets=('mlp:tanh-5,smoke',)",
        *("run={base}/net", "classes=(0,)", "batch=1", "per_class=2", "pgd.images=2"),
        *("lagrangian.steps=2", "lagrangian.search=4", "lagrangian.polish=1", "pgd.levels=(26,)"),
    ),
    "masks": (
        "configs/masks.py:smoke",
        *("data.drawn=24", "data.size=20", "epochs=2", "data.tfds_dir={root}/tfds", *TINY),
    ),
}
# Trials of each study, more of the faster ones: kills, real ones, damage, full disks, signals,
# streams.
TRIALS = {
    "depth": (120, 4, 70, 22, 4, 4),
    "classifiers": (45, 2, 24, 10, 2, 2),
    "noise": (25, 2, 20, 6, 2, 2),
    "masks": (12, 2, 12, 4, 2, 1),
}
KINDS = {
    "killed": "what a kill before the n-th change of a file, or within the n-th write, would leave",
    "kill": "SIGKILL at the n-th change",
    "full": "disk full from the n-th change on",
    "signal": "SIGTERM, or with SIGINT, at the n-th change",
    "flip": "one flipped bit",
    "cut": "file cut short or empty",
    "stream": "standard streams closed, full or without a reader",
    "twice": "two starts at once",
}
COPY, KILL, FULL, TERM, BOTH = range(5)  # as in crashes.c
# Of the machine and the place and not of the run, and the checks, which cover those as well.
OWN = ("seconds", "step_ms", "device_memory_mib", "peak_memory_mib", "tfds_dir", "check")
# Below a run: states and curves are not compared, nor the faces and what they were cut from.
OTHER = ("checkpoints/", "final/checkpoints/", "tensorboard/", "final/tensorboard/")
OTHER += ("export/checkpoint/", "masks/", "corpus/", "versions.json", ".")
LIMIT = 600  # seconds after which a run is given up
_TRACE = re.compile(r"Traceback \(most recent|Fatal Python error|\*\*\* ")


class Ended(NamedTuple):
    """A run at its end: exit code (negative for a signal), standard output and error."""

    code: int
    out: str
    err: str


class Trial(NamedTuple):
    """One thing that happens to a run.

    number: of the change of a file, from 1, or a seed of what is drawn.  what: of crashes.c.
    place: the path that is damaged or changed, or what is done to the streams.  half: whether the
    run has been killed in its middle before, or within a write.
    """

    study: str
    kind: str
    number: int = 0
    what: int = COPY
    place: str = ""
    half: bool = False


def make_shim(folder: Path) -> Path:
    """crashes.c, compiled."""
    shim = folder / "crashes.so"
    source = Path(__file__).with_suffix(".c")
    _ = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


def load_libraries() -> None:
    """Import what a run imports, so that a fork has it.  Exits if a thread has been started."""
    for name in ("depth", "classifiers", "noise.study", "masks.study"):
        _ = __import__(f"research.experiments.{name}")
    for name in ("matplotlib.pyplot", "absl.app", "ml_collections.config_flags"):
        _ = __import__(name)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("error: a library has started threads; no process can be forked safely")


def words(study: str, root: Path) -> list[str]:
    """The command of a study, in the directory `root`; nets and programs lie beside it."""
    base = root.parent
    config, *keys = (word.format(root=root, base=base) for word in STUDIES[study])
    flags_ = [f"--config={config}", *(f"--config.{key}" for key in keys)]
    return [*flags_, f"--workdir={root}/run", f"--compilation_cache={base.parent}/compiled"]


def start(
    study: str,
    root: Path,
    number: int = 0,
    what: int = COPY,
    *,
    streams: str = "",
    files: Path | None = None,
) -> int:
    """Fork a run; returns its process.

    number, what: of `arm` in crashes.c.  streams: what becomes of which, as in "pipe1 full2".
    files: stem of the files for its words and its changes, by default beside `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    out, err, changes = (Path(f"{files or root}.{end}") for end in ("out", "err", "changes"))
    if child := os.fork():
        return child
    try:
        os.setpgid(0, 0)
        for file, path in ((1, out), (2, err)):
            _ = os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), file)
        for place, file in re.findall(r"(full|pipe|closed)([12])", streams):
            if place == "closed":
                os.close(int(file))
            elif place == "full":
                _ = os.dup2(os.open("/dev/full", os.O_WRONLY), int(file))
            else:
                reader, writer = os.pipe()
                _ = os.dup2(writer, int(file))
                os.close(reader)
                os.close(writer)
        if number:
            paths = [str(path).encode() for path in (root, changes, root.parent / "killed")]
            shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
            _ = shim.arm(paths[0], ctypes.c_long(number), what, *paths[1:])
        sys.argv = ["research.main", *words(study, root)]
        code: Any = 0
        try:
            _ = runpy.run_module("research.main", run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        except BaseException:  # as the interpreter does
            traceback.print_exc()
            code = 1
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        _ = sys.stdout.flush(), sys.stderr.flush()
        os._exit(code or 0)
    finally:
        os._exit(99)


def finish(child: int, files: Path) -> Ended:
    """Wait for a run of `start`.  files: as there."""
    until = time.monotonic() + LIMIT
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    out, err = (Path(f"{files}.{end}").read_text(errors="replace") for end in ("out", "err"))
    return Ended(os.waitstatus_to_exitcode(ended[1]), out, err)


def changes(root: Path) -> list[tuple[str, str]]:
    """[(kind, path below root)] of the changes that the last armed run made."""
    lines = Path(f"{root}.changes").read_text(errors="replace").splitlines()
    return [(kind, path) for _, kind, path in (line.split(" ", 2) for line in lines)]


def outcome(root: Path) -> dict[str, Any]:
    """{path: content, without what is of the machine} of the results in `root`/run."""
    run, found = root / "run", dict[str, Any]()
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if name.startswith(OTHER):
            continue
        if path.suffix == ".jsonl":
            found[name] = [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif name in ("summary.json", "config.json"):
            found[name] = _plain(json.loads(path.read_text()), str(root))
        elif path.suffix == ".npz":
            with np.load(path) as stored:
                found[name] = {
                    key: hashlib.sha256(stored[key].tobytes()).hexdigest() for key in stored.files
                }
        elif path.suffix in (".png", ".safetensors", ".csv"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _plain(content: Any, root: str = "") -> Any:
    if isinstance(content, Mapping):
        return {key: _plain(value, root) for key, value in content.items() if key not in OWN}
    if isinstance(content, list):
        return [_plain(value, root) for value in content]
    return content.replace(root, "") if root and isinstance(content, str) else content


def judge(root: Path, ended: Ended, reference: Mapping[str, Any], place: str = "") -> str:
    """How a run has ended: "same", "refused" by a line that names `place`, "wrong" or "failed"."""
    path = Path(place)
    if "checkpoints" in path.parts:  # a file of a state is named by the state
        names = [f"checkpoint {path.parts[path.parts.index('checkpoints') + 1]} "]
    else:  # a config may be damaged into another one, of which the key that differs is named
        names = [path.name, *(["begun with"] if path.name == "config.json" else [])]
    named = place != "" and any(name in ended.err for name in names)
    if ended.code == 0:
        with contextlib.suppress(OSError, ValueError):
            if outcome(root) == reference and not run_directory.verify(root / "run"):
                return "same"
        return "refused" if named else "wrong"
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    return "refused" if ended.code in (1, 2) and len(lines) == 1 and named else "failed"


def attempt(trial: Trial, root: Path, prepared: Path, reference: Mapping[str, Any]) -> list[Any]:
    """Make a trial in `root`; returns [how it ended, stack traces, what was hit, last words]."""
    if trial.kind == "killed":
        left = prepared / "killed" / f"{trial.number}-torn"
        _ = (left if trial.half and left.exists() else left.with_name(f"{trial.number}")).rename(
            root
        )
    elif trial.half or trial.kind in ("flip", "cut"):
        _ = shutil.copytree(prepared / ("half" if trial.half else "done"), root, symlinks=True)
    ends: list[Ended] = []

    def go(**options: Any) -> Ended:
        ends.append(finish(start(trial.study, root, **options), root))
        return ends[-1]

    hit, expected = trial.place, (0,)
    if trial.kind in ("flip", "cut"):
        damage(root / trial.place, trial.kind, trial.number)
        how = judge(root, go(), reference, trial.place)
    elif trial.kind == "twice":
        stems = [Path(f"{root}-{name}") for name in ("one", "other")]
        children = [start(trial.study, root, files=stem) for stem in stems]
        ends += [finish(child, stem) for child, stem in zip(children, stems, strict=True)]
        expected = (0, 2)
        how = judge(root, go(), reference)
    elif trial.kind == "stream":
        how = judge(root, go(streams=trial.place), reference)
    else:
        if trial.what != COPY:
            expected = {KILL: (-9, 0), FULL: (2, 0)}.get(trial.what, (143, 130, 0))
            _ = go(number=trial.number, what=trial.what)
            made = changes(root)
            hit = " ".join(made[min(trial.number, len(made)) - 1])
        how = judge(root, go(), reference)
    if trial.kind not in ("flip", "cut") and (
        how == "refused" or any(each.code not in expected for each in ends[:-1])
    ):
        how = "failed"
    if any(each.err.count("\nerror: ") > 1 for each in ends):
        how = "failed"
    traces = sum(len(_TRACE.findall(each.out + each.err)) for each in ends)
    words_ = " | ".join(f"{each.code}: {each.err.strip()[-300:]}" for each in ends)
    return [how, traces, hit, "" if how in ("same", "refused") and not traces else words_]


def damage(path: Path, kind: str, seed: int) -> None:
    """Flip one bit of a file, or cut it at a place drawn from `seed`."""
    draw, content = random.Random(seed), bytearray(path.read_bytes())
    if kind == "flip" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        del content[draw.choice((0, draw.randrange(len(content) or 1))) :]
    _ = path.write_bytes(content)


def plan(
    study: str, made: Sequence[tuple[str, str]], files: Mapping[bool, Sequence[str]], share: float
) -> list[Trial]:
    """The trials of a study.

    made: the changes of an undisturbed run.  files: below the root, of a finished run (False) and
    of one killed in its middle (True).
    """
    killed, kills, damages, fulls, signals, streams = (
        max(1, round(share * count)) for count in TRIALS[study]
    )
    kinds = [re.sub(r"[0-9a-f]{6,}|\d+", "N", " ".join(change)) for change in made]
    trials: list[Trial] = []
    for number in _spread(kinds, killed):
        kind, path = made[number - 1]
        torn = kind == "write" and number % 2 == 1
        trials.append(Trial(study, "killed", number, place=f"{kind} {path}", half=torn))
    for number in _spread(["change"] * len(kinds), kills):
        trials.append(Trial(study, "kill", number, KILL))
    trials += [Trial(study, "full", number, FULL) for number in _spread(kinds, fulls)]
    for i, number in enumerate(_spread(["change"] * len(kinds), signals)):
        trials.append(Trial(study, "signal", number, BOTH if i % 2 else TERM))
    for half in (False, True):
        names = [re.sub(r"[0-9a-f]{6,}|\d+", "N", name) for name in files[half]]
        for i, number in enumerate(_spread(names, damages // 2)):
            kind = "cut" if i % 2 else "flip"
            trials.append(Trial(study, kind, i, place=files[half][number - 1], half=half))
    places = ("pipe1 pipe2", "full1 full2", "pipe1", "closed1 closed2")
    trials += [Trial(study, "stream", place=each) for each in places[:streams]]
    return [*trials, Trial(study, "twice"), Trial(study, "twice", half=True)]


def _spread(kinds: Sequence[str], count: int) -> list[int]:
    """`count` numbers from 1: one of every kind, the rarest first, the others evenly spread."""
    frequency = collections.Counter(kinds)
    first = sorted({kind: i for i, kind in enumerate(kinds)}.items(), key=lambda x: frequency[x[0]])
    chosen = [i for _, i in first[:count]]
    rest = [i for i in range(len(kinds)) if i not in chosen]
    left = count - len(chosen)
    chosen += [rest[int((j + 0.5) * len(rest) / left)] for j in range(left) if rest]
    return sorted(i + 1 for i in set(chosen))


def prepare(study: str, base: Path, share: float) -> tuple[list[Trial], dict[str, Any]]:
    """The trials of a study and the outcome that each has to have; leaves base/done, base/half."""
    base.mkdir()
    if study == "noise":
        net = base / "made" / "run"
        _settle("depth", base / "made")
        _ = net.rename(base / "net")
    (base / "killed").mkdir()
    _settle(study, base / "whole", number=1)
    made, reference = changes(base / "whole"), outcome(base / "whole")
    _ = finish(start(study, base / "half", int(len(made) * 0.6), KILL), base / "half")
    _ = (base / "whole").rename(base / "done")
    files = {
        half: sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_file() and path.name != ".lock" and "corpus" not in path.parts
        )
        for half, root in ((False, base / "done"), (True, base / "half"))
    }
    return plan(study, made, files, share), reference


def _settle(study: str, root: Path, number: int = 0) -> None:
    ended = finish(start(study, root, number), root)
    if ended.code:
        sys.exit(f"error: {study}: exit code {ended.code}: {measure.last_line(ended.err)}")


def make_trials(
    trials: Sequence[Trial], folder: Path, references: Mapping[str, Any], jobs: int
) -> list[list[Any]]:
    """[study, kind, number, place, *result of `attempt`] of all trials, `jobs` at a time."""
    children: list[int] = []
    for job in range(jobs):
        if child := os.fork():
            children.append(child)
            continue
        with (folder / f"results-{job}.jsonl").open("w") as file:
            for i, trial in list(enumerate(trials))[job::jobs]:
                root = folder / trial.study / f"trial-{i}"
                result = attempt(trial, root, folder / trial.study, references[trial.study])
                row = [trial.study, trial.kind, trial.number, trial.half, *result]
                print(json.dumps(row), file=file, flush=True)
                print(f"{i} of {len(trials)}: {row}", file=sys.stderr, flush=True)
                if result[0] in ("same", "refused") and not result[1]:
                    shutil.rmtree(root)
        os._exit(0)
    for child in children:
        _ = os.waitpid(child, 0)
    lines = [(folder / f"results-{job}.jsonl").read_text().splitlines() for job in range(jobs)]
    return [json.loads(line) for each in lines for line in each]


def failures(results: Mapping[str, Any]) -> list[str]:
    """What is not as it has to be, one line each; pure."""
    return [
        f"{study}, {kind} {number} ({hit}): {how}, {traces} stack traces; {last}"
        for study, kind, number, _, how, traces, hit, last in results["trials"]
        if how not in ("same", "refused") or traces
    ]


def table(results: Mapping[str, Any]) -> str:
    """The table of the README of running; pure."""
    rows: list[list[str]] = []
    trials = results["trials"]
    for kind, title in (*KINDS.items(), ("", "all")):
        these = [trial for trial in trials if kind in ("", trial[1])]
        counts = collections.Counter(trial[4] for trial in these)
        numbers = [len(these), *(counts[how] for how in ("same", "refused", "failed", "wrong"))]
        rows.append([title, *map(str, [*numbers, sum(trial[5] > 0 for trial in these)])])
    of = collections.Counter(trial[0] for trial in trials)
    return measure.markdown(
        ["what happens", "tried", "same bits", "refused", "work lost", "silently wrong", "traces"],
        rows,
        f"Trials of each study: {', '.join(f'{study} {count}' for study, count in of.items())}.",
        f"{results['device']}; {results['date']}.",
    )


def main(argv: list[str]) -> int:
    output = measure.begin(_FLAGS, argv, __doc__ or "", table)
    with tempfile.TemporaryDirectory(prefix="crashes-") as name:
        folder = Path(name)
        if "LD_PRELOAD" not in os.environ:
            environment = {
                **measure.environment(),
                "LD_PRELOAD": str(make_shim(folder)),
                "OPENBLAS_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "benchmarks.crashes", *argv[1:]]
            return subprocess.run(command, env=environment).returncode
        load_libraries()
        trials: list[Trial] = []
        references: dict[str, Any] = {}
        for study in _ONLY.value or STUDIES:
            more, references[study] = prepare(study, folder / study, _SHARE.value)
            trials += more
        random.Random(0).shuffle(trials)  # what is done so far is of all kinds
        made = make_trials(trials, folder, references, _JOBS.value)
    results = {**measure.describe(), "trials": made}
    measure.finish(results, output, table)
    return measure.print_faults(failures(results))


if __name__ == "__main__":
    measure.start(main)
