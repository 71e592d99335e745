"""The detectors by name."""

import numpy as np
import pytest

from research.faces import centerface_detection, detection, detectors
from research.structs import UserError


def test_a_name_stands_for_a_detector_and_its_weights(monkeypatch):
    cases = (
        ("mtcnn", detection, {}),
        ("mtcnn-1.0", detection, {"averaged": False}),
        ("centerface", centerface_detection, {}),
    )
    for name, module, settings in cases:
        with monkeypatch.context() as patch:
            patch.setattr(module, "make_detector", lambda **given: given)
            patch.setattr(detectors, "as_annotated", lambda given, moved: given)
            assert detectors.kind(name).make(30.0) == {"min_face_px": 30.0, **settings}
    digests = [set(detectors.kind(name).sha256.values()) for name, _, _ in cases]
    assert [len(some) for some in digests] == [3, 3, 1]
    assert digests[0] == digests[1] and not digests[0] & digests[2]
    assert np.all([len(digest) == 64 for some in digests for digest in some])


def test_boxes_move_by_shares_of_their_sides_and_stay_in_the_picture():
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([[50, 20, 90, 40], [0, 70, 40, 100]], np.float32)
    rest = np.ones(2, np.float32), np.ones((2, 5, 2), np.float32)
    find = detectors.as_annotated(
        lambda images: [detection.Detections(boxes, *rest) for _ in images], (-0.1, 0.2, 0.05, 0.25)
    )
    (faces,) = find([image])
    np.testing.assert_allclose(faces.boxes, [[46, 24, 92, 45], [0, 76, 42, 100]])
    assert faces.boxes.dtype == np.float32
    assert faces.scores is rest[0] and faces.landmarks is rest[1]


def test_another_name_is_one_line_that_lists_them():
    with pytest.raises(
        UserError, match=r"^detector: 'yunet' is not one of mtcnn, mtcnn-1.0, centerface$"
    ):
        _ = detectors.kind("yunet")
