"""Does the benchmark of attacks judge by the saved picture, count as it says, and choose fairly?"""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import numpy_cnn
import pytest
from PIL import Image

from benchmarks import attacks, board, contest, judge, measure
from configs import cnn as configs
from research.experiments import classifiers

SHAPE = (6, 6, 1)


def tiny_weights(seed=0):
    """The layers of a small net: convolutions of 2 and 3 filters, the second with a pool of 2."""
    generator = np.random.default_rng(seed)
    shapes = {"conv_0": (3, 3, 1, 2), "conv_1": (3, 3, 2, 3), "dense_0": (3, 5), "output": (5, 10)}
    weights = {"pools": np.array([1, 2])}
    for name, shape in shapes.items():
        weights[f"{name}/kernel"] = generator.normal(size=shape).astype(np.float32)
        weights[f"{name}/bias"] = generator.normal(size=shape[-1]).astype(np.float32)
    return weights


def corner_weights(threshold):
    """A net that says 1 where the first pixel is brighter than `threshold`, else 0.

    One convolution of size 1, and the first unit of the dense layer reads the first pixel.
    """
    kernel = np.zeros((36, 1))
    kernel[0] = 1
    return {
        "pools": np.array([1]),
        "conv_0/kernel": np.ones((1, 1, 1, 1)),
        "conv_0/bias": np.zeros(1),
        "dense_0/kernel": kernel,
        "dense_0/bias": np.zeros(1),
        "output/kernel": np.eye(1, 10, 1),
        "output/bias": np.array([threshold, 0.0, *[-9.0] * 8]),
    }


def one_image(first, dtype=np.float32):
    image = np.zeros(SHAPE, dtype)
    image[0, 0] = first
    return image


def cells_of(*firsts, dtype=np.float32):
    """Cells [1, 2, ...] for targets 0 and 1 of one image."""
    return np.stack([one_image(first, dtype) for first in firsts])[None]


def test_the_judges_net_is_the_one_written_out_by_hand():
    weights = tiny_weights()
    images = np.random.default_rng(1).random((60, *SHAPE))
    layers = {name: {} for name in ("conv_0", "conv_1", "dense_0", "output")}
    for name in layers:
        layers[name] = {leaf: weights[f"{name}/{leaf}"] for leaf in ("kernel", "bias")}
    x = numpy_cnn.relu(numpy_cnn.conv(images, layers["conv_0"]))
    x = numpy_cnn.pool(numpy_cnn.relu(numpy_cnn.conv(x, layers["conv_1"])), 2)
    x = numpy_cnn.relu(numpy_cnn.dense(x.reshape(60, -1), layers["dense_0"]))
    expected = numpy_cnn.dense(x, layers["output"])
    np.testing.assert_allclose(judge.logits(weights, images), expected, rtol=1e-12, atol=1e-12)


def test_the_judges_net_is_the_net_of_the_config():
    config = configs.get_config("mnist")
    config.filters, config.dense = (3, 4), (5,)
    model = classifiers.make_model(config, 10)
    images = np.random.default_rng(1).random((2, 8, 8, 1)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    draw = np.random.default_rng(2).normal
    params = jax.tree.map(lambda leaf: draw(size=leaf.shape).astype(np.float32), shapes)
    weights = {f"{n}/{k}": np.asarray(v) for n, layer in params.items() for k, v in layer.items()}
    found = judge.logits({**weights, "pools": np.array(config.pools)}, images)
    expected = jax.jit(model.apply)({"params": params}, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_bytes_are_the_nearest_levels_and_a_png_keeps_them():
    floats = np.array([0.0, 0.5, 1.5, 1.51, 254.6, 255.0, -3.0, 300.0]) / 255
    assert judge.to_bytes(floats).tolist() == [0, 0, 2, 2, 255, 255, 0, 255]
    for channels in (1, 3):
        images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, channels), np.uint8)
        assert judge.to_bytes(images) is images
        np.testing.assert_array_equal(judge.through_png(images), images)


