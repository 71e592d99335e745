"""CenterFace's candidates against closed forms, and a detector whose net knows bright squares."""

import numpy as np
import pytest
from models.test_centerface import needs_package, pattern

from research.data import image_files
from research.faces import annotations
from research.faces import centerface_detection as detection
from research.structs import UserError


def outputs_of(rows, columns, faces):
    """Outputs for faces (row, column, probability, height, width): centres in the middle of places,
    landmarks in the corners and the middle of the box."""
    heat, scale = np.zeros((rows, columns, 1)), np.zeros((rows, columns, 2))
    corners = np.array([[0, 0], [0, 1], [0.5, 0.5], [1, 0], [1, 1]])  # y and x
    landmarks = np.broadcast_to(corners.reshape(-1), (rows, columns, 10))
    for row, column, probability, height, width in faces:
        heat[row, column], scale[row, column] = probability, np.log([height / 4, width / 4])
    return heat, scale, np.zeros((rows, columns, 2)), landmarks


def test_faces_are_decoded_as_the_closed_form_says():
    heat, scale, offset, landmarks = outputs_of(
        16, 24, [(5, 9, 0.6, 16, 8), (10, 20, 0.9, 8, 12), (3, 3, detection.THRESHOLD, 8, 8)]
    )
    offset[5, 9] = (0.25, -0.5)  # down by a pixel, left by two
    faces = detection.decode(heat, scale, offset, landmarks, size=(64, 96))
    np.testing.assert_allclose(faces.scores, [0.9, 0.6])  # best first, the threshold is not above
    first, second = [82 - 6, 42 - 4, 82 + 6, 42 + 4], [36 - 4, 23 - 8, 36 + 4, 23 + 8]
    np.testing.assert_allclose(faces.boxes, [first, second])
    left, top, right, bottom = second
    corners = [(left, top), (right, top), (36, 23), (left, bottom), (right, bottom)]
    np.testing.assert_allclose(faces.landmarks[1], corners)


def test_boxes_are_cut_at_the_edges_of_the_picture():
    outputs = outputs_of(16, 24, [(1, 22, 0.9, 8, 16)])
    boxes = detection.decode(*outputs, size=(64, 92)).boxes
    np.testing.assert_allclose(boxes, [[82, 2, 92, 10]])


def test_of_boxes_that_overlap_the_best_is_kept_and_one_that_gives_way_beats_none():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [30, 0, 40, 10.0]])
    # 1 shares a third with 0 and with 2; 0 and 2 share nothing.
    assert detection.survivors(boxes, np.array([0.9, 0.8, 0.7, 0.95])).tolist() == [3, 0, 2]
    assert detection.survivors(boxes, np.array([0.8, 0.9, 0.7, 0.1])).tolist() == [1, 3]
    # Of their union exactly 0.3: the reference drops it.
    exact = np.array([[0, 0, 13, 1], [7, 0, 20, 1.0]])
    assert detection.survivors(exact, np.array([0.9, 0.8])).tolist() == [0]
    assert detection.survivors(boxes[:0], np.zeros(0)).tolist() == []


