"""The command line, as a user meets it: in a process of its own."""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import orbax.checkpoint as ocp
import pytest
import several
from absl.testing import flagsaver

from configs import map as maps
from configs import mlp, noise
from research import main, predict, report
from research.experiments.noise import nets
from research.runtime import distributed
from research.storage import run_directory
from research.structs import UserError

RUN = (sys.executable, "-m", "research.main")
NET = "--config=configs/mlp.py:tanh-5,smoke"
ATTACK = "--config=configs/noise.py:mnist,smoke"
# As ml_collections loads a config.
MODULE_LOADER = pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One compilation cache for all the processes of this file."""
    return f"--compilation_cache={tmp_path_factory.mktemp('compiled')}"


def run(*words, **options):
    return subprocess.run([*RUN, *words], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def door(monkeypatch, capsys):
    """The command line in this process, with its devices: (exit code, standard output, error)."""
    for module, name in ((main.sharding, "configure"), (main.preemption, "install")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)

    def enter(*words):
        argv = ["main", *words, "--compilation_cache=", "--processes=1"]
        monkeypatch.setattr(sys, "argv", argv)
        with flagsaver.flagsaver():
            try:
                code = main.main(main.parse_flags(argv))
            except SystemExit as ended:
                code = ended.code
        return code, *capsys.readouterr()

    return enter


@MODULE_LOADER
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no --config given"),
        (("--config=configs/mlp.py:tanh-4",), "did you mean 'tanh-40'? valid: relu-5, relu-20"),
        (("--config=configs/mpl.py",), "'configs/mpl.py' is no file; did you mean configs/mlp.py?"),
        (("--config=elsewhere",), "'elsewhere' is no file; there are configs/cnn.py, configs/ma"),
        (("--config=",), "config: '' is no file"),
        ((NET, "--workdir="), "--workdir: empty; give it a value, or leave it out"),
        (("--config=configs/mlp.py:tanh-5,",), "nothing follows a comma of 'tanh-5,'"),
        (("--config", "configs/mlp.py", "--config.epoch=3"), "no key 'epoch'; did you mean 'ep"),
        ((NET, "--config.probe", "False"), "'False'; did you mean --config.probe=False?"),
        ((NET, "--config.probe=no"), "probe: 'no' is not True or False"),
        ((NET, "--config.data=x"), "data: 'x' is not a section of keys; set one at a time: data."),
        ((NET, "--config.nets=(1,2)"), "nets: (1, 2) is not a tuple in which each is a text"),
        ((NET, "--config.nets=('tanh-5','tanh-5')"), "nets: 'tanh-5' is there twice"),
        ((NET, "--config.nets=tanh-99999999"), "nets: 'tanh-99999999' is not an activation"),
        ((NET, "--config.learning_rate=inf"), "learning_rate: inf is not a number from 1e-30"),
        ((NET, "--config.cpu_devices=100000"), "cpu_devices: 100000 is not a whole number from 0"),
        ((ATTACK, "--config.baselines=None"), "baselines: (None,) is not a tuple in which each"),
        ((ATTACK, "--config.classes=('3',)"), "classes: ('3',) is not a tuple in which each is"),
        ((NET, "--config.epoch=3"), "the config has no key 'epoch'; did you mean 'epochs'?"),
        (
            ("--config=configs/noise.py:mlp", "--config.budget.images=3"),
            "no key 'budget.images'; it is pgd.images now",
        ),
        (
            ("--config=configs/masks.py:smoke", "--config.data.score=0.1"),
            "no key 'data.score'; it is data.test (what was data.test is data.val) now",
        ),
        (
            (NET, "--config.data.dri=x"),
            "the config has no key 'data.dri'; did you mean 'data.dir'?",
        ),
        (
            ("--config=configs/cnn.py:mnist,smoke", "--config.look_every=5"),
            "the config has no key 'look_every'; it is steps_per_dispatch now",
        ),
        ((NET, "--config.zzz=x"), "the config has no key 'zzz'; valid: batch_size"),
        ((NET, "--config.epochs=three"), "epochs: 'three' is not a whole number"),
        ((NET, "--config.epochs=0"), "epochs: 0 is not a whole number from 1"),
        ((NET, "--config.seeds=0"), "seeds: 0 is not a whole number from 1"),
        ((NET, "--config.experiment=deep"), "experiment: 'deep' is not one of classifiers, depth"),
        (
            (NET, "--config.data.dir=/nowhere"),
            "data.dir is '/nowhere', but data source 'synthetic'",
        ),
        ((NET, "--confgi=3"), "Unknown command line flag 'confgi'. Did you mean: config"),
        ((NET, "epochs=3"), "unexpected argument 'epochs=3'"),
        ((ATTACK, "--config.run=/nowhere"), "run: /nowhere is no run of 'cnn:mnist-best,smoke'"),
        ((NET, "--config.data.source=idx", "--config.data.dir=/nowhere"), "/nowhere"),
        ((NET, "--workdir=/dev/null/run"), "/dev/null/run: cannot be used"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_do(words, said, door):
    code, out, err = door(*words)
    (line,) = [line for line in err.splitlines() if not line.startswith("data: ")]
    assert code == 2 and line.startswith("error: ") and said in line
    assert out == ""


@MODULE_LOADER
def test_a_value_out_of_its_bounds_is_found_before_the_machine_is_touched(door, monkeypatch):
    monkeypatch.setattr(main.sharding, "configure", lambda **_: pytest.fail("devices set up"))
    for words in (("--config.cpu_devices=100000",), ("--config.epochs=0", "--dry_run")):
        assert door(NET, *words)[0] == 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def get_config():\n    return 1 / 0", "2: ZeroDivisionError: division by zero"),
        ("\ndef get_config():\n    return nothing", "3: NameError: name 'nothing' is not defined"),
        (
            "def get_config():\n    return get_config()",
            "2: RecursionError: maximum recursion depth",
        ),
        (
            "def get_config():\n    raise KeyboardInterrupt",
            "2: KeyboardInterrupt: KeyboardInterrupt",
        ),
        ("import sys\nsys.exit()", "2: SystemExit: SystemExit"),
        ("def get_config():\n    return int('x')", "2: ValueError: invalid literal for int()"),
        ("import nowhere", "1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config(:", "1: SyntaxError: invalid syntax"),
        ("x = 1", " there is no get_config; expected a function that returns a ConfigDict"),
        ("def get_config():\n    pass", " get_config returns None; expected a function"),
        (
            "from configs.mlp import *\nconfig = get_config()\ndel config.data.dir\n"
            "def get_config():\n    return config",
            " the config has no key 'data.dir', which a run of it needs",
        ),
    ],
)
def test_a_config_file_with_a_fault_is_one_line_with_the_line_of_the_file(
    code, said, door, tmp_path
):
    file = tmp_path / "mine.py"
    _ = file.write_text(code)
    exit_code, out, err = door(f"--config={file}")
    assert (exit_code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {file}:{said}")


@MODULE_LOADER
def test_a_name_in_a_message_forges_no_line_and_gives_a_terminal_no_order(door):
    name = "/dev/null/a\nerror b\x1b[2K"
    for words in ((NET, f"--workdir={name}"), (f"--config={name}",), (NET, f"--{name}=3")):
        code, out, err = door(*words)
        *_, line = lines = err.splitlines()
        assert len(lines) <= 2 and code in (1, 2) and out == ""
        assert line.isprintable() and r"b\x1b[2K" in line
    assert str(UserError(name)) == r"/dev/null/a\nerror b\x1b[2K"  # as every command prints it


def test_a_mistake_ends_the_process_with_a_line_and_no_trace():
    done = run(NET, "--config.epochs=0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: epochs: 0 is not a whole number from 1 to 1,000,000\n"


def test_a_variable_that_jax_cannot_read_is_one_line():
    done = run(NET, env={**os.environ, "JAX_ENABLE_X64": "maybe"})
    assert done.returncode == 2
    assert done.stderr == "error: invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'\n"


@pytest.mark.parametrize("command", [main, predict, report], ids=lambda module: module.__name__)
def test_started_as_a_script_it_says_how_to_start_it(command, tmp_path):
    done = subprocess.run(
        [sys.executable, command.__file__, NET], capture_output=True, text=True, cwd=tmp_path
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.endswith(f"as python -m {command.__name__}")


@MODULE_LOADER
def test_a_dry_run_prints_config_and_net_and_leaves_nothing(door, tmp_path):
    code, out, err = door(NET, f"--workdir={tmp_path / 'run'}", "--dry_run")
    assert code == 0, err
    assert '"batch_size": 64' in out and "29,674" in out
    assert list(tmp_path.iterdir()) == []


@MODULE_LOADER
@pytest.mark.parametrize("compiler", ["c++", "no-such-compiler"])
def test_a_run_says_whose_convolutions_it_has(compiler, door, tmp_path, monkeypatch):
    if compiler == "c++" and shutil.which(compiler) is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(main.native, "_in_use", False)
    monkeypatch.setenv("CXX", compiler)
    code, _, err = door(NET, f"--workdir={tmp_path / 'run'}", "--native_convolutions")
    assert code == 0
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    ours = compiler == "c++"
    assert ("convolutions are our own" in err, "convolutions are XLA's" in err) == (ours, not ours)
    assert ("--native_convolutions" in versions["environment"]) == ours


@MODULE_LOADER
def test_the_default_work_directory_tells_two_configs_apart_but_not_two_machines(monkeypatch):
    def directory(*words):
        monkeypatch.setattr(sys, "argv", ["main", *words])
        with flagsaver.flagsaver():
            _ = main.parse_flags(sys.argv)
            return str(main.default_workdir())

    words = ("--config.data.dir=../a/b", "--config.data.download=False", "--config.cpu_threads=2")
    assert directory("--config=configs/cnn.py:mnist", *words) == str(
        nets._places("cnn:mnist", "")[0]
    )
    assert directory(NET, "--config.seeds=5", "--config.nets=('relu-5',)", *words) == (
        "runs/mlp/tanh-5-smoke,nets=_relu-5_,seeds=5"
    )
    words = ("--config.mode=evaluate", "--config.data.source=sample")
    assert directory("--config=configs/cnn.py:mnist", "--config.seeds=5", *words) == (
        "runs/cnn/mnist,seeds=5"  # where the same command trained
    )


def final_state(workdir):
    newest = max(int(path.name) for path in workdir.glob("checkpoints/[0-9]*"))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        digest = ocp.args.Composite(digest=ocp.args.JsonRestore())
        found = reader.restore(workdir / "checkpoints" / str(newest), args=digest)["digest"][
            "state"
        ]
    assert len(found) == 13  # six layers of kernel and bias, and the step
    return newest, found


def outcome(workdir):
    """Everything that has to come out the same: digests of the state, metrics, gradients."""
    clocks = {"seconds", "step_ms"}
    rows = [
        {k: v for k, v in row.items() if k not in clocks} for row in run_directory.rows(workdir)
    ]
    return final_state(workdir), rows, run_directory.gradients(workdir)


LONG = (NET, "--config.epochs=24", "--config.seeds=2")  # two seconds in which it can be met


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """A run that is never interrupted, and its directory."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = run(*LONG, f"--workdir={workdir}", cache)
    assert done.returncode == 0, done.stderr
    return done, workdir


