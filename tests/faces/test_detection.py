"""The cascade against a plain one that takes every level, patch and pair by itself, and against
the package `mtcnn` where it runs."""

import functools
import importlib.util

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from research.faces import detection
from research.structs import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mtcnn") is None, reason="the package mtcnn is not installed"
)
GREY = (90, 110, 120)
EYES = ((36, 59), (64, 59))  # of a drawn face 100 wide


def draw_face(width, skin=(224, 172, 138)):
    """A face that MTCNN takes for one, [1.3 width, width, 3]."""
    unit = width / 100
    image = Image.new("RGB", (width, round(1.3 * width)), GREY)
    pen = ImageDraw.Draw(image)

    def oval(x, y, across, down, colour):
        box = [x - across, y - down, x + across, y + down]
        pen.ellipse([unit * end for end in box], fill=colour)

    oval(50, 60, 40, 54, (60, 40, 30))
    oval(50, 68, 34, 46, skin)
    for x, y in EYES:
        pen.rectangle([unit * end for end in (x - 10, 48, x + 10, 51)], fill=(60, 40, 30))
        oval(x, y, 8, 4, (245, 245, 245))
        oval(x, y, 4, 4, (40, 30, 30))
    pen.polygon([unit * end for end in (50, 60, 44, 80, 56, 80)], fill=(196, 140, 110))
    oval(50, 94, 14, 4, (170, 70, 70))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(width / 60)))


def picture(height, width, faces=()):
    """[H, W, 3] uint8 with faces (left, top, width) on a slope of grey; what is outside is lost."""
    slope = np.linspace(-20, 20, height)[:, None, None] + np.linspace(-20, 20, width)[None, :, None]
    image = np.clip(slope + GREY, 0, 255).astype(np.uint8)
    for left, top, size in faces:
        face = draw_face(size)
        rows = slice(max(top, 0), min(top + face.shape[0], height))
        columns = slice(max(left, 0), min(left + size, width))
        image[rows, columns] = face[rows.start - top : rows.stop - top][
            :, columns.start - left : columns.stop - left
        ]
    return image


THREE = picture(300, 400, [(20, 20, 120), (200, 100, 60), (290, 10, 90)])


@pytest.fixture(scope="module")
def detector():
    return detection.make_detector()


@pytest.fixture(scope="module")
def release():
    """What finds the faces that release 1.0 of the package finds."""
    return detection.make_detector(averaged=False)


def assert_alike(mine, theirs, *, pixels):
    """Same faces in the same order; boxes and landmarks within so many pixels."""
    assert len(mine.scores) == len(theirs.scores)
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-3)
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=pixels)
    np.testing.assert_allclose(mine.landmarks, theirs.landmarks, atol=pixels)


# A plain cascade: NumPy, and without its products of matrices, whose threads crawl beside others


def area_matrix(source, size):
    """[size, source]: the share of every pixel in every equally long stretch."""
    edges = np.arange(size + 1) * source / size
    low = np.maximum(edges[:-1, None], np.arange(source)[None])
    high = np.minimum(edges[1:, None], np.arange(source)[None] + 1)
    return np.maximum(high - low, 0) * size / source


def resample(rows, image, columns):
    return np.einsum("lk,ikc->ilc", columns, np.einsum("ij,jkc->ikc", rows, image))


def plain_level(image, size):
    rows, columns = (area_matrix(n, m) for n, m in zip(image.shape, size, strict=False))
    return resample(rows, image.astype(np.float64), columns)


def plain_share(boxes, *, smaller):
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = areas[:, None] + areas[None] - shared
    return shared / (np.minimum(areas[:, None], areas[None]) if smaller else union)


def plain_survivors(boxes, scores, limit, *, smaller=False):
    """Indices, best first, as `mtcnn` has it: whoever is covered by any better one goes."""
    order = np.argsort(scores, kind="stable")[::-1]
    covered = np.triu(plain_share(boxes[order], smaller=smaller) > limit, k=1).any(axis=0)
    return order[~covered]


