"""The door for a person with a photograph."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_masks as tiny
from PIL import Image

from research import predict
from research.faces import drawing
from research.faces.mtcnn_weights import find as find_weights
from research.storage import records, run_directory
from research.structs import UserError

RUN = (sys.executable, "-m", "research.predict")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "vgg"
    _ = tiny.write(run / "export")
    return run


@pytest.fixture(autouse=True)
def fresh():
    """A process parses its flags once."""
    predict._FLAGS.unparse_flags()


def mistake(capsys, *words):
    """The error line and the exit code."""
    try:
        code = predict.main(["predict", *map(str, words)])
    except SystemExit as ended:
        code = ended.code
    out, stderr = capsys.readouterr()
    assert out == ""
    return stderr.rstrip("\n"), code


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (("a.png",), "no --run given"),
        (("--run=r",), "no photograph given; name files or folders after the flags"),
        (("--runn=r", "a.png"), "Unknown command line flag 'runn'. Did you mean: run"),
        (("a.png", "--run=r", "--min_face_px=ten"), "could not convert string to float: 'ten'"),
        (("--run=r", "--figures=perhaps", "a.png"), "'perhaps'"),
        (("--run=r", "--out=", "a.png"), "--out: empty; give it a value"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line(words, stderr, capsys):
    line, code = mistake(capsys, *words)
    assert line.startswith("error: ") and stderr in line and "\n" not in line
    assert code == 2


@pytest.fixture
def quiet(monkeypatch):
    """What belongs to the whole process is left alone."""
    monkeypatch.setattr(predict.preemption, "install", lambda left: None)
    monkeypatch.setattr(predict.sharding, "configure", lambda **settings: None)
    monkeypatch.setattr(predict.sharding, "cache_programs", lambda directory: None)


def test_without_a_trained_net_the_error_names_the_training_command(
    tmp_path, quiet, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    line, code = mistake(capsys, "--run=runs/masks/vgg", "a.png")
    assert code == 2 and line == (
        "error: runs/masks/vgg: holds no trained net; train one: python -m research.main "
        "--config=configs/masks.py:best --config.data.voc=DIR"
    )
    (tmp_path / "runs/masks/vgg").mkdir(parents=True)
    (tmp_path / "runs/masks/vgg/config.json").write_text("{}")
    line, _ = mistake(capsys, "--run=runs/masks/vgg", "a.png")
    assert "has not ended" in line and "the command that began it once more" in line
    (tmp_path / "runs/masks/best/export").mkdir(parents=True)
    (tmp_path / "runs/masks/best/export/model.safetensors").touch()
    for words in (("--run=elsewhere", "a.png"), ("a.png",)):
        assert "(there is runs/masks/best)" in mistake(capsys, *words)[0]
    assert not (tmp_path / "annotated").exists()


def test_a_run_is_named_by_its_directory_or_by_its_export(trained):
    assert predict.find_export(trained) == predict.find_export(trained / "export")
    with pytest.raises(UserError, match="holds no trained net"):
        _ = predict.find_export(trained.parent)


@pytest.fixture
def asked(monkeypatch, quiet):
    """What the work is asked for; it finds nothing that can be read, or three photographs."""
    passed = {"photographs": 0}

    def run(exported, given, out, **settings):
        passed.update(labels=exported.labels, given=given, out=out, **settings)
        return {"photographs": passed["photographs"], "headline": "so many faces"}

    monkeypatch.setattr(predict.annotate, "run", run)
    return passed


def test_flags_are_passed_on_and_the_exit_code_is_2_if_nothing_was_read(trained, asked, capsys):
    assert predict.main(["predict", "a.png", f"--run={trained}", "b"]) == 2
    assert (asked["given"], asked["out"]) == (["a.png", "b"], Path("annotated"))
    assert (asked["min_face_px"], asked["panels"]) == (20.0, False)
    assert asked["detector"] == "centerface"
    assert asked["labels"] == tiny.LABELS
    asked["photographs"] = 3
    words = ("--out=o", "--min_face_px=40", "--figures", "--detector=mtcnn")
    words += (f"--run={trained}/export", "a.png")
    _ = capsys.readouterr()
    assert predict.main(["predict", *words]) == 0
    assert (asked["out"], asked["min_face_px"], asked["panels"]) == (Path("o"), 40.0, True)
    assert asked["detector"] == "mtcnn"
    out, stderr = capsys.readouterr()
    assert json.loads(out) == {"photographs": 3, "headline": "so many faces"}
    assert stderr == "so many faces; results in o\n"


def test_a_leading_tilde_is_the_home(trained, asked, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(trained.parent))
    assert predict.main(["predict", f"--run=~/{trained.name}", "--out=~/o", "a.png"]) == 2
    assert asked["out"] == trained.parent / "o"
    _ = capsys.readouterr()
    assert "gs://bucket" in mistake(capsys, f"--run={trained}", "--out=gs://bucket/o", "a.png")[0]


def test_a_config_of_another_experiment_is_refused(tmp_path, asked, capsys):
    _ = tiny.write(tmp_path / "export", matmul_precision="highest")
    (tmp_path / "export/config.json").write_text("{}")
    sums = records.read_digests(tmp_path / "export", remedy="")
    records.write_digests(tmp_path / "export", records.digests(tmp_path / "export", sums))
    line, code = mistake(capsys, f"--run={tmp_path}", "a.png")
    assert code == 2 and "its config is none of configs/masks.py (KeyError('data'))" in line


def test_help_is_about_this_command_alone(capsys):
    with pytest.raises(SystemExit) as ended:
        _ = predict.main(["predict", "--help"])
    assert ended.value.code == 0
    out, _ = capsys.readouterr()
    assert "python -m research.predict --run=" in out and "--[no]figures" in out
    assert "--flagfile" not in out and "--config=" not in out and "--verbosity" not in out


def test_a_photograph_is_marked_from_end_to_end(trained, tmp_path):
    try:
        _ = find_weights()
    except UserError as error:
        pytest.skip(str(error))
    drawing.write(tmp_path / "drawn", photos=drawing.FEWEST, seed=0)
    photo = sorted((tmp_path / "drawn/folders/train/without_mask").iterdir())[0]
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:50])
    words = (f"--run={trained}", f"--out={tmp_path}/out", "--figures", "--compilation_cache=")
    words += ("--detector=mtcnn",)
    done = subprocess.run(
        [*RUN, *words, str(photo), str(tmp_path / "cut.png")],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == run_directory.read_json(tmp_path / "out/summary.json")
    assert (summary["photographs"], summary["faces"], len(summary["unreadable"])) == (1, 1, 1)
    (row,) = map(json.loads, (tmp_path / "out/faces.jsonl").read_text().splitlines())
    with Image.open(tmp_path / "out" / row["annotated"]) as copy, Image.open(photo) as original:
        assert copy.size == original.size
    assert (tmp_path / "out" / f"{photo.stem}-panels.png").exists()
    # How far it is is said where that takes long.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("marking faces: ")]
    assert len(lines) == 4 and lines[-1].endswith(f"; results in {tmp_path}/out")
