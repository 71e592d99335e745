"""The faces that a config asks for, and their summary."""

import pytest

from configs import masks as configs
from research.experiments.masks import faces
from research.faces import drawing
from research.structs import UserError


def config_of(**changes):
    config = configs.get_config("vgg")
    config.data.update(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "data: name at least one directory: --config.data.voc="),
        ({"drawn": 3}, "data.drawn: 3 is below 12"),
        ({"voc": "here", "drawn": 12}, "data.drawn: 12 drawn photographs, and data.voc as well"),
        ({"json": "/nowhere/at/all"}, "data.json: /nowhere/at/all is no directory"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key(changes, message):
    with pytest.raises(UserError, match=message):
        faces.check(config_of(**changes))


@pytest.fixture
def voc(tmp_path):
    _ = drawing.write(tmp_path / "corpus", photos=12, seed=1)
    return tmp_path / "corpus" / "voc"


def small(voc, tmp_path, **changes):
    settings = {"voc": str(voc), "tfds_dir": str(tmp_path / "tfds"), "size": 16, "val": 0.3}
    return config_of(**(settings | changes))


def test_photographs_of_the_users_are_never_called_drawn(voc, tmp_path):
    found = faces.load(small(voc, tmp_path), tmp_path)
    told = faces.caption(found)
    counts = drawing.contents(12)["voc"]
    total = counts["with_mask"] + counts["without_mask"]
    assert told.startswith(f"Face masks, {total} faces (voc): ")
    assert str(tmp_path) not in told


def test_one_problem_is_an_error_if_the_config_is_strict(voc, tmp_path, capsys):
    (voc / "annotations" / "zz.xml").write_text("<annotation>")
    config = small(voc, tmp_path)
    _ = faces.load(config, tmp_path)
    assert "1 problem in the files of the data" in capsys.readouterr().err
    config.strict = True
    with pytest.raises(UserError, match=r"strict: 1 problem in the files; .*problems\.csv names"):
        _ = faces.load(config, tmp_path)


def test_a_single_class_cannot_be_learned(voc, tmp_path):
    for path in (voc / "annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("without_mask", "with_mask"))
    with pytest.raises(UserError, match="all faces are with_mask; two classes are needed"):
        _ = faces.load(small(voc, tmp_path), tmp_path)


def test_the_photographs_are_drawn_once(tmp_path, capsys):
    faces._draw(tmp_path / "corpus", 12)
    faces._draw(tmp_path / "corpus", 12)
    assert capsys.readouterr().err.count("drawing 12 photographs") == 1
    faces._draw(tmp_path / "corpus", 13)
    assert "drawing 13" in capsys.readouterr().err
    (tmp_path / "corpus/drawn.json").write_bytes(b"\xff")
    faces._draw(tmp_path / "corpus", 13)
    assert "drawing 13" in capsys.readouterr().err
