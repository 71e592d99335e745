"""Does the benchmark of recall count found faces and false boxes as people judge them?"""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import measure, recall

FACES = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [50, 50, 90, 110.0]])


def test_boxes_take_faces_one_to_one_and_the_best_first():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 90, 90], [200, 0, 210, 10.0]])
    taken, false = recall.match(boxes, np.array([0.5, 0.9, 0.7, 0.6]), FACES)
    # The second box takes the first face; the first one is left none, for it shares 2/18 with the
    # second face; the third box is 2/3 of the third face.
    assert taken.tolist() == [0.9, -np.inf, 0.7] and false == [0.6, 0.5]
    exact = np.array([[50, 50, 90, 74.0]])  # shares 0.4
    assert recall.match(exact, np.array([0.3]), FACES)[0].tolist() == [-np.inf, -np.inf, 0.3]
    less = np.array([[50, 50, 90, 73.9]])
    assert recall.match(less, np.array([0.3]), FACES)[1] == [0.3]
    assert recall.match(less[:0], np.zeros(0), FACES)[1] == []
    assert recall.match(less, np.array([0.3]), FACES[:0])[1] == [0.3]


def test_found_faces_are_counted_by_class_and_by_the_shorter_side():
    faces = recall.Faces(np.zeros(3, int), FACES, np.array(["with", "without", "with"]))
    counts = recall.count(faces, np.array([0.9, -np.inf, 0.7]), [0.6, 0.5])
    assert (counts["found"], counts["false"]) == (2, 2)
    groups = {"with": 2, "without": 0, "below 20 px": 1, "20 to 39 px": 0, "from 40 px": 1}
    assert counts["groups"] == groups


@pytest.mark.parametrize(("most", "found", "false"), [(2, 3, 2), (1, 2, 1), (0, 1, 0)])
def test_a_higher_threshold_leaves_so_many_false_boxes(most, found, false):
    faces = recall.Faces(np.zeros(3, int), FACES, np.array(["a"] * 3))
    counts = recall.count(faces, np.array([0.9, 0.55, 0.4]), [0.6, 0.5], most)
    assert (counts["found"], counts["false"]) == (found, false)


def test_contestants_are_judged_by_what_they_answer(tmp_path, monkeypatch):
    for name, side in (("a", 90), ("b", 60)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    code = (
        "import numpy as np; from benchmarks import scenes;"
        "scenes.answer(lambda image: (np.array([[0, 0, 10, 10], [50, 50, *image.shape[:2]]]),"
        " np.array([0.5, 0.9])), versions={'it': '1'}, threads=2)"
    )
    faces = recall.Faces(np.array([0, 1]), FACES[[0, 0]], np.array(["with", "with"]))
    photos = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    monkeypatch.setattr(recall, "read", lambda directory: (photos, faces, {photos[1]: "without"}))
    monkeypatch.setattr(recall, "LABELS", {"centerface": "ours"})
    monkeypatch.setattr(recall, "command", lambda name: [sys.executable, "-c", code])
    recall._FLAGS(["recall"])
    results = json.loads(json.dumps(recall.compete(tmp_path, ["facenet"])))
    ours = results["detectors"]["centerface"]
    assert (ours["default"]["found"], ours["default"]["false"], results["equal"]) == (2, 2, 2)
    assert ours["persons"] == {"without": 1, "extra": 1}
    assert [len(seconds) for seconds in ours["seconds"].values()] == [2, recall._TURNS]
    monkeypatch.setattr(measure, "caption", lambda results, labels: "")
    row = next(line for line in recall.table(results).splitlines() if line.startswith("| ours |"))
    assert row.startswith("| ours | 2 | 2 | 2 | 2 | 0 | 0 | 1 | 1 | ")
    ours["seconds"] = {}
    assert recall.table(results).splitlines()[2].endswith("| 1 | 1 |")
