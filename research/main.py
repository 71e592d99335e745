"""Run an experiment: python -m research.main --config=configs/mlp.py:tanh-40

Any key of the config can be set: --config.epochs=3 --config.data.dir=path/to/idx/files. The summary
is printed to standard output as one line of JSON; everything else goes to standard error.

One run can be several processes, on one machine or many: the same command for each, with a work
directory that all of them see. Under SLURM, Open MPI and on Cloud TPU they find one another;
elsewhere each is told: --coordinator=host:port --processes=N --process=i. The first process prints.

Exit codes: 0 done; 2 a mistake that has to be mended first; 1 a fault of the program, with its
stack trace; and those after which the same command goes on from the last checkpoint: 143 and 130,
stopped by SIGTERM or SIGINT and saved; 75 (EX_TEMPFAIL) and 134, another process has died, or the
machine it is on.
"""

import difflib
import importlib
import json
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    from research.runtime import startup

    if __name__ == "__main__":
        startup.prepare()

    from absl import app, flags, logging
    from ml_collections import ConfigDict, config_flags

    from configs import common
    from research.models import native
    from research.runtime import (
        commands,
        distributed,
        files,
        preemption,
        profiling,
        progress,
        sharding,
    )
    from research.structs import Config, UserError, one_line, printable
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: {missing}; install requirements.txt, and start it from the repository's directory "
        "as python -m research.main"
    )
except (ImportError, MemoryError) as error:
    sys.exit(f"error: the libraries cannot be loaded, perhaps for lack of memory: {error}")

