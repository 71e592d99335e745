"""Which of the faces that a detector finds are which of those that are annotated."""

import numpy as np

OVERLAP = 0.4  # intersection over union from which on a box is that of an annotated face


def match(boxes: np.ndarray, annotated: np.ndarray, *, overlap: float = OVERLAP) -> np.ndarray:
    """The box that each annotated face is found by, one at most each: [m] int64, -1 for none.

    boxes: [n, 4], left, top, right, bottom, best first: each takes, of the faces that none before
    it has taken, the one that it overlaps most, if intersection over union is `overlap` at least.
    annotated: [m, 4].
    Source: M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge" (2010), section
    4.2, with another threshold.
    """
    found_by = np.full(len(annotated), -1, np.int64)
    if not len(annotated):
        return found_by
    theirs = np.asarray(annotated, np.float64)
    for i, box in enumerate(np.asarray(boxes, np.float64)):
        low, high = np.maximum(theirs[:, :2], box[:2]), np.minimum(theirs[:, 2:], box[2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        areas = (theirs[:, 2:] - theirs[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
        shares = np.where(found_by < 0, shared / (areas - shared), 0.0)
        best = int(shares.argmax())
        if shares[best] >= overlap:
            found_by[best] = i
    return found_by
