"""The detectors by name."""

import numpy as np
import pytest

from research.faces import centerface_detection, detection, detectors
from research.structs import UserError


def test_a_name_stands_for_a_detector_and_its_weights(monkeypatch):
    for name, module in (("mtcnn", detection), ("centerface", centerface_detection)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "make_detector", lambda *, min_face_px: ("it", min_face_px))
            assert detectors.kind(name).make(30.0) == ("it", 30.0)
    digests = [set(kind.sha256.values()) for kind in detectors.KINDS.values()]
    assert [len(some) for some in digests] == [3, 1] and not digests[0] & digests[1]
    assert np.all([len(digest) == 64 for some in digests for digest in some])


def test_another_name_is_one_line_that_lists_them():
    with pytest.raises(UserError, match=r"^detector: 'yunet' is not one of mtcnn, centerface$"):
        _ = detectors.kind("yunet")