EXPERIMENTS = {
    "classifiers": "research.experiments.classifiers",
    "depth": "research.experiments.depth",
    "map": "research.experiments.map",
    "masks": "research.experiments.masks.study",
    "noise": "research.experiments.noise.study",
    "spectrum": "research.experiments.spectrum",
}

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File and variant, as in configs/mlp.py:tanh-40.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of this run; default runs/<config file>/<variant and overrides>."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be run, and stop.")
_CACHE = flags.DEFINE_string(
    "compilation_cache", "runs/.compiled", 'Where compiled programs are kept; "" for nowhere.'
)
_NATIVE = flags.DEFINE_bool(
    "native_convolutions",
    False,
    "Compile convolutions of our own for this CPU, with its C++ compiler: a step of the CNNs takes "
    "less time, and the last digits are others. XLA's are taken where there is no compiler.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "Of several processes: host:port of the first one, any free port."
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 0, "How many processes run this command together; 0 to find out."
)
_PROCESS = flags.DEFINE_integer("process", -1, "Which of them this one is, from 0.")
_PROFILE = flags.DEFINE_integer(
    "profile_steps",
    0,
    "Trace so many steps of a training, fewer than it has, or one call of an attack, for "
    "TensorBoard and Perfetto; in `profile` of the work directory.",
    lower_bound=0,
)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with a mistake reported in one line instead of a stack trace."""
    config = None
    try:
        words = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
        paths = [
            word.partition("=")[2] if "=" in word else following
            for word, following in zip(words, [*words[1:], ""], strict=True)
            if re.match(r"--?config(=|$)", word)
        ]
        if paths:
            config = _load(paths[-1])
            _check_keys(words, config)
        rest = flags.FLAGS(list(argv))
        if len(rest) > 1:
            raise UserError(_stray(argv, rest[1]))
        if config is None:
            raise UserError("no --config given; try --config=configs/mlp.py:tanh-40")
        if _WORKDIR.value == "":  # a shell variable that was not set
            raise UserError("--workdir: empty; give it a value, or leave it out")
    except flags.IllegalFlagValueError as error:
        commands.fail(_illegal(str(error), config))
    except (flags.Error, UserError) as error:
        commands.fail(str(error))
    return rest


def _load(path: str) -> Config:
    """The config of "file:variant", with none of its keys overridden.

    Raises UserError naming the file, with the line where its code has raised anything at all, if it
    gives no config with all the keys that a run of it needs.
    """
    file, colon, variant = path.partition(":")
    if not Path(file).is_file():
        there = sorted(str(each) for each in Path("configs").glob("*.py") if each.stem != "common")
        near = difflib.get_close_matches(Path(file).stem, [Path(each).stem for each in there], n=1)
        hint = f"did you mean configs/{near[0]}.py?" if near else f"there are {', '.join(there)}"
        raise UserError(f"config: {file!r} is no file; {hint}")
    try:
        get_config = runpy.run_path(file).get("get_config")
        config = get_config(*[variant] * bool(colon)) if get_config else None
    except BaseException as error:  # also SystemExit, KeyboardInterrupt
        frames = traceback.extract_tb(error.__traceback__)
        if frames[-1].filename == common.__file__:  # a variant that there is none of
            raise UserError(str(error)) from None
        lines = [frame.lineno for frame in frames if frame.filename == file]
        if isinstance(error, SyntaxError):
            lines, error = [error.lineno], SyntaxError(error.msg)
        place = f"{file}:{lines[-1]}" if lines and lines[-1] else file
        raise UserError(f"{place}: {type(error).__name__}: {one_line(error)}") from None
    if not isinstance(config, ConfigDict):
        what = f"get_config returns {config!r:.80}" if get_config else "there is no get_config"
        raise UserError(f"{file}: {what}; expected a function that returns a ConfigDict")
    if keys := common.missing(config):
        raise UserError(f"{file}: the config has no key {keys[0]!r}, which a run of it needs")
    return config


def _check_keys(words: Sequence[str], config: Config) -> None:
    """Raise UserError for the first --config.key that the config does not have."""
    valid = list(_keys(config))
    for key in re.findall(r"(?<!\S)--?(?:no)?config\.([^=\s]*)", " ".join(words)):
        if key in valid:
            continue
        for old, new in common.RENAMED.items():
            if f"{key}.".startswith(f"{old}."):
                now = f"{new}{key.removeprefix(old)}"
                raise UserError(f"the config has no key {key!r}; it is {now} now")
        near = difflib.get_close_matches(key, valid, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(valid)}"
        raise UserError(f"the config has no key {key!r}; {hint}")


def _stray(argv: Sequence[str], word: str) -> str:
    """What is wrong with a word of the command line that belongs to no flag."""
    before = argv[list(argv).index(word) - 1]
    if before.startswith("-") and "=" not in before:  # of a flag that is True or False
        return f"unexpected argument {word!r}; did you mean {before}={word}?"
    return f"unexpected argument {word!r}; flags start with --"


def _illegal(message: str, config: Config) -> str:
    """absl's message on the value of a flag; of a key of the config what it may hold instead."""
    match = re.fullmatch(r"flag --config\.(.*?)=(.*?): .*", message, re.DOTALL)
    if match is None:
        return " ".join(message.split())
    path, value = match.groups()
    kind = common.kinds(config).get(path)
    if kind is not None:
        return f"{path}: {value!r} is not {common.in_words(kind)}"
    parts = ", ".join(each for each in _keys(config) if each.startswith(f"{path}."))
    return f"{path}: {value!r} is not a section of keys; set one at a time: {parts}"


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")


def _last_line(error: Exception) -> str:
    """The message of the innermost error: ml_collections quotes whole stack traces."""
    text = str(error.args[0] if error.args else error).strip()
    if "Traceback" in text:
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    return " ".join(text.split())


def default_workdir() -> Path:
    """runs/<config file>/<variant>, with the overridden keys, so that two configs rarely share one.

    Where they do, the second is refused by `run_directory.begin`.  Without the keys that do not
    tell runs apart (`common.OF_THE_MACHINE`), and `mode`: what is evaluated lies where it
    was trained, whatever the data.
    """
    overrides = dict(config_flags.get_override_values(flags.FLAGS["config"]))
    telling = sorted(overrides.keys() - {"mode", *common.OF_THE_MACHINE})
    words = [_CONFIG.value.name, *(f"{key}={overrides[key]}" for key in telling)]
    name = ",".join(re.sub(r"[^\w.=+-]+", "_", word).replace("=.._", "=") for word in words)
    file = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
    return Path("runs") / Path(file).stem / name[:200]


