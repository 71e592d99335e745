"""Figures of the mask study: the drawn data, annotated photographs of any size, and layout."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.reading import CAPTION, LONG_CAPTION, check_layout, texts, x_of, y_of
from research.figures import masks

FRAME: dict[str, Any] = {"title": "t", "caption": CAPTION}
NAMES = ("with mask", "without mask")
LONG_NAMES = ("a mask that is worn as it should be", "without a mask of any kind")
BEFORE = {"voc": {"with": 90, "without": 20, "incorrect": 4}, "json": {"with": 30, "without": 30}}
AFTER = {"voc": {"with": 90, "without": 90}, "json": {"with": 30, "without": 30}}


def make_faces(count: int, side: int = 8) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def make_scored(count: int, names: tuple[str, ...] = NAMES) -> Figure:
    labels = np.arange(count) % 2
    predicted = np.where(np.arange(count) % 3 == 1, 1 - labels, labels)
    chances = np.linspace(0.5, 1.0, count)
    return masks.draw_scored(make_faces(count), labels, predicted, chances, names, **FRAME)


def make_roc(seed: int) -> masks.Roc:
    """Of ten examples of each class, some of them in each other's place."""
    labels = np.random.default_rng(seed).permutation(np.repeat([1, 0], 10))
    found = np.concatenate([np.ones(8), labels, np.zeros(8)])
    true = np.append(0, np.cumsum(found)) / found.sum()
    false = np.append(0, np.cumsum(1 - found)) / (1 - found).sum()
    return false, true, float(np.trapezoid(true, false))


def bars_of(axis: Axes) -> list[tuple[float, float]]:
    """x0 and x1 of every bar."""
    boxes = [bar.get_bbox() for bar in axis.patches if isinstance(bar, Rectangle)]
    return [(box.x0, box.x1) for box in boxes]


def test_samples_are_rows_of_their_source_and_the_rest_is_said() -> None:
    faces = {"voc": make_faces(12), "augmented copies": make_faces(3)}
    figure = masks.draw_samples(faces, titles={"voc": ["mask"] * 12}, **FRAME)
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == masks.MOST_SAMPLES + 3
    shown = [axis.images[0].get_array() for axis in figure.axes]
    wanted = [*faces["voc"][:10], *faces["augmented copies"]]
    for one, other in zip(shown, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [a.get_title() for a in figure.axes] == ["mask"] * 10 + [""] * 3
    named = {a.get_ylabel(): a.get_position().y0 for a in figure.axes if a.get_ylabel()}
    assert list(named) == ["voc", "augmented copies"]
    assert named["voc"] > named["augmented copies"]
    assert f"Drawn: the first 10 of 12 (voc). Data: {CAPTION}" in texts(figure)


def test_balance_has_what_was_found_what_was_added_and_what_was_left_out() -> None:
    figure = masks.draw_balance(BEFORE, AFTER, **FRAME)
    (axis,) = figure.axes
    assert bars_of(axis) == [(0, 90), (0, 20), (20, 90), (0, 0), (0, 4), (0, 30), (0, 30)]
    hatched = [bar.get_hatch() for bar in axis.patches]
    assert [i for i, hatch in enumerate(hatched) if hatch] == [2]
    assert axis.patches[4].get_linestyle() != axis.patches[0].get_linestyle()
    said = [text.get_text() for text in axis.texts]
    assert said == ["90", "20 → 90", "4 → 0", "30", "30"]
    rows = [label.get_text() for label in axis.get_yticklabels()]
    assert rows == ["voc:  with", "without", "incorrect", "json:  with", "without"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert "with 120 → 120, without 50 → 120, incorrect 4 → 0. Data" in texts(figure)


def test_scores_say_the_class_and_wrong_ones_the_truth_with_a_cross_and_a_dashed_frame() -> None:
    figure = make_scored(4)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "✓ with mask 50 %",
        "✗ with mask 67 %\nis without mask",
        "✓ with mask 83 %",
        "✓ without mask 100 %",
    ]
    spines = [axis.spines["left"] for axis in figure.axes]
    assert [spine.get_linewidth() > 1 for spine in spines] == [False, True, False, False]
    assert spines[1].get_linestyle() != spines[0].get_linestyle()
    assert "3 of 4 right" in texts(figure)
    for axis, face in zip(figure.axes, make_faces(4), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), face)


def test_what_is_less_than_sure_is_never_said_to_be_sure() -> None:
    faces, zero = make_faces(3), np.zeros(3, int)
    figure = masks.draw_scored(faces, zero, zero, [0.9951, 1.0, 0.994], NAMES, **FRAME)
    said = [axis.get_title().removeprefix("✓ with mask ") for axis in figure.axes]
    assert said == [">99 %", "100 %", "99 %"]