@pytest.fixture(scope="module")
def uninterrupted(whole):
    return outcome(whole[1])


def test_a_run_prints_its_summary_and_last_its_headline_and_directory(whole):
    done, workdir = whole
    summary = json.loads(done.stdout)
    assert summary == run_directory.read_json(workdir / "summary.json")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("data: SYNTHETIC DIGITS")
    assert lines[-1] == f"{summary['headline']}; results in {workdir}"
    assert len([line for line in lines if "tanh-5 epoch" in line]) == 24


def start(workdir, cache):
    return subprocess.Popen(
        [*RUN, *LONG, f"--workdir={workdir}", cache],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(process, reached):
    while process.poll() is None and not reached():
        time.sleep(0.005)


def wait_for_epoch(workdir, epoch, process):
    wait_until(process, lambda: len(run_directory.rows(workdir)) >= epoch)


def test_killed_at_random_moments_it_ends_bit_identical_to_a_run_never_interrupted(
    uninterrupted, cache, tmp_path
):
    """Before the first epoch, between epochs, while figures are drawn; and nobody reads its end."""
    workdir, seed = tmp_path / "run", random.randrange(1000)
    moments, killed = random.Random(seed), 0
    for epochs in (0, 4, None):
        process = start(workdir, cache)
        if epochs is None:
            wait_until(process, (workdir / "figures").exists)
        elif epochs:
            wait_for_epoch(workdir, epochs, process)
        time.sleep(moments.random() * (3 if epochs == 0 else 0.1))
        process.kill()
        _ = process.communicate()
        killed += process.returncode == -signal.SIGKILL
    reader, writer = os.pipe()
    os.close(reader)
    words = (*RUN, *LONG, f"--workdir={workdir}", cache)
    assert subprocess.run(words, stdout=writer, stderr=writer).returncode == 0
    os.close(writer)
    assert killed >= 2, f"moments of seed {seed}"
    chex.assert_trees_all_equal(outcome(workdir), uninterrupted, custom_message=f"seed {seed}")


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_after_a_full_disk_a_signal_and_a_flipped_bit_the_same_command_ends_the_same(
    signum, code, uninterrupted, cache, tmp_path
):
    """A line each; the signal saves before it, and the damaged state falls back to one before."""
    workdir = tmp_path / "run"
    small = ["bash", "-c", 'ulimit -f 48; exec "$@"', "bash"]  # KiB of a file; a state has more
    command = [*small, *RUN, *LONG, f"--workdir={workdir}", cache]
    full = subprocess.run(command, capture_output=True, text=True, timeout=300)
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert full.returncode == 2 and line.startswith("error: cannot write a checkpoint to ")
    assert "Traceback" not in full.stderr

    process = start(workdir, cache)
    wait_for_epoch(workdir, 4, process)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert f"the same command goes on from {workdir}" in said.splitlines()[-1]
    epoch, _ = final_state(workdir)
    assert epoch == len(run_directory.rows(workdir)) >= 4

    files = (workdir / "checkpoints" / str(epoch)).rglob("d/*")
    path = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    _ = path.write_bytes(content)
    done = run(*LONG, f"--workdir={workdir}", cache)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint {epoch} in" in done.stderr and "is damaged" in done.stderr
    assert f"going on after epoch {epoch - 1}" in done.stderr
    chex.assert_trees_all_equal(outcome(workdir), uninterrupted)


@MODULE_LOADER
def test_a_second_start_is_refused_while_another_has_the_directory(door, tmp_path):
    """And of two processes: `storage/test_run_directory.py`."""
    with run_directory.locked(tmp_path / "run"):
        code, out, err = door(*LONG, f"--workdir={tmp_path / 'run'}")
    assert (code, out) == (2, "") and f"is in use by process {os.getpid()} on" in err


@MODULE_LOADER
def test_another_config_is_refused_by_the_key_that_differs(whole, door):
    code, out, err = door(*LONG, "--config.learning_rate=0.5", f"--workdir={whole[1]}")
    assert (code, out) == (2, "") and "learning_rate: begun with 0.01, asked for 0.5" in err


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (maps.get_config("tanh"), (72, 0)),  # 24 values of the axis, 3 seeds: one depth
        (mlp.get_config("tanh-5"), (1, 0)),
        (noise.get_config("mnist"), (1, 0)),
    ],
    ids=("map", "depth", "noise"),
)
def test_what_is_independent_is_dealt_out_to_the_devices(config, expected, monkeypatch, tmp_path):
    asked = []

    def configure(**settings):
        asked.append((settings["seeds"], settings["data_devices"]))
        raise UserError("enough")

    monkeypatch.setattr(main.sharding, "configure", configure)
    monkeypatch.setattr(main.preemption, "install", lambda again: None)
    assert main.run_experiment(config, tmp_path, dry_run=True, cache="") == 2
    assert asked == [expected]


