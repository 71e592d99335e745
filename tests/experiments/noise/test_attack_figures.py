import numpy as np
import pytest
import toy_attack as toy

from research.data import datasets
from research.experiments.noise import attack_figures
from research.experiments.noise.samples import Sample
from research.figures import noise as pictures
from research.storage import attack_files

NAMES = datasets.CLASSES["mnist"]


@pytest.fixture
def drawn(monkeypatch):
    """What every figure is given, {name of the figure: [its arguments]}."""
    seen = {}
    for name in (
        *("draw_grid", "draw_noise", "draw_success", "draw_distributions"),
        *("draw_robust_accuracy", "draw_transfer"),
    ):

        def note(*args, name=name, **options):
            seen.setdefault(name, []).append((args, options))
            return name

        monkeypatch.setattr(pictures, name, note)
    return seen


def cells(into, count):
    """Rows and pictures of `count` images, each value of a picture its image's number."""
    rows = []
    for image in range(count):
        file = f"{image}.png"
        attack_files.write_png(into / file, np.full((2, 2, 1), image, np.uint8))
        for target in range(10):
            rows.append(
                {
                    **{"image": image, "actual": image % 10, "target": target, "file": file},
                    **{"success": target != 3, "l2": 1.0 + image + target / 10, "linf": 0.2},
                    **{"l0": 3, "steps": 5, "predicted": target, "probability": 0.5},
                }
            )
    return rows


def sample(count):
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 1)
    )
    numbers = np.arange(count)
    return Sample(np.array(images), np.int32(numbers % 10), numbers, "")


def draw(into, rows, count):
    shares = np.random.default_rng(0).dirichlet(np.ones(10), count)
    matrix = {key: key for key in ("won", "tried", "won_correct", "tried_correct")}
    found = attack_figures.draw("net", into, rows, matrix, shares, sample(count), NAMES, "made so")
    return found, shares


def test_every_image_is_in_the_grid_with_its_cells_ten_a_page_by_classes(drawn, tmp_path):
    rows = cells(tmp_path, 12)
    found, shares = draw(tmp_path, rows, 12)
    assert list(found) == ["grid_1", "grid_2", "noise", "success", "distributions"]
    pages = drawn["draw_grid"]
    order = np.concatenate([args[0][:, 0, 0, 0] for args, _ in pages])
    assert order.tolist() == [0, 10, 1, 11, *range(2, 10)]
    for args, options in pages:
        _, made = args
        places = args[0][:, 0, 0, 0]
        assert made.shape == (len(places), 10, 2, 2, 1)
        np.testing.assert_array_equal(made[..., 0, 0, 0], np.repeat(places[:, None], 10, axis=1))
        np.testing.assert_array_equal(options["actual"], places % 10)
        np.testing.assert_array_equal(options["clean_predicted"], shares[places].argmax(axis=1))
        np.testing.assert_array_equal(options["clean_probability"], shares[places].max(axis=1))
        assert options["predicted"] == [list(range(10))] * len(places)
        assert options["success"] == [[target != 3 for target in range(10)]] * len(places)


def test_a_large_sample_fills_five_pages_with_its_first_images_of_all_classes(drawn, tmp_path):
    found, _ = draw(tmp_path, cells(tmp_path, 55), 55)
    assert [name for name in found if "grid" in name] == [f"grid_{page}" for page in range(1, 6)]
    shown = np.concatenate([args[0][:, 0, 0, 0] for args, _ in drawn["draw_grid"]])
    assert sorted(shown.tolist()) == list(range(50))
    assert [int(shown[10 * page] % 10) for page in range(5)] == [0, 2, 4, 6, 8]


def test_examples_are_targeted_successes_from_the_smallest_noise_to_the_largest(drawn, tmp_path):
    rows = cells(tmp_path, 12)
    _, _ = draw(tmp_path, rows, 12)
    ((clean, made, titles), _) = drawn["draw_noise"][0]
    assert titles[0] == "0: 0 to 1, L2 1.10" and titles[-1] == "11: 1 to 9, L2 12.90"
    np.testing.assert_array_equal(clean, made)  # each beside the image that it was made of
    assert len(titles) == 4 and list(clean[:, 0, 0, 0]) == sorted(clean[:, 0, 0, 0])
    few = [row for row in rows if row["image"] == 0 and row["target"] in (1, 2)]
    chosen = attack_files.targeted_examples(few, attack_figures.EXAMPLES)
    assert [row["target"] for row in chosen] == [1, 2]


