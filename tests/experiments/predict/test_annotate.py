"""Photographs in, marked copies and lines out, by a detector and a net of known outputs."""

import json

import numpy as np
import pytest
import tiny_masks as tiny
from PIL import Image

from research.data.image_files import read_photograph
from research.experiments.predict import annotate
from research.faces.annotations import Box
from research.runtime import preemption
from research.storage import export, run_directory
from research.structs import UserError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "export"
    _ = tiny.write(folder)
    return export.load(folder)


@pytest.fixture(scope="module")
def classifier(exported):
    return annotate.make_classifier(exported)


@pytest.fixture
def here(tmp_path, monkeypatch, classifier):
    """An empty folder to work in; the net is compiled once for all tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(annotate, "make_classifier", lambda exported: classifier)
    return tmp_path


def save(path, picture, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **settings)


def about(path):
    with Image.open(path) as image:
        return image.format, image.size, dict(image.getexif())


def run(exported, *given, out="out", find_faces=tiny.find_squares, **settings):
    return annotate.run(
        exported,
        list(map(str, given)),
        annotate.Path(out),
        min_face_px=20,
        detector="mtcnn",  # not asked: find_faces is
        find_faces=find_faces,
        **settings,
    )


def lines(out="out"):
    with open(f"{out}/faces.jsonl") as file:
        return [json.loads(line) for line in file]


def test_every_face_has_its_box_its_class_and_its_line(here, exported, capsys):
    save(here / "one.png", tiny.draw(True))
    save(here / "some/three.jpg", tiny.draw(False, True, False), quality=95)
    save(here / "some/none.png", tiny.draw())
    summary = run(exported, "one.png", "some")
    assert [line["photo"] for line in lines()] == ["one.png", *["some/three.jpg"] * 3]
    first = lines()[0]
    p = 1 / (1 + np.exp([-2, 2]))  # of a face that is all 1, logits 2 and -2
    assert first["box"] == [10, 20, 34, 44] and first["class"] == "with_mask"
    assert first["probabilities"] == pytest.approx(dict(zip(tiny.LABELS, p / p.sum(), strict=True)))
    assert first["score"] == 1.0 and first["annotated"] == "one.png"
    assert [line["class"] for line in lines()[1:]] == [
        *("without_mask", "with_mask", "without_mask")
    ]
    assert lines()[3]["score"] == pytest.approx(0.9)
    written = run_directory.read_json(here / "out/summary.json")
    assert written == summary
    assert summary["classes"] == {"with_mask": 2, "without_mask": 2}
    assert (summary["photographs"], summary["faces"], summary["without_faces"]) == (3, 4, 1)
    assert (summary["net"], summary["min_face_px"], summary["unreadable"]) == ("smoke", 20, [])
    assert summary["headline"] == "4 faces (2 with_mask, 2 without_mask) in 3 photographs"
    assert summary["origin"]["data"] == tiny.ORIGIN["data"]
    lines_shown = capsys.readouterr().err.splitlines()[1:]
    assert lines_shown == [
        "1/3 one.png: 1 face: with_mask 88%",
        "2/3 some/none.png: no face found",
        "3/3 some/three.jpg: 3 faces: without_mask 88%, with_mask 88%, without_mask 88%",
    ]


def test_a_third_class_has_its_name_and_a_colour_of_its_own(tmp_path, monkeypatch):
    """White squares are with a mask; of dark ones the third class is the most likely."""
    monkeypatch.chdir(tmp_path)
    config, _ = tiny.make_config()
    params = tiny.make_params()
    params["output"] = {
        "kernel": np.pad(params["output"]["kernel"], ((0, 0), (0, 1))),
        "bias": np.append(params["output"]["bias"], np.float32(9)) - np.float32([0, 0, 8]),
    }
    params["output"]["bias"][1] = 0
    labels = (*tiny.LABELS, "incorrect")
    save(tmp_path / "two.png", tiny.draw(True, False, height=120))
    summary = run(export.Exported(params, config, labels, tiny.ORIGIN), "two.png")
    assert [line["class"] for line in lines()] == ["with_mask", "incorrect"]
    assert [*lines()[1]["probabilities"]] == [*labels]
    assert summary["classes"] == {"with_mask": 1, "without_mask": 0, "incorrect": 1}
    first, third = (read_photograph("out/two.png")[21:43, x : x + 24] for x in (10, 50))
    green = np.array([0x00, 0x9E, 0x73])
    assert (third == green).all(axis=2).any() and not (first == green).all(axis=2).any()


def test_copies_differ_at_the_boxes_only_and_the_photographs_not_at_all(here, exported):
    save(here / "a.png", tiny.draw(True, height=90))
    save(here / "b.jpg", tiny.draw(), quality=90)
    before = {name: (here / name).read_bytes() for name in ("a.png", "b.jpg")}
    _ = run(exported, "a.png", "b.jpg")
    assert all((here / name).read_bytes() == content for name, content in before.items())
    changed = np.flatnonzero(
        (read_photograph("out/a.png") != read_photograph("a.png")).any(axis=(0, 2))
    )
    assert len(changed) and (read_photograph("out/a.png")[80:] == tiny.GREY).all()
    assert about("out/b.jpg")[0] == "JPEG"
    difference = read_photograph("out/b.jpg").astype(int) - read_photograph("b.jpg")
    assert np.abs(difference).max() <= 2
    assert not list((here / "out").rglob("*-panels.png"))


def test_figures_are_drawn_when_asked_for_whatever_the_photograph_is_called(here, exported):
    save(here / "a $\\frac{b$ 漢.png", tiny.draw(True, False))
    _ = run(exported, ".", panels=True, out="marked")
    (figure,) = here.glob("marked/*/*-panels.png")
    _, (width, height), _ = about(figure)
    assert width > 600 and height > 200


def test_in_the_figure_a_large_photograph_is_small_and_its_boxes_with_it():
    image = np.zeros((1200, 1600, 3), np.uint8)
    image[100:200, 400:800] = 255
    small, boxes = annotate._shrunk(image, np.array([[400, 100, 800, 200]]))
    assert small.shape == (600, 800, 3)
    assert boxes.tolist() == [[200, 50, 400, 100]]
    assert (small[52:98, 202:398] == 255).all() and not small[:48].any() and not small[102:].any()
    thin, none = annotate._shrunk(np.zeros((1, 5000, 3), np.uint8), np.zeros((0, 4)))
    assert thin.shape == (1, 800, 3) and none.shape == (0, 4)
    same, boxes = annotate._shrunk(image[:9, :9], np.array([[0, 1, 3, 7]]))
    assert same.shape == (9, 9, 3) and boxes.tolist() == [[0, 1, 3, 7]]


def test_a_photograph_is_annotated_upright_and_its_copy_has_no_metadata(here, exported):
    entries = Image.Exif()
    entries[0x0112], entries[0x0110] = 6, "a camera"
    lying = np.rot90(tiny.draw(True, False))  # anticlockwise; displayed turned by 90 degrees
    save(here / "turned.jpg", lying, exif=entries, quality=95)
    _ = run(exported, "turned.jpg")
    boxes = np.array([line["box"] for line in lines()])
    np.testing.assert_allclose(boxes, [(10, 20, 34, 44), (50, 20, 74, 44)], atol=1)
    assert about("out/turned.jpg") == ("JPEG", (100, 60), {})


def test_predictions_do_not_depend_on_the_format_of_the_file(here, exported):
    picture = tiny.draw(False)
    deep = Image.fromarray(picture[..., 0].astype(np.uint16) * 256 + 7)
    deep.save(here / "deep.png")
    save(here / "plain.webp", picture, lossless=True)
    save(here / "plain.bmp", picture)
    _ = run(exported, "deep.png", "plain.webp", "plain.bmp")
    assert [line["annotated"] for line in lines()] == [
        *("deep.png", "plain.webp.png", "plain.bmp.png")
    ]
    assert len({json.dumps([line["box"], line["probabilities"]]) for line in lines()}) == 1
    assert {about(f"out/{line['annotated']}")[0] for line in lines()} == {"PNG"}


def test_unreadable_files_are_one_line_each_and_counted(here, exported, capsys):
    save(here / "good.png", tiny.draw(True))
    (here / "text.png").write_text("no picture")
    (here / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (here / "empty").mkdir()
    summary = run(exported, "text.png", "gone.jpg", "good.png", "cut.jpg", "empty")
    assert (summary["photographs"], summary["faces"]) == (1, 1)
    assert sorted(entry["file"] for entry in summary["unreadable"]) == [
        *("cut.jpg", "empty", "gone.jpg", "text.png")
    ]
    lines_shown = capsys.readouterr().err.splitlines()
    assert lines_shown[1].startswith("empty: holds no picture (.png, .jpg")
    assert (
        lines_shown[2].startswith("1/4 text.png: starts with b'no pictu'") and len(lines_shown) == 6
    )
    assert lines_shown[3] == (
        "2/4 gone.jpg: cannot be read (No such file or directory); expected a PNG, JPEG, WebP, BMP "
        "or GIF picture; left out"
    )
    assert summary["headline"].endswith("in 1 photograph, 4 could not be read")


def test_many_faces_and_thumbnails_take_two_programs(here, exported, classifier):
    save(here / "crowd.png", tiny.draw(*[i % 3 == 0 for i in range(37)]))
    save(here / "thumbnail.png", np.full((1, 1, 3), tiny.GREY, np.uint8))
    save(here / "few.png", tiny.draw(*[True] * 6))
    summary = run(exported, ".")
    assert summary["classes"] == {"with_mask": 13 + 6, "without_mask": 24}
    assert [line["class"] == "with_mask" for line in lines()[:37]] == [
        i % 3 == 0 for i in range(37)
    ]
    assert classifier.program._cache_size() <= 2


@pytest.mark.parametrize("count", [0, 1, 4, 5, 16, 17, 32, 33, 70])
def test_padding_of_batches_changes_no_probability(classifier, count):
    grey = np.arange(count, dtype=np.uint8)
    faces = np.broadcast_to(grey[:, None, None, None], (count, tiny.SIZE, tiny.SIZE, 3))
    z = 4 * (grey[:, None] / 255 - 0.5) * np.array([[1, -1]])
    p = 1 / (1 + np.exp(-z))
    expected = p / p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier(list(faces)), expected, rtol=1e-4)


def test_the_face_is_cut_as_in_training(classifier):
    """With a margin the net sees the grey around the square as well."""
    predictions = [
        annotate.predict_faces(
            [tiny.draw(True)], tiny.find_squares, classifier._replace(margin=margin)
        )
        for margin in (0.0, 0.25)
    ]
    inside, wide = (each[0].probabilities[0, 0] for each in predictions)
    assert inside > wide + 0.05


def test_a_face_that_is_small_or_cut_off_is_warned_of(here, exported, classifier, monkeypatch):
    image = np.zeros((50, 60, 3), np.uint8)
    assert annotate.face_warnings(Box(1, 1, 13, 40), image, 12) == []
    assert annotate.face_warnings(Box(1, 1, 12, 40), image, 12) == [
        "11 pixels on the shorter side, below the 12 of the training"
    ]
    for box in (Box(0, 1, 20, 20), Box(1, 0, 20, 20), Box(1, 1, 60, 20), Box(1, 1, 20, 50)):
        (warning,) = annotate.face_warnings(box, image, 12)
        assert warning.startswith("reaches the edge")
    small = classifier._replace(min_side=25)
    monkeypatch.setattr(annotate, "make_classifier", lambda exported: small)
    save(here / "a.png", tiny.draw(True))
    assert run(exported, "a.png")["with_warnings"] == 1
    assert lines()[0]["warnings"] == ["24 pixels on the shorter side, below the 25 of the training"]


def test_large_photographs_are_alone_in_memory_and_small_ones_together(here, exported, monkeypatch):
    sizes = {"a.png": 30, "b.png": 30, "c.png": 400, "d.png": 30, "e.png": 70}
    for name, height in sizes.items():
        save(here / name, tiny.draw(True, height=height + 20))
    monkeypatch.setattr(annotate, "_AT_ONCE_PX", 60 * 160)
    groups = []

    def find_faces(images):
        groups.append([len(image) - 20 for image in images])
        return tiny.find_squares(images)

    _ = run(exported, ".", find_faces=find_faces)
    assert groups == [[30, 30], [400], [30, 70]]
    groups.clear()
    monkeypatch.setattr(annotate, "_AT_ONCE", 1)
    _ = run(exported, ".", out="other", find_faces=find_faces)
    assert groups[:3] == [[30], [30], [400]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, preemption.Stopped])
def test_an_interrupted_run_leaves_whole_files_only_and_lines_of_all_copies(
    here, exported, error, monkeypatch
):
    for i in range(4):
        save(here / f"in/{i}.png", tiny.draw(True, i % 2))
    count = iter(range(10))

    def interrupt():
        if next(count) == 1:
            raise error(15)

    monkeypatch.setattr(preemption, "raise_if_requested", interrupt)
    with pytest.raises(error):
        _ = run(exported, "in")
    files = sorted(path.name for path in (here / "out").rglob("*") if path.is_file())
    assert files == ["0.png", "1.png", "faces.jsonl"]
    assert [line["photo"] for line in lines()] == ["in/0.png"] * 2 + ["in/1.png"] * 2
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert run(exported, "in")["faces"] == 8  # the same folder is taken again


def test_an_export_whose_files_do_not_fit_is_refused(exported):
    def changed(**values):
        return exported._replace(config={**exported.config, **values})

    for wrong, message in (
        (changed(dense=[4]), "model.safetensors: its arrays are not those of the net"),
        (changed(filters=None), "config.json: describes no net"),
        (changed(data={}), "config.json: describes no net"),
        (changed(net="transformer"), "net: 'transformer' is not one of"),
        (exported._replace(labels=("face",)), "labels.json: 1 classes"),
        (exported._replace(labels=("a", "b", "c")), "model.safetensors: its arrays"),
        (exported._replace(params={}), "model.safetensors: its arrays"),
    ):
        with pytest.raises(UserError, match=message):
            _ = annotate.make_classifier(wrong)