@pytest.fixture
def detector(monkeypatch):
    """A detector whose net finds a face of 32 x 24 at each bright place with dark above and below.

    So it finds none at the upper edge of what it sees, as if it needed what is around a face.
    """
    shapes = []

    def program(params, pixels, sizes):
        shapes.append(pixels.shape)
        outputs = []
        for picture, (rows, columns) in zip(pixels, sizes, strict=True):
            places = picture.reshape(picture.shape[0] // 4, 4, -1, 4, 3).mean((1, 3, 4)) > 200
            assert not places[rows // 4 :].any() and not places[:, columns // 4 :].any()
            faces = [(y, x, 0.9, 32, 24) for y, x in np.argwhere(places) if y]
            outputs.append(outputs_of(*places.shape, faces))
        return [np.stack(one) for one in zip(*outputs, strict=True)]

    monkeypatch.setattr(detection, "_program", lambda: program)
    monkeypatch.setattr(detection, "LEAST_PX", 1)  # pictures as they are
    made = detection.Detector({}, 20.0)
    return made, shapes


def picture(rows, columns, y, x, size=8):
    image = np.zeros((rows, columns, 3), np.uint8)
    image[y : y + size, x : x + size] = 255
    return image


def test_every_picture_has_its_own_faces_whatever_the_canvases(detector):
    find, shapes = detector
    images = [picture(320, 640, 100, 240), picture(96, 192, 40, 40), picture(192, 96, 40, 40)]
    images += [picture(320, 608, 100, 400), np.zeros((64, 64, 3), np.uint8)]
    faces = find(images)
    centres = [(one.boxes[0, :2] + one.boxes[0, 2:]) / 2 for one in faces[:4]]
    np.testing.assert_allclose(centres, [(244, 104), (44, 44), (44, 44), (404, 104)], atol=3)
    assert len(faces[4].scores) == 0
    assert {shape[1:3] for shape in shapes} == {(320, 640), (192, 192)}
    assert all(len(one.landmarks) == len(one.boxes) == len(one.scores) for one in faces)


def test_boxes_are_in_the_pixels_of_a_picture_that_was_resized(detector):
    find, shapes = detector
    (faces,) = find([picture(2000, 3200, 800, 1600, size=16)])  # which is halved
    assert shapes == [(1, 1216, 1600, 3)]
    # 3200 columns are made 1600, and 2000 rows 1024: a face of 32 x 24 is 62.5 x 48 of the picture.
    expected = [1608 - 24, 808 - 31.25, 1608 + 24, 808 + 31.25]
    np.testing.assert_allclose(faces.boxes[0], expected, atol=8)


def test_where_nothing_is_found_it_is_searched_for_with_a_border(detector, monkeypatch):
    monkeypatch.setattr(detection, "_WITH_BORDER", 288)  # the size it has
    find, _ = detector
    (faces,) = find([picture(128, 192, 0, 64, size=4)])  # at the upper edge: not found at first
    # In the picture's own pixels, not in those of the border; what is outside is cut off.
    np.testing.assert_allclose(faces.boxes, [[66 - 12, 0, 66 + 12, 2 + 16]])
    np.testing.assert_allclose(faces.landmarks[0, 0], [66 - 12, 2 - 16])


def test_with_a_border_a_picture_has_one_size_and_a_face_that_fills_it_needs_less(monkeypatch):
    shapes = []

    def program(params, pixels, sizes):
        shapes.append((pixels.shape, sizes.tolist()))
        rows, columns = sizes[0] // 4
        filling = (rows // 2, columns // 2, 0.2, 0.6 * sizes[0, 0], 0.6 * sizes[0, 1])
        outputs = outputs_of(*(n // 4 for n in pixels.shape[1:3]), [filling, (9, 9, 0.4, 8, 8)])
        return [one[None] for one in outputs]

    monkeypatch.setattr(detection, "_program", lambda: program)
    monkeypatch.setattr(detection, "LEAST_PX", 1)
    (faces,) = detection.Detector({}, 1.0)([picture(96, 64, 0, 0)])
    # 144 x 96 with its border, whose longer side becomes 192; all sides multiples of 32.
    assert shapes == [((1, 192, 192, 3), [[96, 64]]), ((1, 192, 192, 3), [[192, 128]])]
    np.testing.assert_allclose(faces.scores, [0.2])
    assert (faces.boxes[0, 2:] - faces.boxes[0, :2] > (50, 80)).all()


@pytest.mark.parametrize(
    ("rows", "columns", "seen"),
    [
        (96, 128, (192, 256)),  # twice its sides, not more
        (320, 320, (448, 448)),  # as many pixels as the least, with sides that are multiples of 32
        (448, 448, (448, 448)),  # has as many
        (64, 1280, (96, 1600)),  # is not made longer than the longest
    ],
)
def test_a_small_picture_is_enlarged_and_its_boxes_are_in_its_own_pixels(
    detector, monkeypatch, rows, columns, seen
):
    find, shapes = detector
    monkeypatch.setattr(detection, "LEAST_PX", 430 * 430)
    y, x = rows // 2, columns // 2
    (faces,) = find([picture(rows, columns, y, x, size=16)])
    canvas = tuple(next(n for n in detection.SIDES if n >= side) for side in seen)
    assert shapes == [(1, *canvas, 3)]
    ratio = np.array([columns, rows]) / seen[::-1]
    sides = faces.boxes[0, 2:] - faces.boxes[0, :2]
    np.testing.assert_allclose(sides, ratio * (24, 32), rtol=1e-5)
    assert (faces.boxes[0, :2] < (x + 8, y + 8)).all() and (faces.boxes[0, 2:] > (x, y)).all()


def test_faces_below_the_least_size_are_left_out(detector):
    find, _ = detector
    image = picture(192, 320, 100, 100)
    assert len(find([image])[0].scores) == 1
    assert len(detection.Detector({}, 63.0)([image])[0].scores) == 1  # 24 x 32: the longer side
    assert len(detection.Detector({}, 65.0)([image])[0].scores) == 0
    with pytest.raises(UserError, match="min_face_px: 0 is below 1"):
        _ = detection.make_detector(min_face_px=0)


def test_a_call_takes_one_picture_or_always_as_many(monkeypatch):
    numbers = list(range(7))
    assert [c for _, c in detection._calls(numbers, (512, 512))] == [1] * 7
    monkeypatch.setattr(detection.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(detection, "_CALL_PX", 3 * 512 * 512)
    calls = list(detection._calls(numbers, (512, 512)))
    assert calls == [([0, 1, 2], 3), ([3, 4, 5], 3), ([6], 1)]
    assert list(detection._calls(numbers[:5], (512, 512)))[1:] == [([3, 4], 3)]
    assert [c for _, c in detection._calls(numbers, (1600, 1600))] == [1] * 7


@pytest.mark.parametrize("image", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8)])
def test_what_is_no_picture_is_refused(detector, image):
    with pytest.raises(ValueError, match="a picture is"):
        _ = detector[0]([image])


@needs_package
def test_drawn_faces_are_found_where_the_reference_finds_them(monkeypatch):
    monkeypatch.setattr(detection, "LEAST_PX", 1)  # which it does not enlarge
    drawn, image = pattern(64, 96)[0].astype(np.uint8), np.full((160, 224, 3), 100, np.uint8)
    image[20:84, 10:106] = image[90:154, 120:216] = drawn
    (faces,) = detection.make_detector()([image])
    # By onnxruntime 1.32.0, decoded by loops as the package does.
    np.testing.assert_allclose(
        faces.boxes,
        [[154.16079, 102.44042, 184.61834, 142.39560], [43.85416, 33.22280, 73.91467, 74.34616]],
        atol=0.01,
    )
    np.testing.assert_allclose(faces.scores, [0.683858, 0.653068], atol=1e-4)
    places = np.array([(41, 26), (55, 26), (48, 36), (42, 45), (54, 45)])  # as they are drawn
    np.testing.assert_allclose(faces.landmarks[1], places + np.array([10, 20]), atol=4)
    np.testing.assert_allclose(faces.landmarks[0], places + np.array([120, 90]), atol=4)
    assert {array.dtype for array in faces} == {np.dtype(np.float32)}


@pytest.mark.slow
@needs_package
def test_of_faces_that_are_cut_out_both_classes_are_kept_alike(real_faces):
    """Folders of cut-out faces: those of the crowds from 40 pixels on, along their boxes."""
    find = detection.make_detector()
    kept: dict[str, list[bool]] = {"with_mask": [], "without_mask": []}
    for face in annotations.read(real_faces / "voc", "voc").faces:
        box = face.box
        if face.label in kept and box is not None and min(box.width, box.height) >= 40:
            image = image_files.read_photograph(face.photograph.path)
            cut = image[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right]
            (faces,) = find([np.ascontiguousarray(cut)])
            kept[face.label].append(len(faces.scores) > 0)
    assert [len(some) for some in kept.values()] == [221, 36]
    with_mask, without_mask = (np.mean(some) for some in kept.values())
    assert abs(with_mask - without_mask) < 0.05
    assert min(with_mask, without_mask) > 0.95
