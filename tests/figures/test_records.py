"""Do figures of records say mean and range, and show each cell as it is kept?"""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from figures.reading import CAPTION, bands, check_layout, texts, y_of
from research.figures import records

FRAME = {"title": "t", "caption": CAPTION}
GREEN, RED, BLACK = "#009e73", "#cc2222", "#000000"
LONG = ("airplane", "automobile", "bird")


def make_curves(*nets):
    def values(middle):
        return {"mean": middle, "low": middle - 0.05, "high": middle + 0.05}

    ends = {"train_loss": 0.4, "test_loss": 0.5, "train_accuracy": 0.9, "test_accuracy": 0.8}
    return {
        net: {key: values(np.linspace(end + 0.1, end, 4)) for key, end in ends.items()}
        for net in nets
    }


def make_cells(classes="abc", rows=2, channels=1):
    size = len(classes)
    actual = np.arange(rows) % size
    predicted = np.tile(np.arange(size), (rows, 1))
    predicted[np.arange(rows), actual] = (actual + 1) % size
    draw = np.random.default_rng(0)
    return {
        "clean": draw.integers(0, 256, (rows, 6, 8, channels), dtype=np.uint8),
        "adversarial": draw.integers(0, 256, (rows, size, 6, 8, channels), dtype=np.uint8),
        "actual": actual,
        "predicted": predicted,
        "probability": np.full((rows, size), 0.99),
        "success": np.ones((rows, size), bool),
        "classes": classes,
        **FRAME,
    }


def test_curves_are_the_means_and_the_band_is_the_range_of_the_test_set():
    figure = records.draw_mean_curves(make_curves("tanh-5", "lecun-20"), seeds=7, **FRAME)
    check_layout(figure)
    accuracy, loss = figure.axes[0], figure.axes[2]
    train, test = accuracy.get_lines()
    np.testing.assert_allclose(y_of(train)[-1], 90)
    np.testing.assert_allclose(y_of(test), [90, 86.6667, 83.3333, 80], atol=1e-3)
    (band,) = bands(accuracy)
    np.testing.assert_allclose(band.get_datalim(accuracy.transData).intervaly, [75, 95])
    assert loss.get_yscale() == "log"
    assert "final test %: tanh 80.00" in accuracy.get_title()
    assert "7 seeds: mean, and band from the lowest to the highest." in texts(figure)


def test_a_single_seed_has_no_range():
    assert "1 seed. Data" in texts(
        records.draw_mean_curves(make_curves("relu-5"), seeds=1, **FRAME)
    )


def test_no_nets_are_refused():
    with pytest.raises(ValueError, match="at least one net"):
        _ = records.draw_mean_curves({}, seeds=1, **FRAME)


@pytest.mark.parametrize(("classes", "channels"), [("abc", 1), (LONG, 3)])
def test_every_cell_is_drawn_with_what_is_said_of_it(classes, channels):
    given = make_cells(classes, channels=channels)
    given["probability"][0, 1], given["probability"][1, 2] = 0.9996, 1.0
    figure = records.draw_sheet(**given)
    check_layout(figure)
    (axis,) = figure.axes
    shown = [np.asarray(image.get_array()) for image in axis.get_images()]
    pictures = np.concatenate([given["clean"][:, None], given["adversarial"]], axis=1)
    want = pictures.reshape(-1, *pictures.shape[2:])
    assert len(shown) == len(want)
    for got, picture in zip(shown, want, strict=True):
        np.testing.assert_array_equal(got.reshape(picture.shape), picture)
    said = [text.get_text().replace("\n", " ") for text in axis.texts]
    second = "b" if classes == "abc" else "automo."
    third = "c" if classes == "abc" else "bird"
    # Never 100 % for what is less than sure.
    assert f"{second} >99%" in said and f"{third} 100%" in said
    assert "Target reached: 4 of 4. Own class left: 2 of 2." in texts(figure)


def test_frames_tell_a_reached_target_from_a_class_that_was_left_and_failures_are_crossed():
    given = make_cells()
    given["success"][0, 2] = False
    (axis,) = records.draw_sheet(**given).axes
    frames = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    colours = np.array([to_hex(frame.get_edgecolor()) for frame in frames]).reshape(2, 4)
    assert colours[:, 1:].tolist() == [[RED, GREEN, BLACK], [GREEN, RED, GREEN]]
    assert len(axis.get_lines()) == 2


def test_numbers_of_another_shape_are_refused():
    given = make_cells()
    with pytest.raises(ValueError, match=r"numbers of \[2, 3\]"):
        _ = records.draw_sheet(**{**given, "success": np.ones((2, 2), bool)})
    with pytest.raises(ValueError, match="1 to 10 images toward 3 classes"):
        _ = records.draw_sheet(**{**given, "adversarial": given["adversarial"][:, :2]})
