"""Does the benchmark of the detector draw the same faces for everybody, and count them?"""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import detect, measure, scenes


def results():
    seconds = {"ours": [1.0, 2.0, 9.0], "facenet": [4.0, 4.0, 90.0]}
    counts = {"ours": 6, "facenet": 5}
    work = {"pictures": 2, "drawn": 6, "seconds": seconds, "faces": counts, "boxes": counts}
    return {
        "device": "Abacus, 2 cores",
        "date": "2024-02-29",
        "data": "drawn pictures",
        "missing": ["mtcnn"],
        "versions": {"jax": "1.2"},
        "threads": {"ours": 2},
        "rounds": 3,
        "suppression": "a stand-in in NumPy",
        "first": {"ours": 7.0, "facenet": 8.0},
        "works": {"512": work},
    }


def test_the_table_has_milliseconds_per_picture_and_paired_ratios():
    table = detect.table(results())
    # Of the ratios 1/4, 2/4 and 9/90 the median is 0.25; two pictures share the 2 seconds.
    assert "| one picture of 512 x 512 | 1,000.0 | 2,000.0 (0.25) |" in table
    assert "Of 6 drawn faces, found: ours 6 of them in 6 boxes; facenet-pytorch 5" in table
    assert "suppressed by a stand-in in NumPy" in table
    assert "Missing here: mtcnn (TensorFlow)" in table
    assert "Abacus, 2 cores; jax 1.2; drawn pictures; 2024-02-29. Threads: ours: 2." in table


def test_a_scene_is_the_same_for_everybody_and_has_its_faces_where_it_says():
    scene, again = scenes.draw(300, 200, 4), scenes.draw(300, 200, 4)
    np.testing.assert_array_equal(scene.image, again.image)
    assert scene.image.shape == (200, 300, 3) and scene.image.dtype == np.uint8
    assert (scenes.draw(300, 200, 5).image != scene.image).any()
    assert scene.faces.shape == (scenes.FACES, 4)
    for left, top, right, bottom in scene.faces.astype(int):
        assert 0 <= left < right <= 300 and 0 <= top < bottom <= 200
        middle = scene.image[top:bottom, left:right].astype(int)
        skin = (middle[..., 0] > middle[..., 2] + 15).mean()  # redder than it is blue
        assert skin > 0.5


def test_a_face_is_found_if_its_centre_is_in_a_box():
    faces = np.array([[10, 10, 20, 20], [40, 10, 50, 20]])
    scene = scenes.Scene(np.zeros((50, 60, 3), np.uint8), faces)
    boxes = np.array([[5.0, 5, 16, 16], [12, 12, 30, 30], [41, 16, 60, 60]])
    assert scenes.hits([scene, scene], [boxes, boxes[:0]]) == 1


def test_contestants_answer_with_seconds_and_counts():
    code = (
        "import numpy as np; from benchmarks import scenes;"
        "scenes.WORKS['tiny'] = scenes.Work('', ((90, 60), (80, 50)), True);"
        "find = lambda images, together: [np.array([[0, 0, 90, 60]])] * len(images);"
        "scenes.take_turns(['tiny'], find, versions={})"
    )
    with measure.Paced("Somebody", [sys.executable, "-c", code]) as contestant:
        answers = [contestant.turn() for _ in range(2)]
    assert all(answer["faces"] == 2 * scenes.FACES and answer["boxes"] == 2 for answer in answers)
    assert answers[0]["pictures"] == answers[1]["pictures"] and answers[0]["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--works=huge"], "error: --works: expected some of 512, 1024"),
        (["--peer_python=nowhere"], "error: --peer_python: nowhere cannot be run"),
        (["--table", "--output=nowhere.json"], "error: nowhere.json cannot be read"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, expected):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.detect", *arguments],
        cwd=measure.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1


def test_a_python_without_any_peer_is_one_line(tmp_path, capsys):
    python = tmp_path / "python"
    _ = python.write_text('#!/bin/sh\necho \'["tensorflow", "torch"]\'\n')
    python.chmod(0o755)
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = detect.main(["detect", f"--peer_python={python}"])
    assert "lacks tensorflow, torch" in capsys.readouterr().err
    _ = python.write_text("#!/bin/sh\necho '[\"joblib\"]'\n")
    assert measure.find_packages(str(python), detect._PACKAGES) == (["mtcnn"], ["joblib"])