def test_the_judge_reads_what_was_saved(monkeypatch):
    read = Image.open

    def read_darker(file):
        return Image.fromarray(np.asarray(read(file)) // 2)

    originals, labels = one_image(0, np.uint8)[None], np.array([0])
    bright = cells_of(200, 200, dtype=np.uint8)
    plain = judge.judge(corner_weights(0.5), originals, labels, bright)
    monkeypatch.setattr(judge.Image, "open", read_darker)
    darker = judge.judge(corner_weights(0.5), originals, labels, bright)
    assert plain.success.all() and not darker.success.any()
    assert darker.l2[0, 0] == pytest.approx(100 / 255)


def test_a_success_that_vanishes_on_rounding_is_refused():
    weights = corner_weights(100.3 / 255)
    originals, labels = one_image(0, np.uint8)[None], np.array([0])
    # 100.4 levels are over the threshold and are saved as 100, which is not; 101 is.
    verdict = judge.judge(weights, originals, labels, cells_of(0, 100.4 / 255))
    assert verdict.floats.tolist() == [[False, True]]
    assert verdict.success.tolist() == [[False, False]]
    verdict = judge.judge(weights, originals, labels, cells_of(0, 100.6 / 255))
    assert verdict.success.tolist() == [[False, True]]
    assert verdict.l2[0, 1] == pytest.approx(101 / 255)
    assert judge.summarize(verdict, labels)["survivors"] == 1


def test_the_own_cell_is_a_success_where_the_class_is_left():
    weights = corner_weights(0.5)
    originals = np.stack([one_image(0, np.uint8), one_image(200, np.uint8)])
    labels = np.array([0, 1])
    images = np.concatenate([cells_of(200, 200, dtype=np.uint8), cells_of(9, 9, dtype=np.uint8)])
    verdict = judge.judge(weights, originals, labels, images)
    assert verdict.success.tolist() == [[True, True], [True, True]]
    swapped = judge.judge(weights, originals, labels, images[::-1])
    assert swapped.success.tolist() == [[False, False], [False, False]]
    found = judge.summarize(verdict, labels)
    assert (found["targeted"], found["own"], found["floats"], found["survivors"]) == (2, 2, 4, 4)
    # The distance is that of the targeted cells: 200 levels of the one, 191 of the other.
    assert found["median_l2"] == pytest.approx((200 + 191) / 2 / 255)
    assert judge.summarize(swapped, labels)["median_l2"] is None


def test_pixels_that_are_no_numbers_and_black_pictures_are_seen():
    weights = corner_weights(0.5)
    originals, labels = one_image(200, np.uint8)[None], np.array([1])
    images = cells_of(0, np.nan)
    verdict = judge.judge(weights, originals, labels, images)
    assert verdict.floats.tolist() == verdict.success.tolist() == [[True, False]]
    assert verdict.black.tolist() == [[True, True]]
    assert judge.summarize(verdict, labels)["black"] == 1
    with pytest.raises(ValueError, match="do not fit"):
        _ = judge.judge(weights, originals, labels, images[:, :, :-1])


def turn(targeted, own, **others):
    given = {"floats": targeted + own, "survivors": targeted + own, "black": 0, "median_l2": 1.0}
    return {"targeted": targeted, "own": own, **given, "cells": 500, "gradients": 5000, **others}


def one(seconds, turns, **setting):
    return {"setting": setting, "seconds": seconds, "turns": turns, "peak_mib": 100.0,
            "difference": 1e-6}  # fmt: skip


def attack_results():
    ours = one([30.0, 10.0, 20.0, 10.0], [turn(450, 50)] * 4, method="default")
    quick = one([15.0, 5.0, 5.0, 5.0], [turn(450, 50, median_l2=1.2)] * 4, method="default")
    faithful = one([9.0, 50.0, 50.0, 50.0], [turn(430, 50, gradients=10_500)] * 4, method="x")
    lost = turn(400, 40, floats=460, survivors=440, median_l2=0.5, black=2, gradients=2200)
    cw = one([5.0, 4.0, 40.0, 4.0], [lost] * 4, attack="cw", steps=25)
    nothing = turn(0, 0, median_l2=None)
    torchattacks = one([5.0, 4.0, 5.0, 5.0], [nothing] * 4, steps=50)
    loop = one([9.0, 1.0, 1.0, 1.0], [{"begin": 1.0, "epoch": 0.1}] * 4, epochs=50)
    return {
        "device": "Abacus, 2 cores", "date": "2024-02-29", "data": "MNIST", "missing": ["ddn"],
        "versions": {"jax": "1.2"}, "threads": {"ours": 2}, "accuracy": 0.981, "parameters": 1234,
        "run": {"seed": 0, "epoch": 4}, "cells": {"targeted": 450, "own": 50},
        "tuning": {"min_success": 0.96, "cells": 100, "short": ["torchattacks"], "date": "x"},
        "contestants": {"ours": ours, "quick": quick, "faithful": faithful, "cw": cw,
                        "torchattacks": torchattacks, "loop": loop},
    }  # fmt: skip


def cells(table, label):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_table_has_rates_of_judged_successes_with_paired_ratios_and_the_best_in_bold():
    table = attacks.table(attack_results())
    # Ours 50, 25 and 50 a second, C&W 110, 11 and 110: of the ratios the middle one, not 50/110.
    others = ["9.60 (5.21; 10.42)", "**110.00** (0.45; 0.91)", "0.00", "≈ 0.32 (156; 312)"]
    expected = ["50.00", "100.00", *others]
    assert cells(table, "judged successes per second") == expected
    expected = ["10.0", "5.0", "50.0", "4.0", "5.0", "≈ 1,500.0"]
    assert cells(table, "all cells, one call (s)") == expected
    expected = ["20.0", "10.0", "**0.0**", "1.0", "**0.0**", "-"]
    assert cells(table, "once, in the first call (s)") == expected
    assert cells(table, "targets reached, of 450") == ["**450**", "**450**", "430", "400", "0", "-"]
    assert cells(table, "own class left, of 50") == ["**50**", "**50**", "**50**", "40", "0", "-"]
    norms = ["1.00", "1.20", "1.00", "**0.50**", "-", "-"]
    assert cells(table, "median L2 of targets reached") == norms
    lost = "float successes lost in the PNG (%)"
    assert cells(table, lost) == ["**0.0**", "**0.0**", "**0.0**", "4.3", "-", "-"]
    gradients = ["10", "10", "22", "**5**", "-", "-"]
    assert cells(table, "gradients of an image per success") == gradients


def test_what_is_extrapolated_is_never_the_best():
    results = attack_results()
    results["contestants"]["loop"]["turns"] = [{"begin": 1e-6, "epoch": 1e-6}] * 4
    *_, cw, _, loop = cells(attacks.table(results), "judged successes per second")
    assert cw.startswith("**") and loop.startswith("≈ ") and "*" not in loop


def test_the_table_says_what_is_extrapolated_black_missing_and_how_peers_were_set():
    table = attacks.table(attack_results())
    assert "≈: extrapolated." in table and "1.00 s until the first was done and 100.0 ms" in table
    assert "All-black images among the successes: foolbox C&W: 2." in table
    assert "Missing here: foolbox DDN" in table and "foolbox C&W: steps 25" in table
    assert "at least 96% judged successes, which none of torchattacks C&W had" in table
    assert "at most 1.0e-06 on 1,000 images" in table and "Abacus" in table


def tried(seconds, targeted, own):
    return {"setting": {"steps": seconds}, "seconds": seconds, "targeted": targeted, "own": own}


def test_the_fastest_setting_that_reaches_enough_is_chosen_else_the_one_with_most():
    some = [tried(1.0, 85, 10), tried(3.0, 90, 10), tried(2.0, 86, 10)]
    assert attacks.choose(some, 100, 0.96)["seconds"] == 2.0
    assert attacks.choose(some, 100, 0.95)["seconds"] == 1.0
    few = [tried(1.0, 50, 1), tried(3.0, 51, 2), tried(2.0, 51, 2)]
    assert attacks.choose(few, 100, 0.96)["seconds"] == 2.0


def test_the_tuning_table_has_every_setting_and_marks_the_chosen():
    rows = [{**tried(2.0, 90, 8), "median_l2": 1.5}, {**tried(1.0, 0, 0), "median_l2": None}]
    head = {"device": "Abacus", "versions": {}, "data": "MNIST", "date": "x"}
    tuning = {**head, "tried": {"cw": rows}, "chosen": {"cw": {"steps": 2.0}}, "cells": 100,
              "min_success": 0.96, "short": []}  # fmt: skip
    table = attacks.tuning_table(tuning)
    assert cells(table, r"**foolbox C&W: steps 2.0**") == ["98.0%", "1.50", "2.0"]
    assert cells(table, "foolbox C&W: steps 1.0") == ["0.0%", "-", "1.0"]


def test_the_images_are_the_first_right_ones_of_every_digit_and_others_for_the_tuning(capsys):
    labels = np.tile(np.arange(10), 5)
    right = np.ones(50, bool)
    right[0] = False
    first = attacks.choose_images(right, labels, 0, 2)
    assert first.tolist() == [10, 20, 2, 12, 4, 14, 6, 16, 8, 18]
    later = attacks.choose_images(right, labels, 2, 2)
    assert not set(first) & set(later) and labels[later].tolist() == labels[first].tolist()
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = attacks.choose_images(right, labels, 0, 5)
    assert capsys.readouterr().err.startswith("error: --images: too few of digit 0")


def test_targeted_cells_are_all_but_the_label():
    rows, targets = contest.targeted_cells(np.array([3, 0]))
    assert rows.tolist() == [0] * 9 + [1] * 9
    assert targets[:9].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert targets[9:].tolist() == list(range(1, 10))


@pytest.mark.parametrize("name", attacks.CONTESTANTS)
def test_every_contestant_is_told_its_settings_and_the_net(name, tmp_path):
    argv = attacks.command(name, [{"steps": 3}], tmp_path, "python")
    assert (argv[0] == "python") == bool(attacks.CONTESTANTS[name].packages)
    assert (measure.ROOT / "benchmarks" / f"{argv[2].partition('.')[2]}.py").is_file()
    options = contest.parse_attack(argv[3:])
    assert (options.name, options.settings, options.directory) == (name, [{"steps": 3}], tmp_path)
    assert options.net["filters"] == list(configs.get_config("mnist").filters)


def test_nets_that_are_not_the_same_are_one_line():
    same = {"parameters": 5, "difference": 1e-6}
    attacks.check_nets({"ours": same, "cw": same})
    with pytest.raises(SystemExit, match=r"^error: the nets differ in their parameters"):
        attacks.check_nets({"ours": same, "cw": {**same, "parameters": 6}})
    for wrong in (2e-4, float("nan")):
        with pytest.raises(SystemExit, match=r"^error: foolbox C&W: logits differ by"):
            attacks.check_nets({"ours": same, "cw": {**same, "difference": wrong}})


CHILD = """
import json, numpy as np
from benchmarks import contest
options = contest.parse_attack({argv!r})
sample, weights = contest.read_attacked(options.directory)
contest.announce(images=len(sample.images), pools=weights["pools"].tolist())
def attack(setting):
    cells = np.broadcast_to(np.uint8(setting["level"]), (1, 10, 6, 6, 1))
    return {{"images": cells, "gradients": 20}}
contest.take_attacks(options, attack)
"""


def test_turns_go_through_the_settings_and_their_files_are_judged(tmp_path):
    weights, image = corner_weights(0.5), one_image(0, np.uint8)[None]
    sample = contest.Sample(image, np.array([0]), image, np.zeros((1, 10)))
    np.savez(tmp_path / "sample.npz", **sample._asdict())
    np.savez(tmp_path / "weights.npz", **weights)
    argv = attacks.command("cw", [{"level": 0}, {"level": 255}], tmp_path, "python")[3:]
    child = [sys.executable, "-c", CHILD.format(argv=argv)]
    with measure.Paced("Somebody", child) as contestant:
        assert contestant.facts == {"images": 1, "pools": [1]}
        (seconds,) = measure.pace({"it": contestant}, 3).values()
    assert len(seconds) == 3
    prepared = attacks.Prepared({}, weights, sample, 1.0, tmp_path)
    found = [attacks.judge_turn("cw", i, prepared) for i in range(3)]
    assert [one["targeted"] for one in found] == [0, 1, 0]
    assert [one["own"] for one in found] == [0, 1, 0]
    assert found[1]["gradients"] == 20 and found[1]["claimed"] is None


def test_a_turn_of_the_loop_is_its_beginning_and_its_median_epoch(tmp_path):
    np.savez(contest.found_path(tmp_path, "loop", 0), begin=2.0, epochs=[0.1, 0.2, 9.0])
    sample = contest.Sample(*[np.zeros(1)] * 4)
    prepared = attacks.Prepared({}, {}, sample, 1.0, tmp_path)
    assert attacks.judge_turn("loop", 0, prepared) == {"begin": 2.0, "epoch": 0.2}


def test_a_python_without_any_peer_is_one_line_and_what_it_lacks_is_left_out(tmp_path, capsys):
    python = tmp_path / "python"

    def answer(text):
        _ = python.write_text(f"#!/bin/sh\necho '{text}'\n")
        python.chmod(0o755)

    answer('["foolbox", "tensorflow", "torch", "torchattacks"]')
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = attacks.find_missing(str(python))
    assert " torchattacks; install benchmarks/requirements.txt " in capsys.readouterr().err
    answer('["torchattacks", "tensorflow"]')
    assert attacks.find_missing(str(python)) == ["torchattacks", "loop"]
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = attacks.find_missing(str(tmp_path / "nowhere"))
    assert "cannot be run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "error: --run: name the work directory"),
        (["--run=there", "--data_dir=nowhere"], "error: --data_dir: 'nowhere' lacks"),
        (["--min_success=2"], "error: flag --min_success=2"),
        (["--min_success=0.5"], "error: --min_success needs --tune"),
        (["--table", "--output=nowhere.json"], "error: nowhere.json cannot be read"),
    ],
)
def test_a_wrong_argument_is_one_line_and_the_parent_imports_nothing_large(arguments, expected):
    code = (
        "import sys; from benchmarks import attacks;"
        "assert not {'jax', 'matplotlib'} & {*sys.modules}; attacks.main(sys.argv)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=measure.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1


def test_settings_that_were_never_chosen_are_one_line(capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = attacks.read_tuning(Path("nowhere.json"))
    line = capsys.readouterr().err
    assert line.startswith("error: --tuning: ") and "choose settings with --tune" in line


def board_row(name, gradients, norms, images=1, budget=None):
    kind = {"norms": norms, "floats": norms, "lost": [0] * len(norms)}
    about = {"net": "mnist", "first": 5000, "images": images, "setting": {}, "seconds": 1.0}
    about |= {"epoch": 4, "filters": [32], "dense": [8], "data": "MNIST"}
    return {
        **about,
        "name": name,
        "budget": budget or gradients,
        "gradients": float(gradients),
        "targeted": kind,
        "own": kind,
        "versions": {"jax": "1", "research": str(gradients)},
    }


def test_local_optimality_is_one_on_the_envelope_and_nothing_at_its_largest_norm():
    rows = [{"norms": norms} for norms in ([1.0, 3.0], [3.0, None], [2.0, 3.0], [1.0, 9.0])]
    assert [board.local_optimality(row, rows) for row in rows] == [1.0, 0.0, 0.5, 1.0]
    assert board.local_optimality(rows[1], rows[1:2] * 2) == 1.0


def board_lines(rows):
    results = {"rows": rows, "missing": ["cw"], "device": "CPU", "date": "today"}
    text = board.table(results)
    return text, [line[2:].split(" | ") for line in text.splitlines() if line.startswith("| ddn")]


def test_the_board_compares_rows_of_no_more_gradients():
    rows = [board_row("ddn", 30, [2.0, 4.0]), board_row("ddn", 100, [1.0, 3.0])]
    text, lines = board_lines([*rows, board_row("ddn", 33, [1.0, 4.0])])
    # 33 is a tenth more than 30: its norms are the envelope of both, up to 4; 100 has its own.
    assert [(line[0], line[7]) for line in lines] == [
        ("ddn 30", "0.667"),
        ("ddn 33", "1.000"),
        ("ddn 100", "1.000"),
    ]
    assert "Not installed: cw." in text and "jax 1, research 30 and 100 and 33" in text


def test_rows_of_a_net_are_compared_on_the_images_that_they_have_in_common():
    """Two cells an image; at 30 gradients ddn has two images and the others one."""
    rows = [
        board_row("ddn", 30, [2.0, 3.0, 9.0, 9.0], images=2),
        board_row("lagrangian", 100, [5.0, 1.0, 1.0, 1.0], images=2),
        board_row("fmn", 30, [3.0, 1.0]),
        board_row("ddn", 500, [2.0, 2.0]),
    ]
    text, lines = board_lines(rows)
    # On both images with 30 gradients; then on the first, where the envelope is 2 and 1.
    assert [(line[0], line[4], line[7]) for line in lines] == [
        ("ddn 30", "3.000 / 5.750 / 9.000", "1.000"),
        ("ddn 30", "2.000 / 2.500 / 2.000", "0.000"),
        ("ddn 500", "2.000 / 2.000 / 2.000", "0.000"),
    ]
    larger, smaller = (text.index(f"; {count} images from") for count in (2, 1))
    assert larger < smaller and "lagrangian 100" not in text[larger:]
    again = board_row("ddn", 30, [8.0, 8.0])
    assert again in board.on_common_images([*rows, again], 1)
    assert board.on_common_images([again, *rows], 2) == rows[:2]


def test_the_board_measures_what_is_missing_and_what_something_else_has_made(
    tmp_path, monkeypatch, capsys
):
    facts = {"name": "mnist", "weights": "a", "epoch": 1, "data": "MNIST"}
    facts |= {"net": {"filters": [1], "dense": [1]}}
    measured = []

    def compete(job, publish):
        for budget, setting in job.settings.items():
            count = job.about["images"]
            row = board_row("", budget, [1.0] * count, images=count)
            publish(row | job.about | {"setting": setting})
            measured.append((count, budget))

    monkeypatch.setattr(board, "compete", compete)
    monkeypatch.setattr(board, "prepare", lambda *_: facts)
    monkeypatch.setattr(board, "draw", lambda *_: None)
    argv = ["board", "--contestants=lagrangian", f"--output={tmp_path / 'board.json'}"]

    def run(*more):
        measured.clear()
        assert board.main([*argv, *more]) == 0
        _ = capsys.readouterr()
        return sorted(measured)  # two jobs run at once

    first = [(10, 200), (50, 20), (50, 30), (50, 100)]
    assert run("--run=run", "--steps=200") == first
    assert run("--steps=1000") == [(5, 500), (5, 1000)]  # --run is still that of before
    assert run() == []
    monkeypatch.setattr(board, "_SOURCE", tmp_path)  # where no attack's source is
    assert run() == [(5, 500), (5, 1000), *first]
    facts["weights"] = "b"
    assert len(run()) == 6 == len(measure.read(tmp_path / "board.json")["rows"])


def test_versions_are_those_of_the_packages_that_are_there():
    there = measure.find_versions(sys.executable, ["numpy", "no-such-package"])
    assert there == {"numpy": np.__version__}


def test_a_new_row_takes_the_place_of_the_one_of_its_own_sample_alone():
    rows = [board_row("ddn", 30, [2.0]), board_row("ddn", 30, [3.0], images=10)]
    new = board_row("ddn", 30, [1.0], images=10)
    assert board.replace(rows, new) == [rows[0], new]


def test_the_board_names_the_peers_that_win_for_as_many_gradients():
    norms = [float(n) for n in range(11)]  # of which 5 is the median and 9 the quantile
    ours = [board_row("lagrangian", 30, norms), board_row("lagrangian", 100, [0.5] * 11)]

    def winners(*peer):
        return board.winners([board_row("ddn", *peer)], ours)

    assert winners(30, [*norms[:10], None]).startswith("No peer")
    words = winners(28, [*norms[:5], 4.5, *norms[6:]])
    assert "ddn 28, targeted, median: 4.500 against 5.000 (10.0% less)" in words
    assert "quantile" not in words and "untargeted" in words
    # One with more gradients than ours stands against the best of ours that has as many.
    assert winners(100, norms).startswith("No peer")


def test_a_board_row_has_the_norms_on_bytes_and_what_rounding_has_cost(tmp_path):
    weights, originals = corner_weights(100.3 / 255), one_image(0, np.uint8)[None]
    sample = contest.Sample(originals, np.array([0]), originals, np.zeros((1, 10)))
    np.savez(tmp_path / "weights.npz", **weights)
    np.savez(tmp_path / "sample.npz", **sample._asdict())
    cells = np.zeros((1, 10, *SHAPE), np.float32)
    floats = cells.copy()
    cells[0, :2], floats[0, :2] = one_image(101 / 255), one_image(100.4 / 255)
    path = contest.found_path(tmp_path, "peer", 0)
    np.savez(path, images=cells, floats=floats, gradients=50)
    row = board.row_of(tmp_path, "peer", 0)
    assert row["gradients"] == 5
    for kind, count in (("targeted", 9), ("own", 1)):
        assert row[kind]["norms"][0] == pytest.approx(101 / 255, abs=1e-5)
        assert row[kind]["floats"][0] == pytest.approx(100.4 / 255, abs=1e-5)
        assert row[kind]["lost"] == [1] + [0] * (count - 1) and len(row[kind]["norms"]) == count
    assert row["targeted"]["norms"][1:] == [None] * 8