def test_a_curve_of_one_seed_is_its_points_and_its_area() -> None:
    false, true, area = make_roc(0)
    figure = masks.draw_roc({"net": (false, true, area)}, **FRAME)
    whole, corner = figure.axes
    for axis in (whole, corner):
        curve, chance = axis.lines
        np.testing.assert_array_equal([x_of(curve), y_of(curve)], [false, true])
        assert x_of(chance).tolist() == y_of(chance).tolist() == [0, 1]
    assert (corner.get_xlim()[1], corner.get_ylim()[0]) == pytest.approx((0.2, 0.8))
    legend = whole.get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == [f"net: area {area:.4f}"]


def test_seeds_are_thin_and_their_mean_lies_between_them_with_the_mean_area() -> None:
    seeds = [make_roc(k) for k in range(3)]
    figure = masks.draw_roc({"net": seeds, "other": [make_roc(9)] * 2}, **FRAME)
    thin, mean = figure.axes[0].lines[:3], figure.axes[0].lines[3]
    for line, seed in zip(thin, seeds, strict=True):
        np.testing.assert_array_equal(y_of(line), seed[1])
    areas = [seed[2] for seed in seeds]
    assert np.trapezoid(y_of(mean), x_of(mean)) == pytest.approx(np.mean(areas), abs=0.01)
    assert y_of(mean)[0] == 0 and y_of(mean)[-1] == 1
    assert np.all(np.diff(y_of(mean)) >= 0)
    legend = figure.axes[0].get_legend()
    assert legend
    said, other = (text.get_text() for text in legend.get_texts())
    spread = f"({min(areas):.4f} to {max(areas):.4f})"
    assert said == f"net: area {np.mean(areas):.4f} {spread}"
    assert other.startswith("other")
    styles = {
        str(line.get_linestyle()) for line in figure.axes[0].lines if line.get_linewidth() > 1
    }
    assert len(styles) == 2
    assert "3/2 seeds" in texts(figure) or "2/3 seeds" in texts(figure)


def test_an_annotated_photograph_keeps_its_size_its_input_and_what_is_far_from_the_box() -> None:
    image = make_faces(1, 200)[0]
    copy = image.copy()
    drawn = masks.draw_annotated(image, [[60, 80, 120, 150]], [0], [0.9], NAMES)
    np.testing.assert_array_equal(image, copy)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    changed = (drawn != image).any(axis=2)
    assert changed[80, 60:120].all() and changed[149, 60:120].all()
    assert changed[80:150, 60].all() and changed[80:150, 119].all()
    assert not changed[90:140, 70:110].any()
    assert changed[60:80, 60:100].mean() > 0.5  # the text, above
    rows, columns = np.nonzero(changed)
    assert rows.min() > 50 and rows.max() < 150 and columns.min() >= 60


def test_classes_differ_in_grey_by_the_breaks_of_their_lines() -> None:
    image = np.full((300, 300, 3), 128, np.uint8)
    breaks = []
    for k in range(3):
        drawn = masks.draw_annotated(image, [[100, 100, 200, 200]], [k], [0.9], ("a", "b", "c"))
        edge = drawn[150:, 100:104].astype(int).sum(axis=(1, 2))[:40]
        breaks.append(np.count_nonzero(np.diff(edge)))
    assert breaks[0] == 0 < breaks[1] < breaks[2]


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_a_frame_shows_on_any_ground(ground: int) -> None:
    image = np.full((200, 200, 3), ground, np.uint8)
    drawn = masks.draw_annotated(image, [[60, 60, 120, 120]], [0], [0.9], NAMES).astype(int)
    contrast = np.abs(drawn[90, 58:66] - ground).sum(axis=1)
    assert contrast.max() > 300


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.lists(st.tuples(*[st.floats(-50, 200)] * 4), max_size=5),
)
def test_any_boxes_on_any_photograph_are_drawn_inside_it(
    height: int, width: int, boxes: list[tuple[float, float, float, float]]
) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    count = len(boxes)
    drawn = masks.draw_annotated(image, boxes, [1] * count, [0.5] * count, NAMES)
    assert drawn.shape == image.shape
    np.testing.assert_array_equal(masks.draw_detected(image, [], []), image)


def plates(drawn: np.ndarray) -> np.ndarray:
    """Where a text's dark plate is."""
    return (drawn == 24).all(axis=2)


def test_a_text_never_leaves_the_photograph_and_texts_do_not_cover_each_other() -> None:
    image = np.full((120, 260, 3), 128, np.uint8)
    alone = masks.draw_annotated(image, [[90, 40, 130, 80]], [1], [0.9], NAMES)
    plate = plates(alone).sum()
    for box in ([0, 0, 40, 40], [220, 0, 260, 40], [0, 80, 40, 120], [220, 80, 260, 120]):
        drawn = masks.draw_annotated(image, [box], [1], [0.9], NAMES)
        assert plates(drawn).sum() == plate
    pair = [[90, 40, 130, 80], [100, 40, 140, 80]]
    both = masks.draw_annotated(image, pair, [1, 1], [0.9, 0.9], NAMES)
    assert plates(both).sum() == 2 * plate