def run_experiment(
    config: Config,
    workdir: str | Path,
    *,
    dry_run: bool,
    cache: str,
    native_convolutions: bool = False,
    coordinator: str = "",
    processes: int = 1,
    process: int = -1,
) -> int:
    """Run the experiment that `config` names, or describe it; returns the exit code.

    native_convolutions: see `research.models.native`.
    coordinator, processes, process: see `distributed.initialize`; a description is made by each
    process alone.  Of several processes, one that fails or is stopped does not return.
    """
    again = printable(f"the same command goes on from {workdir}")
    preemption.install(again)
    try:
        if config.experiment not in EXPERIMENTS:
            valid = ", ".join(EXPERIMENTS)
            raise UserError(f"experiment: {config.experiment!r} is not one of {valid}")
        if problem := common.problem(config):
            raise UserError(problem)
        workdir = files.locate(str(workdir))
        if dry_run:
            processes = 1
        else:
            processes = distributed.initialize(
                coordinator=coordinator, processes=processes, process=process
            )
        seeds, data_devices = 1, 0  # an attack has no seeds and shares no batches
        if config.experiment == "map":  # all nets of a depth are trained at once
            seeds = config.seeds * config.resolution
        elif config.experiment != "noise":
            seeds, data_devices = config.seeds, config.data_devices
        sharding.configure(
            cpu_devices=config.cpu_devices,
            cpu_threads=config.cpu_threads,
            seeds=seeds,
            processes=processes,
            data_devices=data_devices,
            matmul_precision=config.matmul_precision,
        )
        if cache:
            sharding.cache_programs(cache)
        if native_convolutions and not dry_run:
            progress.say(native.enable(cache))
        experiment = importlib.import_module(EXPERIMENTS[config.experiment])
        if dry_run:
            print(*map(printable, experiment.describe(config).split("\n")), sep="\n")
            return 0
        if config.get("mode") != "evaluate":  # which writes beside the run, and checks that place
            files.check_shared(workdir)
        summary = experiment.run(config, workdir)
        first = distributed.is_first()
        distributed.close()
        if first:
            print(json.dumps(summary), flush=True)
            print(printable(f"{summary['headline']}; results in {workdir}"), file=sys.stderr)
        return 0
    except preemption.Stopped as stopped:
        message, code = f"{stopped}; {again}", stopped.exit_code
    except Exception as error:
        if distributed.peer_lost(error):
            print(printable(f"{type(error).__name__}: {_last_line(error)}"), file=sys.stderr)
            message, code = (
                f"another process has died or cannot be reached; {again}",
                distributed.LOST,
            )
        elif isinstance(error, UserError):
            message, code = f"error: {error}", 2
        elif isinstance(error, OSError):  # a full disk, no permission
            message, code = f"error: {error}; when that is mended, {again}", 2
        elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            message, code = f"error: out of memory ({_last_line(error)}); {again}", 2
        elif distributed.is_single():
            raise
        else:
            traceback.print_exc()
            message, code = f"error: {type(error).__name__}: {_last_line(error)}", 1
    print(printable(message), file=sys.stderr)
    distributed.end(code)
    return code


def _silence_orbax() -> None:
    """Keep back the traces of failures that Orbax raises as well.

    It logs them. And when one of its writes has failed, its event loop ends: of the others that
    fail TensorStore cannot tell the loop, and says so as an error that nobody can catch.
    """
    logging.set_verbosity(logging.FATAL)
    hook = sys.unraisablehook

    def without_late_writes(error: "sys.UnraisableHookArgs") -> None:
        if str(error.exc_value) != "Event loop is closed":
            hook(error)

    sys.unraisablehook = without_late_writes


def main(argv: Sequence[str]) -> int:
    """The door: flags to exit code."""
    del argv
    _silence_orbax()
    profiling.install(_PROFILE.value)
    return run_experiment(
        _CONFIG.value,
        _WORKDIR.value or default_workdir(),
        dry_run=_DRY_RUN.value,
        cache=_CACHE.value,
        native_convolutions=_NATIVE.value,
        coordinator=_COORDINATOR.value,
        processes=_PROCESSES.value,
        process=_PROCESS.value,
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