def test_where_nothing_succeeds_there_are_no_examples(drawn, tmp_path):
    rows = [{**row, "success": row["target"] == row["actual"]} for row in cells(tmp_path, 2)]
    found, _ = draw(tmp_path, rows, 2)
    assert "noise" not in found and "draw_noise" not in drawn


def test_counts_and_columns_are_given_in_their_order_and_linf_in_levels(drawn, tmp_path):
    rows = cells(tmp_path, 2)
    _ = draw(tmp_path, rows, 2)
    ((counts, _),) = drawn["draw_success"]
    assert counts == ("won", "tried", "won_correct", "tried_correct", NAMES)
    (((steps, l2, linf, l0, success, own), _),) = drawn["draw_distributions"]
    assert set(steps) == {5} and set(l0) == {3} and set(linf) == {51.0}
    np.testing.assert_array_equal(l2, [row["l2"] for row in rows])
    np.testing.assert_array_equal(success, [row["target"] != 3 for row in rows])
    np.testing.assert_array_equal(own, [row["target"] == row["actual"] for row in rows])
    assert all(options["caption"] == "made so" for each in drawn.values() for _, options in each)


def test_more_nets_than_can_be_told_apart_are_drawn_in_equal_parts(drawn):
    robust = {
        **{"levels": [0, 4], "count": 9, "norm": "l2", "steps": 3, "restarts": 2},
        "hits": {f"net {i}": [9 - i, 0] for i in range(8)},
    }
    found = attack_figures.draw_budgets(robust, "made so")
    assert list(found) == ["robust_accuracy_1", "robust_accuracy_2"]
    both = drawn["draw_robust_accuracy"]
    assert [list(args[1]) for args, _ in both] == [
        *([f"net {i}" for i in range(4)], [f"net {i}" for i in range(4, 8)])
    ]
    for args, options in both:
        assert (args[0], args[2]) == ([0, 4], 9)
        assert all(args[1][name] == robust["hits"][name] for name in args[1])
        assert options["unit"] == "L2, times 255"
        assert options["caption"] == "made so. 3 steps, 2 starts"
    robust |= {"norm": "linf", "hits": {"net": [3, 2]}}
    assert list(attack_figures.draw_budgets(robust, "")) == ["robust_accuracy"]
    assert both[-1][1]["unit"] == "Linf, levels of 8 bits"


def test_a_share_of_nothing_is_an_empty_cell_of_the_transfers(drawn):
    transfer = {"names": ["a", "b"], "rates": [[1.0, None], [0.5, 1.0]], "counts": [3, 2]}
    _ = attack_figures.draw_transfers(transfer, "made so")
    (((rates, names, counts), options),) = drawn["draw_transfer"]
    np.testing.assert_array_equal(rates, [[1.0, np.nan], [0.5, 1.0]])
    assert (names, counts, options["caption"]) == (["a", "b"], [3, 2], "made so")


def test_the_figures_take_what_an_attack_leaves(tmp_path):
    """Nothing is left out or of another type, with the figures as they are."""
    rows = cells(tmp_path, 1)
    for row in rows:
        row |= {"success": row["target"] != 3 and row["actual"] != row["target"]}
    images = toy.data().images[:1]
    attack_files.write_png(tmp_path / rows[0]["file"], images[0])
    counts = np.ones((10, 10), int).tolist()
    matrix = dict.fromkeys(("won", "tried", "won_correct", "tried_correct"), counts)
    one = Sample(images, np.zeros(1, np.int32), np.zeros(1, np.int64), "")
    found = attack_figures.draw(
        "net", tmp_path, rows, matrix, np.eye(10)[:1], one, NAMES, "made so"
    )
    assert set(found) == {"grid_1", "noise", "success", "distributions"}