def plain_patch(image, box, side, *, averaged=True):
    """As tf.image.crop_and_resize samples, with what `mtcnn` gives it; or means of areas."""
    pixels = (image.astype(np.float64) - 127.5) / 128
    matrices = []
    step = (box[3] - box[1]) * (1 - 1 / image.shape[0]) / (side - 1)
    square = 2 ** max(0, round(np.log2(step))) if averaged else 1  # of pixels that are averaged
    halved = [n // square for n in image.shape[:2]]
    if averaged:
        whole = image[: halved[0] * square, : halved[1] * square]
        pixels = (np.floor(plain_level(whole, halved) + 0.5 + 1e-6) - 127.5) / 128
    for axis in (0, 1):  # a row for every point: the shares of the two pixels it lies between
        length, (low, high) = image.shape[axis], (box[1 - axis], box[3 - axis])
        at = np.linspace(low, high, side) * (length - 1) / length
        places = np.clip((at + 0.5) / square - 0.5, 0, halved[axis] - 1)
        shares = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(halved[axis])[None]))
        matrices.append(np.where((at >= 0) & (at <= length - 1), 1, 0)[:, None] * shares)
    return resample(matrices[0], pixels, matrices[1])


def plain_conv(x, layer):
    """Convolution, bias and PReLU of [B, H, W, C]."""
    size, _, channels, _ = layer["kernel"].shape
    rows, columns = (n - size + 1 for n in x.shape[1:3])
    total = 0
    for i, j, c in np.ndindex(size, size, channels):
        total += x[:, i : i + rows, j : j + columns, c, None] * layer["kernel"][i, j, c]
    return plain_bend(total, layer)


def plain_bend(x, layer):
    x = x + layer["bias"]
    return np.where(x > 0, x, layer["slope"] * x)


