"""The faces that a config asks for, and their summary."""

import json
import os
import shutil

import pytest
from PIL import Image

from configs import masks as configs
from research.experiments.masks import faces
from research.faces import detectors, drawing
from research.structs import UserError


def config_of(**changes):
    config = configs.get_config("vgg")
    config.detector = changes.pop("detector", "mtcnn")
    config.data.update(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "data: name a directory with --config.data.dir="),
        ({"drawn": 3}, "data.drawn: 3 is below 12"),
        ({"voc": "here", "drawn": 12}, "data.drawn: 12 drawn photographs, and data.voc as well"),
        ({"json": "/nowhere/at/all"}, "data.json: /nowhere/at/all is no directory"),
        ({"dir": "/nowhere/at/all"}, "data.dir: /nowhere/at/all is no directory"),
        ({"dir": "here", "voc": "there"}, "data.dir: here, and data.voc as well; expected one of"),
        ({"dir": "here", "drawn": 12}, "12 drawn photographs, and data.dir as well"),
        ({"drawn": 12, "exif": "yes"}, "data.exif: 'yes' is not one of displayed, stored"),
        ({"drawn": 12, "labels": "dog"}, "data.labels: 'dog' is not LABEL=CLASS with one of with_"),
        ({"drawn": 12, "labels": "dog=cat"}, "data.labels: 'dog=cat' is not LABEL=CLASS"),
        ({"drawn": 12, "detector": "x"}, "detector: 'x' is not one of mtcnn, mtcnn-1.0, centerf"),
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


def test_a_directory_is_searched_and_problems_are_told_by_kinds(voc, tmp_path, capsys):
    shutil.rmtree(voc.parent / "folders")
    for number in range(3):
        (voc / "annotations" / f"{number}.xml").write_text("<annotation>")
    one = voc / "annotations" / sorted(os.listdir(voc / "annotations"))[3]
    one.write_text(one.read_text().replace("with_mask<", "face_nask<"))
    count = one.read_text().count("face_nask")
    masks = faces.load(small("", tmp_path, dir=str(voc.parent)), tmp_path)
    assert str(tmp_path) not in json.dumps(faces.describe_data(masks))
    told = capsys.readouterr().err
    assert f"data.dir: found data.voc in {voc}\n" in told and "found data.json in" in told
    kind = "no XML that can be read (no element found: line ..., column ...)"
    assert f"  3 of: {kind}; first {voc}/annotations/0.xml\n" in told
    assert (
        f"labels unknown: {count} 'face_nask'; say what they mean with --config.data.labels" in told
    )
    config = small("", tmp_path, dir=str(voc.parent), labels="face_nask=with_mask")
    _ = faces.load(config, tmp_path)
    assert "labels unknown" not in capsys.readouterr().err


def test_pictures_that_seem_to_be_faces_are_proposed_to_be_taken_whole(tmp_path, capsys):
    for number in range(8):
        folder = tmp_path / "data" / ("mask", "no mask")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (30 * number, 0, 0)).save(folder / f"{number}.png")
    settings = {"val": 2, "test": 0, "dir": str(tmp_path / "data")}
    masks = faces.load(small("", tmp_path, whole=True, **settings), tmp_path)
    assert sum(len(split.data.labels) for split in masks.splits.values()) == 8
    assert "take" not in capsys.readouterr().err
    about = {**masks.about, "filling": 5}
    (line,) = [line for line in faces.summary_lines(masks._replace(about=about)) if "fill" in line]
    assert "--config.data.whole=True" in line


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


def test_a_detector_without_its_weights_is_left_out_with_a_line(monkeypatch, capsys):
    def missing(min_face_px):
        raise UserError(f"no weights for {min_face_px:g} pixels")

    kinds = detectors.KINDS | {"centerface": detectors.Kind(missing, {})}
    monkeypatch.setattr(detectors, "KINDS", kinds)
    assert {*faces.finders(config_of(drawn=12))} == kinds.keys() - {"centerface"}
    assert "end to end without centerface: no weights for 20 pixels" in capsys.readouterr().err