def scattered(count: int, seed: int) -> np.ndarray:
    """Boxes [count, 4] of 14 to 45 pixels that do not touch, in a photograph of 400 x 300."""
    generator = np.random.default_rng(seed)
    boxes: list[np.ndarray] = []
    while len(boxes) < count:
        size = generator.uniform(14, 45) * np.array([1, 1.2])
        low = generator.uniform(0, (400, 300) - size)
        box = np.rint(np.concatenate([low, low + size]))
        if all((box[:2] > one[2:]).any() or (box[2:] < one[:2]).any() for one in boxes):
            boxes.append(box)
    return np.array(boxes)


@pytest.mark.parametrize("seed", range(4))
def test_in_a_crowd_no_face_is_more_than_a_quarter_hidden_by_the_texts_of_others(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = scattered(30, seed)
    places: dict[int, tuple[int, int, int, int]] = {}
    draw_text = masks._draw_text

    def watch(*arguments: Any) -> None:
        draw_text(*arguments)
        places.update(arguments[4][0])

    monkeypatch.setattr(masks, "_draw_text", watch)
    image = np.full((300, 400, 3), 128, np.uint8)
    _ = masks.draw_annotated(image, boxes, [k % 2 for k in range(30)], [0.9] * 30, NAMES)
    assert set(places) == {*range(30)}  # every face has a text
    owners = np.full((300, 400), -1)  # of every pixel, the face whose text lies there
    for i, (left, top, right, bottom) in places.items():
        assert (owners[top:bottom, left:right] == -1).all()  # no text lies on another
        owners[top:bottom, left:right] = i
    for i, (left, top, right, bottom) in enumerate(boxes.astype(int)):
        face = owners[top:bottom, left:right]
        assert np.mean((face != -1) & (face != i)) <= 0.25


def test_a_photograph_too_narrow_for_the_class_has_the_percentage_or_nothing() -> None:
    boxes = [[2, 14, 12, 24]]
    widths = {}
    for width in (200, 50, 12):
        image = np.full((40, width, 3), 128, np.uint8)
        columns = plates(masks.draw_annotated(image, boxes, [1], [0.9], NAMES)).any(axis=0)
        widths[width] = int(columns.sum())
    assert widths[12] == 0 < widths[50] < 50 < widths[200]


def test_letters_grow_with_the_photograph() -> None:
    heights = []
    for factor in (1, 4):
        image = np.full((400 * factor, 600 * factor, 3), 128, np.uint8)
        boxes = np.array([[200, 100, 300, 220]]) * factor
        drawn = masks.draw_annotated(image, boxes, [1], [0.9], NAMES)
        heights.append(plates(drawn).any(axis=1).sum())
    assert heights[1] == pytest.approx(4 * heights[0], rel=0.25)


def test_panels_show_the_three_photographs_the_last_one_large() -> None:
    images = [make_faces(1, 60)[0] + np.uint8(k) for k in range(3)]
    figure = masks.draw_three_panels(*images, **FRAME)
    FigureCanvasAgg(figure).draw()
    for axis, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
    sizes = [axis.get_position().width for axis in figure.axes]
    assert sizes[2] > 1.9 * max(sizes[:2])
    assert [a.get_title() for a in figure.axes][1] == "faces detected"


def test_a_large_photograph_is_drawn_smaller() -> None:
    image = np.full((1000, 3000, 3), 7, np.uint8)
    shown = masks.draw_three_panels(image, image, image, **FRAME).axes[0].images[0].get_array()
    assert shown is not None and shown.shape == (467, 1400, 3)


PHOTO = make_faces(1, 30)[0]
DRAWN: dict[str, Callable[[], Figure]] = {
    "samples": lambda: masks.draw_samples(
        {"voc": make_faces(10), "copies": make_faces(3)}, titles={"voc": ["mask"] * 10}, **FRAME
    ),
    "one sample": lambda: masks.draw_samples({"a long name of a source": make_faces(1)}, **FRAME),
    "balance": lambda: masks.draw_balance(BEFORE, AFTER, **FRAME),
    "one bar": lambda: masks.draw_balance({"voc": {"with": 1}}, {"voc": {"with": 9}}, **FRAME),
    "scored": lambda: make_scored(25),
    "long names": lambda: make_scored(7, LONG_NAMES),
    "one score": lambda: make_scored(1),
    "roc": lambda: masks.draw_roc({f"net {k}": [make_roc(k)] * 2 for k in range(5)}, **FRAME),
    "one curve": lambda: masks.draw_roc({"the net of the report": make_roc(1)}, **FRAME),
    "panels": lambda: masks.draw_three_panels(PHOTO, PHOTO, PHOTO, **FRAME),
    "wide": lambda: masks.draw_three_panels(*[PHOTO[:15]] * 3, **FRAME),
    "tall": lambda: masks.draw_three_panels(*[PHOTO[:, :15]] * 3, **FRAME),
    "long": lambda: masks.draw_balance(
        BEFORE, AFTER, title="long title " * 12, caption=LONG_CAPTION
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_no_text_leaves_the_page_or_touches_axes_or_other_text(case: str) -> None:
    figure = DRAWN[case]()
    check_layout(figure)
    assert texts(figure).split("Data: ")[1].startswith(CAPTION)
    renderer = FigureCanvasAgg(figure).get_renderer()
    titles = [axis.title.get_window_extent(renderer) for axis in figure.axes if axis.get_title()]
    overlaps = [
        min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
        for i, a in enumerate(titles)
        for b in titles[:i]
    ]
    assert not any(overlaps)


def test_drawing_changes_no_setting() -> None:
    with matplotlib.rc_context({"font.size": 11.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        for case in ("samples", "balance", "one score", "one curve", "panels"):
            _ = DRAWN[case]()
        assert dict(matplotlib.rcParams) == before


def score(count: int = 2, **changed: Any) -> Figure:
    call: dict[str, Any] = {"images": make_faces(count), "labels": [0] * count}
    call |= {"predicted": [1] * count, "probabilities": [0.5] * count, "names": NAMES}
    return masks.draw_scored(**{**call, **changed}, **FRAME)


def annotate(**changed: Any) -> np.ndarray:
    call: dict[str, Any] = {"image": PHOTO, "boxes": [[1, 1, 9, 9]], "labels": [0]}
    return masks.draw_annotated(**{**call, "probabilities": [0.5], "names": NAMES, **changed})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks.draw_samples({}, **FRAME), "a source at least"),
        (lambda: masks.draw_samples({"a": make_faces(0)}, **FRAME), "one image of a"),
        (lambda: masks.draw_samples({"a": make_faces(1) / 255}, **FRAME), "got float64"),
        (
            lambda: masks.draw_samples({"a": make_faces(2)}, titles={"a": ["x"]}, **FRAME),
            "titles for its faces",
        ),
        (lambda: masks.draw_balance({}, {}, **FRAME), "same sources"),
        (lambda: masks.draw_balance(BEFORE, {"voc": {}}, **FRAME), "same sources"),
        (lambda: masks.draw_balance({"a": {}}, {"a": {}}, **FRAME), "same sources"),
        (lambda: masks.draw_balance({"a": {"b": -1}}, {"a": {}}, **FRAME), "same sources"),
        (lambda: score(26), "1 to 25 faces"),
        (lambda: score(labels=[0]), "1 to 25 faces"),
        (lambda: score(labels=[0.0, 1.0]), "a class of each"),
        (lambda: score(predicted=[0, 2]), "classes 0 to 1, got 0 to 2"),
        (lambda: score(probabilities=[0.5, 1.1]), "probabilities from 0 to 1"),
        (lambda: score(probabilities=[0.5, np.nan]), "probabilities from 0 to 1"),
        (lambda: masks.draw_roc({}, **FRAME), "1 to 5 nets"),
        (lambda: masks.draw_roc({"a": []}, **FRAME), "a curve of each"),
        (lambda: masks.draw_roc({"a": ([0, 1], [0, 1.5], 0.5)}, **FRAME), "from 0 to 1 of a"),
        (lambda: masks.draw_roc({"a": ([0, 1], [0, 0.5, 1], 0.5)}, **FRAME), "two rates"),
        (lambda: masks.draw_roc({"a": ([0, 1], [1, 0], 0.5)}, **FRAME), "that rise"),
        (lambda: annotate(image=PHOTO / 255), "got float64"),
        (lambda: annotate(boxes=[[1, 1, 9]]), r"1 finite boxes \[n, 4\]"),
        (lambda: annotate(boxes=[[1, 1, 9, np.nan]]), "finite boxes"),
        (lambda: annotate(boxes=[]), "expected 1 finite boxes"),
        (lambda: annotate(labels=[2]), "classes 0 to 1"),
        (lambda: annotate(labels=[0.5]), "integers as labels"),
        (lambda: annotate(probabilities=[2.0]), "from 0 to 1"),
        (
            lambda: masks.draw_three_panels(PHOTO, PHOTO, PHOTO[:9], **FRAME),
            "three images",
        ),
        (
            lambda: masks.draw_three_panels(PHOTO, PHOTO, PHOTO, titles=["a"], **FRAME),
            "a title for each of the three, got 1",
        ),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = call()