def plain_pool(x, size, *, same):
    rows, columns = (-n % 2 if size == 2 else 1 - n % 2 for n in x.shape[1:3])
    if same:
        pads = ((0, 0), (0, rows), (0, columns), (0, 0))
        x = np.pad(x, pads, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return windows[:, ::2, ::2].max(axis=(-1, -2))


def plain_head(x, layer):
    kernel = layer["kernel"].reshape(x.shape[-1], -1)
    return np.einsum("...i,ij->...j", x, kernel) + layer["bias"]


def plain_net(params, x):
    """Boxes, landmarks (of ONet) and the probability of a face, by any of the three nets."""
    x = plain_conv(x, params["conv_0"])
    x = plain_pool(x, 3 if "dense" in params else 2, same=True)
    x = plain_conv(x, params["conv_1"])
    if "dense" in params:
        x = plain_conv(plain_pool(x, 3, same=False), params["conv_2"])
        if "conv_3" in params:
            x = plain_conv(plain_pool(x, 2, same=True), params["conv_3"])
        x = x.swapaxes(1, 2).reshape(len(x), -1)
        x = plain_bend(np.einsum("bi,ij->bj", x, params["dense"]["kernel"]), params["dense"])
    else:
        x = plain_conv(x, params["conv_2"])
    face = plain_head(x, params["face"])
    # Many are 1 in float32, and then the order decides.
    probability = (1 / (1 + np.exp(face[..., 0] - face[..., 1]))).astype(np.float32)
    points = plain_head(x, params["landmarks"]) if "landmarks" in params else np.zeros((len(x), 10))
    return plain_head(x, params["box"]), points.reshape(-1, 2, 5).swapaxes(1, 2), probability


def plain_proposals(image, params):
    boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
    scale = 12 / 20
    while min(image.shape[:2]) * scale >= 12:
        level = plain_level(image, [int(n * scale) for n in image.shape[:2]])
        offsets, _, faces = plain_net(params, (level[None] - 127.5) / 128)
        rows, columns = np.nonzero(faces[0] > 0.6)
        corners = 2 * np.stack([columns, rows] * 2, axis=1) + [1, 1, 12, 12]
        found = (corners + 11 * offsets[0, rows, columns]) / scale
        kept = plain_survivors(found, faces[0, rows, columns], 0.5)
        boxes.append(found[kept])
        scores.append(faces[0, rows, columns][kept])
        scale *= 0.709
    boxes, scores = np.concatenate(boxes), np.concatenate(scores)
    return boxes[plain_survivors(boxes, scores, 0.7)]


def plain_detect(image, params, **settings):
    """The cascade of `mtcnn` for one picture, in float64."""
    boxes = plain_proposals(image, params["pnet"])
    landmarks, scores = np.zeros((len(boxes), 5, 2)), np.zeros(len(boxes))
    for name, side, limit in (("rnet", 24, 0.7), ("onet", 48, 0.8)):
        if not len(boxes):
            break
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        patches = np.stack([plain_patch(image, box, side, **settings) for box in boxes])
        offsets, points, scores = plain_net(params[name], patches)
        landmarks = boxes[:, None, :2] - 1 + (sides[:, None] + 1) * points
        boxes = boxes + offsets * (sides + 1)
        better = np.flatnonzero(scores > limit)
        kept = better[plain_survivors(boxes[better], scores[better], 0.7, smaller=name == "onet")]
        boxes, scores, landmarks = boxes[kept], scores[kept], landmarks[kept]
    return detection.Detections(np.clip(boxes, 0, [*image.shape[1::-1]] * 2), scores, landmarks)


def test_drawn_faces_are_found_with_their_eyes(detector):
    (found,) = detector([THREE])
    assert len(found.scores) == 3 and (np.diff(found.scores) <= 0).all()
    for left, top, size in ((20, 20, 120), (200, 100, 60), (290, 10, 90)):
        eyes = np.array([[left + size / 100 * x, top + size / 100 * y] for x, y in EYES])
        distance = np.abs(found.landmarks[:, :2] - eyes[None]).max(axis=(1, 2))
        assert distance.min() < 0.05 * size
        box = found.boxes[distance.argmin()]
        assert (box[:2] < eyes.min(axis=0)).all() and (box[2:] > eyes.max(axis=0)).all()


@pytest.mark.parametrize("averaged", [True, False])
def test_the_cascade_is_the_plain_one(detector, release, averaged):
    find = detector if averaged else release
    images = [picture(97, 131, [(10, -20, 80), (90, 30, 40)]), picture(71, 120, [(50, 5, 50)])]
    for image, mine in zip(images, find(images), strict=True):
        theirs = plain_detect(image, find.params, averaged=averaged)
        assert_alike(mine, theirs, pixels=0.02)
        assert len(mine.scores) >= 1


def test_only_after_onet_a_box_inside_another_one_is_suppressed(detector, monkeypatch):
    survivors, asked = detection._survivors, []

    def spy(found, groups, limit, *, smaller=False):
        asked.append((limit, smaller))
        return survivors(found, groups, limit, smaller=smaller)

    monkeypatch.setattr(detection, "_survivors", spy)
    _ = detector([THREE])
    assert asked == [(0.5, False), (0.7, False), (0.7, False), (0.7, True)]


def test_a_picture_has_the_same_faces_alone_and_among_others(detector):
    images = [picture(64, 48), THREE, picture(220, 150, [(20, 20, 110)]), picture(1, 1)]
    together = detector(images)
    assert [len(found.scores) for found in together] == [0, 3, 1, 0]
    for image, among in zip(images, together, strict=True):
        (alone,) = detector([image])
        assert_alike(alone, among, pixels=1e-3)


def test_the_same_pictures_give_the_same_bits(detector):
    for a, b in zip(detector([THREE])[0], detector([THREE])[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_groups_hold_neighbours_as_long_as_they_fit(detector, monkeypatch):
    images = [THREE, picture(220, 150, [(20, 20, 110)]), picture(30, 40), picture(300, 200)]
    together = detector(images)
    monkeypatch.setattr(detection, "GROUP", 301 * 401 + 221 * 151)
    assert [len(group) for group in detection._groups(images)] == [2, 2]
    for a, b in zip(together, detector(images), strict=True):
        assert_alike(a, b, pixels=1e-3)
    assert list(detection._groups([])) == [] and detector([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (11, 11), (19, 300), (20, 20), (300, 12)])
def test_thumbnails_and_strips_have_no_faces_and_raise_nothing(detector, shape):
    (found,) = detector([picture(*shape)])
    shapes = [part.shape for part in found]
    assert shapes == [(0, 4), (0,), (0, 5, 2)]
    assert all(part.dtype == np.float32 for part in found)


def test_a_face_across_the_edge_ends_at_the_edge(detector):
    (found,) = detector([picture(160, 200, [(-30, 20, 100)])])
    assert len(found.scores) == 1 and found.boxes[0, 0] == 0 and found.boxes[0, 2] > 40


def test_boxes_end_at_the_picture_and_the_best_is_first():
    boxes = np.array([[-5, -6, 4, 3], [2, 2, 12, 9], [1, 1, 5, 5], [11, 2, 15, 6]], np.float32)
    found = detection._Candidates(
        boxes, np.array([0.8, 0.9, 1, 0.95], np.float32), np.zeros((4, 2, 5)), 0
    )
    cut = detection._finish(found, (8, 10, 3))
    assert cut.boxes.tolist() == [[1, 1, 5, 5], [2, 2, 10, 8], [0, 0, 4, 3]]  # one is outside
    np.testing.assert_allclose(cut.scores, [1, 0.9, 0.8])


def test_smaller_faces_are_found_if_they_are_asked_for(detector):
    image = picture(60, 80, [(30, 20, 10)])
    assert len(detector([image])[0].scores) == 0
    small = detection.make_detector(min_face_px=10)
    assert len(small([image])[0].scores) == 1
    none = detection.make_detector(thresholds=detection.Thresholds(onet=1.0))
    assert len(none([THREE])[0].scores) == 0


def test_wrong_arguments_are_refused(detector):
    with pytest.raises(UserError, match=r"min_face_px: 3 is below 4"):
        _ = detection.make_detector(min_face_px=3)
    for image in (np.zeros((30, 30), np.uint8), np.zeros((30, 30, 3), np.float32)):
        with pytest.raises(ValueError, match="a picture is"):
            _ = detector([image])


# Few programs


def test_a_second_folder_of_other_sizes_compiles_nothing(detector):
    def folder(seed):
        sizes = np.random.default_rng(seed).integers(20, 330, (6, 2))
        return [picture(*size, [(5, 5, min(size) * 2 // 3)]) for size in sizes.tolist()]

    def programs():
        return {name: detection._program(name)._cache_size() for name in detection.STAGES}

    _ = detector(folder(0))
    before = programs()
    for seed in (1, 2):
        _ = detector(folder(seed))
    assert programs() == before
    assert max(before.values()) <= 3


# Canvases


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(20, 400), st.integers(20, 1500)), min_size=1, max_size=3))
def test_every_window_of_every_level_lies_on_a_canvas_once(shapes):
    levels = [
        level for i, shape in enumerate(shapes) for level in detection.plan_levels(i, shape, 20.0)
    ]
    sizes = np.array(shapes, np.int32)
    buffer = detection.Buffer(None, None, np.zeros(len(shapes), np.int32), sizes, None)
    seen = {number: np.zeros(level.windows, np.int32) for number, level in enumerate(levels)}
    canvases, level_of = detection.lay_out(levels, buffer)
    for canvas, numbers in zip(canvases, level_of, strict=True):
        for column, strip in enumerate(canvas.strip_below):
            rows = canvas.window_rows[strip]
            if rows:
                first = int(canvas.corner_y[strip]) // 2
                seen[numbers[strip]][first : first + rows, int(canvas.corner_x[column]) // 2] += 1
    assert all((counts == 1).all() for counts in seen.values())


def test_the_pixels_on_a_canvas_are_means_of_areas():
    image = np.random.default_rng(0).integers(0, 256, (90, 131, 3)).astype(np.uint8)
    other = np.full((31, 44, 3), 7, np.uint8)
    buffer = detection.make_buffer([other, image])
    levels = detection.plan_levels(1, image.shape, 20.0)
    canvases, level_of = detection.lay_out(levels, buffer)
    draw = jax.jit(detection._draw)
    expected = [(plain_level(image, level.size) - 127.5) / 128 for level in levels]
    seen = [np.zeros(level.size, bool) for level in levels]
    for canvas, numbers in zip(canvases, level_of, strict=True):
        pixels, inside = map(np.asarray, draw(buffer.sums, canvas))
        for strip in np.unique(canvas.strip_below[canvas.window_rows[canvas.strip_below] > 0]):
            columns = np.flatnonzero((canvas.strip[:-1] == strip) & inside[0])
            first = int(canvas.corner_x[columns[0] // 2]), int(canvas.corner_y[strip])
            place = (
                slice(first[1], first[1] + canvas.rows[strip]),
                slice(first[0], first[0] + len(columns)),
            )
            found = pixels[: canvas.rows[strip], columns]
            np.testing.assert_allclose(found, expected[numbers[strip]][place], atol=1e-5)
            seen[numbers[strip]][place] = True
    assert all(part.all() for part in seen)


def test_large_pictures_round_the_edges_a_little_and_never_overflow():
    for shape in ((3000, 4000), (8000, 8000), (40, 1_000_000)):
        for level in detection.plan_levels(0, shape, 20.0):
            parts = detection._parts(level)
            ratios = [n / m for n, m in zip(level.source, level.size, strict=True)]
            assert 255 * np.prod(ratios) * np.prod(parts, dtype=np.float64) < 2**32
            for axis in (0, 1):
                edges = detection._edges(level, axis, 0, level.size[axis], parts[axis])
                positions = edges[:, 0] + edges[:, 1] / parts[axis]
                exact = np.arange(level.size[axis] + 1) * ratios[axis]
                assert np.abs(positions - exact).max() <= 0.02 * ratios[axis]
                assert edges[-1].tolist() == [level.source[axis], 0]


# Patches and suppression


@pytest.mark.parametrize("averaged", [True, False])
def test_patches_are_sampled_as_by_the_package_or_from_a_picture_that_is_halved(averaged):
    image = np.random.default_rng(1).integers(0, 256, (340, 260, 3)).astype(np.uint8)
    buffer = detection.make_buffer([picture(33, 21), image])
    cut = jax.jit(functools.partial(detection._cut, side=24, averaged=averaged))
    small = ([10.3, 5.1, 30.2, 25.0], [-7.5, 20.0, 12.5, 40.0], [250.0, -3.0, 270.0, 17.0])
    large = (
        [20.2, 40.9, 90.7, 111.4],
        [20.2, 40.9, 231.7, 252.4],
        [-30.0, 99.5, 70.0, 199.5],
        [9.0, -60.0, 409.0, 340.0],
    )
    for box in small + large:
        patch = cut(buffer.pixels, np.array(box, np.float32), buffer.halved[1], buffer.sizes[1])
        theirs = plain_patch(image, box, 24, averaged=averaged)
        np.testing.assert_allclose(patch, theirs, atol=1e-3 if box in large else 1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 300), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_the_survivors_are_the_plain_ones_of_every_group(count, groups, smaller, seed):
    generator = np.random.default_rng(seed)
    first = generator.uniform(0, 60, (count, 2))
    boxes = np.concatenate([first, first + generator.uniform(5, 40, (count, 2))], axis=1)
    scores = generator.choice(np.linspace(0.6, 1, 50), count)  # some of them equal
    group = generator.integers(0, groups, count)
    found = detection._Candidates(
        boxes.astype(np.float32), scores.astype(np.float32), np.zeros((count, 2, 5)), group
    )
    mine = detection._survivors(found, group, 0.5, smaller=smaller)
    theirs = []
    for number in range(groups):
        (members,) = np.nonzero(group == number)
        if len(members):
            kept = plain_survivors(boxes[members], found.scores[members], 0.5, smaller=smaller)
            theirs.extend(members[kept])
    assert mine.tolist() == theirs


def test_only_the_best_of_too_many_are_compared(monkeypatch):
    monkeypatch.setattr(detection, "MOST", 10)
    boxes = np.arange(20)[:, None] * 10 + np.array([[0, 0, 5, 5]])
    found = detection._Candidates(
        boxes.astype(np.float32), np.linspace(0.6, 0.9, 20), np.zeros((20, 2, 5)), np.zeros(20)
    )
    kept = detection._survivors(found, np.zeros(20, np.int32), 0.5)
    assert kept.tolist() == list(range(19, 9, -1))


def test_sizes_beyond_the_list_continue_by_factors_of_4():
    assert [detection._size_of(n, (4, 16)) for n in (0, 4, 5, 16, 17, 65)] == [
        4,
        4,
        16,
        16,
        64,
        256,
    ]


# The package, where it runs


def the_package():
    _ = pytest.importorskip("tensorflow")
    return pytest.importorskip("mtcnn").MTCNN()


def as_found(reference, image):
    rows = reference.detect_faces(image, output_type="numpy", box_format="xyxy")
    boxes = np.clip(rows[:, 1:5], 0, [*image.shape[1::-1]] * 2)
    return detection.Detections(boxes, rows[:, 5], np.stack([rows[:, 6:11], rows[:, 11:]], axis=2))


def test_drawn_pictures_have_the_faces_that_the_package_finds(release):
    assert_alike(release([THREE])[0], as_found(the_package(), THREE), pixels=0.1)


def test_a_photograph_has_the_face_that_the_package_finds(release):
    data = pytest.importorskip("skimage.data")
    image = data.astronaut()
    assert_alike(release([image])[0], as_found(the_package(), image), pixels=0.1)


def test_real_photographs_have_the_faces_that_the_package_finds(real_faces, release):
    reference = the_package()
    paths = (
        sorted(real_faces.glob("folders/test/*/*"))[:4]
        + sorted(real_faces.glob("voc/images/*"))[:4]
    )
    images = [np.asarray(ImageOps.exif_transpose(Image.open(p)).convert("RGB")) for p in paths]
    for image, mine in zip(images, release(images), strict=True):
        assert_alike(mine, as_found(reference, image), pixels=1.01)  # it clips a pixel earlier
