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
            assert detectors.kind(name).make(30.0) == {"min_face_px": 30.0, **settings}
    digests = [set(detectors.kind(name).sha256.values()) for name, _, _ in cases]
    assert [len(some) for some in digests] == [3, 3, 1]
    assert digests[0] == digests[1] and not digests[0] & digests[2]
    assert np.all([len(digest) == 64 for some in digests for digest in some])


def test_another_name_is_one_line_that_lists_them():
    with pytest.raises(
        UserError, match=r"^detector: 'yunet' is not one of mtcnn, mtcnn-1.0, centerface$"
    ):
        _ = detectors.kind("yunet")