def test_every_experiment_can_be_run_and_described():
    known = {"classifiers", "depth", "map", "masks", "noise", "spectrum"}
    assert set(main.EXPERIMENTS) == known
    for name in main.EXPERIMENTS.values():
        experiment = importlib.import_module(name)
        assert callable(experiment.run) and callable(experiment.describe)


def test_the_door_imports_neither_tensorflow_nor_torch():
    code = (
        "import sys, research.main\n"
        "import research.experiments.classifiers, research.experiments.depth\n"
        "import research.experiments.noise.study\n"
        "assert not {'tensorflow', 'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # as training/test_fit.py has it for eight devices
def test_seeds_shared_by_two_devices_end_as_on_one(uninterrupted, cache, tmp_path):
    workdir = tmp_path / "run"
    done = run(*LONG, "--config.cpu_devices=1", f"--workdir={workdir}", cache)
    assert done.returncode == 0, done.stderr
    chex.assert_trees_all_equal(outcome(workdir), uninterrupted)
    assert np.load(workdir / "gradients.npz")["kernel_abs_max"].shape == (25, 2, 6)


# One device each, and no batch shared: its sums would be others.
APART = ("--config.cpu_devices=1", "--config.data_devices=1")
TOGETHER = ("-m", "research.main", *LONG, *APART)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_end_as_one_and_only_the_first_speaks(
    count, uninterrupted, cache, tmp_path
):
    workdir = tmp_path / "run"
    words = (*TOGETHER, f"--workdir={workdir}", cache)
    first, *others = several.run(count, words, seconds=300)
    assert {each.code for each in (first, *others)} == {0}, first.err
    assert json.loads(first.out) == run_directory.read_json(workdir / "summary.json")
    assert first.err.splitlines()[-1].endswith(f"results in {workdir}")
    for other in others:
        assert other.out == "" and "epoch" not in other.err and "error" not in other.err
    chex.assert_trees_all_equal(outcome(workdir), uninterrupted)


@pytest.mark.parametrize(("dead", "count"), [(0, 1), (1, 4)])
@pytest.mark.slow
def test_one_of_several_is_killed_and_another_number_of_processes_goes_on(
    dead, count, uninterrupted, cache, tmp_path
):
    workdir = tmp_path / "run"
    words = (*TOGETHER, f"--workdir={workdir}", cache)
    with several.Several(2, words) as begun:
        begun.wait_until(lambda: len(run_directory.rows(workdir)) >= 5)
        begun.send(dead)
        sent = begun.seconds()
        ended = begun.finish()
    assert ended[dead].code == -signal.SIGKILL
    survivor = ended[1 - dead]
    # 75 as a rule; JAX's SIGABRT where it hears of it first.
    assert survivor.code in (75, -signal.SIGABRT), survivor.err
    assert survivor.seconds - sent < distributed.HEARTBEAT + distributed.GRACE + 10
    if survivor.code == 75:
        assert survivor.err.splitlines()[-1] == (
            "another process has died or cannot be reached; "
            f"the same command goes on from {workdir}"
        )
    again = several.run(count, words)
    assert {each.code for each in again} == {0}, again[0].err
    assert "going on after epoch" in again[0].err
    chex.assert_trees_all_equal(outcome(workdir), uninterrupted)


@pytest.mark.slow
def test_a_signal_to_one_of_several_saves_and_another_number_goes_on(
    uninterrupted, cache, tmp_path
):
    workdir = tmp_path / "run"
    words = (*TOGETHER, f"--workdir={workdir}", cache)
    with several.Several(2, words) as begun:
        begun.wait_until(lambda: len(run_directory.rows(workdir)) >= 3)
        begun.send(1, signal.SIGTERM)
        one, two = begun.finish()
    assert one.code == two.code == 143, one.err + two.err
    for each in (one, two):
        last = each.err.splitlines()[-1]
        assert last == f"stopped by SIGTERM; the same command goes on from {workdir}"
    assert final_state(workdir)[0] == len(run_directory.rows(workdir)) >= 3
    again = run(*LONG, *APART, f"--workdir={workdir}", cache)
    assert again.returncode == 0, again.stderr
    chex.assert_trees_all_equal(outcome(workdir), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_attack_as_one_does(count, cache, tmp_path):
    """Against a net that one process has trained, for theirs would differ in its last bits."""
    config = "--config=configs/noise.py:mnist,smoke"
    few = ("--config.images=3", "--config.pgd.images=0", "--config.data.source=sample")
    net = run("--config=configs/cnn.py:mnist-best,smoke", f"--workdir={tmp_path / 'net'}", cache)
    assert net.returncode == 0, net.stderr
    words = (config, *few, f"--config.run={tmp_path / 'net'}", cache)
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run(*words, f"--workdir={alone}").returncode == 0
    ended = several.run(
        count, ("-m", "research.main", *words, f"--workdir={together}"), seconds=300
    )
    assert {each.code for each in ended} == {0}, ended[0].err
    pictures = sorted(path.relative_to(alone) for path in alone.glob("c*/*.png"))
    assert len(pictures) == 33
    for name in ("cells.jsonl", *pictures):
        assert (together / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.slow
def test_a_mistake_ends_every_process_with_its_own_exit_code(tmp_path):
    words = ("-m", "research.main", NET, "--config.epochs=0", f"--workdir={tmp_path / 'run'}")
    one, two = several.run(2, words)
    assert one.code == two.code == 2
    for each in (one, two):
        assert (
            each.err.splitlines()[-1]
            == "error: epochs: 0 is not a whole number from 1 to 1,000,000"
        )


@pytest.mark.slow
def test_a_work_directory_that_not_every_process_sees_is_refused(cache, tmp_path):
    def words(number):
        return ("-m", "research.main", NET, f"--workdir={tmp_path / str(number) / 'run'}", cache)

    one, two = several.run(2, words)
    assert one.code == two.code == 2, one.err + two.err
    (line,) = [line for line in one.err.splitlines() if line.startswith("error: ")]
    assert "is not the same directory for process 1 of 2 (from 0) and the first one" in line
    assert not list(tmp_path.rglob("*.shared"))


def test_only_late_failures_of_a_checkpoint_are_kept_back(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: seen.append(str(error.exc_value)))
    main._silence_orbax()

    class Raises:
        def __init__(self, words):
            self.words = words

        def __del__(self):
            raise RuntimeError(self.words)

    for words in ("Event loop is closed", "another"):
        _ = Raises(words)
        del _
    assert seen == ["another"]
