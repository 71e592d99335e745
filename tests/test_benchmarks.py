"""Do the benchmarks compute the ratios they print, and refuse wrong arguments in one line?"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import (
    cnn,
    contest,
    counterfactuals,
    depth,
    layers,
    layers_cnn,
    masks_net,
    measure,
    ours,
    ours_cnn,
    ours_masks,
    plan,
    probe,
    processes,
    scaling,
    seeds,
    spectrum,
    study,
    theory,
)
from configs import cnn as configs
from configs import masks
from configs import mlp as mlp_configs
from research.experiments import classifiers
from research.experiments import depth as depth_study
from research.structs import Config, Dataset
from research.training import optim

HEAD = {"device": "Abacus, 2 cores", "date": "2024-02-29", "data": "MNIST"}


def depth_results() -> dict[str, object]:
    samples = {"ours": [1.0, 2.0, 9.0], "keras": [4.0, 4.0, 90.0], "keras_jit": [2.0, 2.0, 9.0]}
    return {
        **HEAD,
        "missing": ["torch"],
        "versions": {"jax": "1.2", "keras": "3.4"},
        "threads": {"ours": 1},
        "steady": {"relu-5": samples},
        "command": {
            "net": "tanh-40",
            "epochs": 10,
            "seconds": {"ours": [10.0], "ours_again": [5.0], "keras": [20.0]},
            "peak_mib": {"ours": [600.0], "ours_again": [500.0], "keras": [2000.0]},
            "test_accuracy": {"ours": [0.9512], "ours_again": [0.9512], "keras": [0.95]},
            "first_step": {"ours": [7.0], "ours_again": [3.25]},
        },
    }


def cells(table: str, label: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_depth_table_has_medians_and_medians_of_paired_ratios() -> None:
    table = depth.table(depth_results())
    # Of the ratios 1/4, 2/4 and 9/90 the median is 0.25; 2/4 would be that of the medians.
    assert cells(table, "relu-5, steady epoch (s)") == ["2.00", "4.00 (0.25)", "2.00 (1.00)"]
    assert cells(table, "tanh-40, 10 epochs, first start (s)") == ["10.0", "20.0 (0.50)", "-"]
    assert cells(table, "tanh-40, 10 epochs, second start (s)") == ["5.0", "20.0 (0.25)", "-"]
    assert cells(table, "... until its first step (s)") == ["3.2", "-", "-"]
    assert cells(table, "peak memory, first start (MiB)") == ["600", "2,000 (0.30)", "-"]
    assert cells(table, "test accuracy (%)") == ["95.12", "95.00", "-"]


def test_the_depth_table_says_what_it_was_measured_on_and_which_peer_is_missing() -> None:
    table = depth.table(depth_results())
    assert "Missing here: PyTorch" in table and "benchmarks/requirements.txt" in table
    assert "Abacus, 2 cores; jax 1.2, keras 3.4; MNIST; 2024-02-29. Threads: ours: 1." in table
    whole = {**depth_results(), "missing": []}
    assert "Missing" not in depth.table(whole)


def test_the_other_tables_form_their_ratios_the_same_way() -> None:
    on_off = {"on": [1.0, 3.0, 9.0], "off": [1.0, 2.0, 9.0]}
    expected = ["3.000", "2.000", "1.500", "1.000"]
    assert cells(probe.table({**HEAD, "seconds": {"relu-5": on_off}}), "relu-5") == expected

    forms = {f"{form}, probe {p}": [2.0] for form in ("unrolled", "scanned") for p in ("on", "off")}
    slower = {**forms, "scanned, probe on": [4.0]}
    table = layers.table({**HEAD, "net": "tanh-40", "compile": forms, "epoch": slower})
    assert cells(table, "compile, probe on (s)") == ["2.00", "2.00", "1.00"]
    assert cells(table, "steady epoch, probe on (s)") == ["2.00", "4.00", "0.50"]

    digests = {"alone": ["a", "b"], "map_2": ["a", "b"], "vmap_1": ["a", "c"]}
    seconds = {"alone": [4.0], "map_2": [2.0], "vmap_1": [6.0]}
    table = seeds.table(
        {**HEAD, "net": "tanh-5", "seeds": 2, "digests": digests, "seconds": seconds}
    )
    assert cells(table, "lax.map") == ["2", "1.000", "0.50", "2 of 2"]
    assert cells(table, "vmap") == ["1", "3.000", "1.50", "1 of 2"]


def test_a_child_is_measured_with_its_memory_its_time_and_the_line_watched_for() -> None:
    # In a process of its own: a child never seems smaller than its parent, and this one is large.
    child = (
        "import sys, time; kept = b'x' * 2**26; time.sleep(0.2); print('ready', file=sys.stderr);"
        "time.sleep(0.1); print('done'); sys.exit(3)"
    )
    code = (
        "import dataclasses, json, sys; from benchmarks import measure;"
        f"runs = [measure.run([sys.executable, '-c', c], watch='ready') for c in ({child!r}, '')];"
        "print(json.dumps([dataclasses.asdict(run) for run in runs]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=measure.ROOT, capture_output=True, text=True, check=True
    )
    large, small = json.loads(done.stdout)
    assert large["returncode"] == 3 and large["output"] == "done\n" and large["errors"] == "ready\n"
    assert 0.2 <= large["seen_s"] <= large["seconds"] - 0.1
    assert large["peak_mib"] - small["peak_mib"] == pytest.approx(64, abs=16)
    assert small["seen_s"] is None and small["returncode"] == 0


def test_paced_contestants_answer_and_a_dead_one_is_one_line() -> None:
    code = (
        "import time; from benchmarks import contest;"
        "contest.announce(versions={'a': '1'}); contest.wait(); contest.report(0.5);"
        "contest.wait(); raise RuntimeError('out of memory')"
    )
    with measure.Paced("Somebody", [sys.executable, "-c", code]) as contestant:
        assert contestant.facts == {"versions": {"a": "1"}}
        assert contestant.turn() == 0.5
        with pytest.raises(SystemExit, match=r"^error: Somebody failed: .*out of memory$"):
            _ = contestant.turn()
    assert contestant.peak_mib > 1


def test_contestants_take_turns_until_the_parent_leaves() -> None:
    code = (
        "import time; from benchmarks import contest; contest.announce(versions={});"
        "contest.take_turns(lambda: time.sleep(0.01))"
    )
    with measure.Paced("Somebody", [sys.executable, "-c", code]) as contestant:
        (seconds,) = measure.pace({"it": contestant}, 3).values()
    assert len(seconds) == 3 and min(seconds) >= 0.01


def test_functions_take_turns_and_the_first_round_is_dropped() -> None:
    calls: list[str] = []
    samples = measure.alternate({n: lambda n=n: calls.append(n) for n in ("a", "b")}, rounds=2)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(seconds) for name, seconds in samples.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs=0"], "error: flag --epochs=0"),
        (["--epoch=1"], "error: Unknown command line flag 'epoch'"),
        (["all"], "error: unexpected argument 'all'"),
        (["--nets="], "error: --nets: empty"),
        (["--data_dir=nowhere"], "error: --data_dir: 'nowhere' lacks train-images-idx3-ubyte"),
        (["--table", "--output=nowhere.json"], "error: nowhere.json cannot be read"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.depth", *arguments],
        cwd=measure.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1


def test_a_python_without_any_peer_is_one_line_that_names_the_requirements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    _ = python.write_text('#!/bin/sh\necho \'["tensorflow", "torch"]\'\n')
    python.chmod(0o755)
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = measure.find_missing(str(python))
    line = capsys.readouterr().err
    assert " neither tensorflow nor torch; install benchmarks/requirements.txt " in line
    _ = python.write_text("#!/bin/sh\necho '[\"torch\"]'\n")
    assert measure.find_missing(str(python)) == ["torch"]
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = measure.find_missing(str(tmp_path / "nowhere"))
    assert "cannot be run" in capsys.readouterr().err


def test_the_parent_of_the_contestants_imports_nothing_large() -> None:
    code = (
        "import benchmarks.cnn, benchmarks.depth, sys;"
        "print(sorted({'jax', 'matplotlib'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=measure.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_peers_read_the_files_that_our_door_reads(tmp_path: Path) -> None:
    for name, count in zip(contest.FILES, (2, 2, 1, 1), strict=True):
        images = "images" in name
        body = bytes([0, 255, *[51] * 782] * count) if images else bytes(range(7, 7 + count))
        _ = (tmp_path / name).write_bytes(bytes(16 if images else 8) + body)
    train_images, train_labels, test_images, _ = contest.read_digits(str(tmp_path))
    assert train_images.shape == (2, 784) and test_images.shape == (1, 784)
    assert train_images[1, :3].tolist() == pytest.approx([0.0, 1.0, 0.2])
    assert train_labels.tolist() == [7, 8]


def test_the_study_table_has_a_row_for_each_start() -> None:
    taken = {"first": (120.4, 900.0), "second": (80.6, 1000.0)}
    starts = {name: {"seconds": s, "peak_mib": m} for name, (s, m) in taken.items()}
    table = study.table({**HEAD, "seeds": 1, "starts": starts})
    assert cells(table, "first start, nothing compiled") == ["120", "900"]
    assert cells(table, "second start") == ["81", "1,000"]
    assert "1 seed(s)" in table and "MNIST" in table


def test_the_spectrum_table_says_which_bars_are_met() -> None:
    row = {"rms": 0.25, "predicted_rms": 0.5, "spread": 3.8, "error": 0.1, "wide": 4.0}
    row |= {"weighted": 4.4, "finite": 4.0, "rank": 21.0}
    results: dict[str, Any] = {
        **HEAD,
        "draws": 7,
        "inputs": 3,
        "nets": {"relu-5 he": row, "tanh-5 he": row | {"spread": 4.5}, "tanh-40 orthogonal": row},
        "dense": {"parameters": 12, "error": 2e-6},
        "cost": {"relu-5": {"epoch": [1.0, 2.0, 1.0], "sharpness": {"9": [0.2, 0.2, 0.2]}}},
    }
    table = spectrum.table(results)
    assert cells(table, "relu-5 he") == [
        *("0.25 / 0.5", "3.8 ± 0.1", "4 (0.95)", "4 (1.10)", "21.0"),
    ]
    assert "relu-5 20 % on 9 images" in table
    met = [text.endswith("(met)") for text in spectrum.bars(results)]
    assert met == [False, True, True, True]
    assert "1.125 at worst" in spectrum.bars(results)[0]
    results["cost"]["relu-5"]["sharpness"]["10"] = [0.3, 0.3, 0.3]
    assert spectrum.bars(results)[3].endswith("30% at worst (missed)")


def test_an_epoch_of_ours_counts_every_image_and_records() -> None:
    config = mlp_configs.get_config()
    model = depth_study.make_model(config, "tanh-2")
    data = tiny_data(70)
    test = jax.tree.map(lambda array: array[:5], data)
    study = ours.Study(config, model, optim.make_optimizer(0.1), data, test, "random")
    trainer = ours.Trainer(study, probe=ours.probe_of(study))
    result = trainer.epoch()
    assert result.train.count.tolist() == [70] and result.test.count.tolist() == [5]
    assert trainer.states.step.tolist() == [2] and result.probe


def cnn_results() -> dict[str, object]:
    seconds = {"ours": [9.0, 1.0, 2.0, 9.0], "keras": [5.0, 4.0, 4.0, 90.0]}
    work = {"count": 10, "parameters": 1234, "seconds": seconds}
    work["peak_mib"] = {"ours": 500.0, "keras": 1000.0}
    facts = {"missing": ["torch"], "versions": {"jax": "1.2"}, "threads": {"ours": 2}}
    return {**HEAD, **facts, "batch_size": 128, "works": {"mnist": work, "gradient": work}}


def test_the_cnn_table_has_steps_what_happens_once_and_memory() -> None:
    table = cnn.table(cnn_results())
    assert cells(table, "MNIST: step (ms)") == ["200.0", "400.0 (0.25)"]
    assert cells(table, "MNIST: once, before the first step (s)") == ["7.0", "1.0"]
    assert cells(table, "MNIST: peak memory (MiB)") == ["500", "1,000 (0.50)"]
    label = "MNIST, 500 images: gradient of the images (ms)"
    assert cells(table, label) == ["200.0", "400.0 (0.25)"]
    assert "MNIST: 3 of 10; MNIST, 500 images: 3 of 10;" in table and "MNIST: 1,234." in table
    assert "Missing here: PyTorch" in table and "Threads: ours: 2." in table


def test_where_the_step_stands_is_told_by_the_ratios_of_turns_and_the_layers_alone() -> None:
    seconds = {"ours": [9.0, 1.0, 2.0, 9.0], "keras": [5.0, 4.0, 4.0, 90.0]}
    seconds["ours_copying"] = [9.0, 2.0, 2.0, 10.0]
    seconds["ours_native"] = [9.0, 0.5, 2.0, 4.5]
    peak = {"ours": 500.0, "ours_copying": 612.0, "ours_native": 1.0, "keras": 1000.0}
    work = {"seconds": seconds, "peak_mib": peak}
    rows = [
        {
            **{"net": "cifar10", "kind": "conv", "direction": direction},
            "seconds": {"ours": [a], "torch": [b], "native": [b + 0.002]},
        }
        for a, b in ((0.02, 0.01), (0.03, 0.02))
        for direction in ("forward", "kernel", "images")
    ]
    others = [row | {"net": "mnist"} for row in rows] + [row | {"kind": "dense"} for row in rows]
    text = cnn.standing({"works": {"mnist": work, "cifar10": work}}, {"rows": rows + others})
    assert "of Keras' time: 0.25 (MNIST), 0.25 (CIFAR-10)." in text
    assert "0.90 (MNIST), 0.90 (CIFAR-10) of the time without it, and 112, 112 MiB less" in text
    assert "0.12 (MNIST), 0.12 (CIFAR-10); of our own time without it 0.50 (MNIST), 0.50" in text
    assert (
        "gradients of the kernels 50 ms (34 with our own, PyTorch 30)" in text
        and "bfloat16" not in text
    )
    assert "first step 7.0 and 7.0 s" in text and "Keras 1.0 and 1.0 s" in text


def test_where_the_step_stands_is_told_without_a_compiler_and_without_pytorch() -> None:
    work = {"seconds": {"ours": [9.0, 1.0], "keras": [5.0, 4.0]}, "peak_mib": {}}
    facts = {"net": "cifar10", "kind": "conv", "seconds": {"ours": [0.02]}}
    rows = [facts | {"direction": direction} for direction in ("forward", "kernel", "images")]
    text = cnn.standing({"works": {"mnist": work, "cifar10": work}}, {"rows": rows})
    assert "gradients of the kernels 20 ms;" in text and "native" not in text


@pytest.mark.parametrize("work", cnn.WORKS.values(), ids=cnn.WORKS)
def test_every_contestant_is_told_the_net_of_the_config(work: cnn.Work) -> None:
    for name in work.names:
        argv = cnn.command(name, work, 3, data_dir="there", peer_python="python")
        switches = [word.removeprefix("--") for word in argv[7:]]
        options = contest.parse_cnn(argv[3:], *switches)
        assert (argv[0] == "python") == (name in cnn.PEERS)
        assert (options.work, options.count, options.data_dir) == (work.kind, 3, "there")
        assert options.net["variant"] == work.variant
        if name in cnn.PEERS:
            assert options.net["padding"] == work.padding
            assert options.net["filters"] == list(configs.get_config(work.variant).filters)


@pytest.mark.parametrize("texts", [["1"] * 5, ["1"] * 5 + ["0"], ["1"] * 5 + ["x"]])
def test_numbers_that_do_not_fit_the_comparisons_are_one_line(
    texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        _ = cnn.parse_numbers("steps", texts)
    line = capsys.readouterr().err
    assert line.startswith("error: --steps: expected ") and " mnist, cifar10, " in line


def tiny_config() -> Config:
    config = configs.get_config("mnist")
    config.filters, config.pools, config.dropouts = (3,), (2,), (0.25,)
    config.dense, config.batch_size = (4,), 8
    return config


def tiny_data(count: int) -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 28, 28, 1), np.uint8)
    return Dataset(images=images, labels=generator.integers(0, 10, count).astype(np.int32))


@pytest.mark.parametrize("copying", [False, True])
def test_a_turn_of_ours_is_so_many_steps_and_stays_within_the_epoch(copying: bool) -> None:
    config, data = tiny_config(), tiny_data(20)
    steps = ours_cnn.Steps(classifiers.make_task(config, 20), data, count=2, copying=copying)
    for taken in (2, 4):  # of three steps an epoch: the second turn begins another one
        counted, _ = steps.turn()
        assert counted.count.tolist() == [[8, 8]]
        assert steps.states.step.tolist() == [taken]


def test_a_turn_of_gradients_moves_the_images_step_by_step() -> None:
    data = tiny_data(20)
    turn, parameters = ours_cnn.make_turn(tiny_config(), data, "gradient", 3)
    moved = turn()
    assert isinstance(moved, jax.Array)
    assert parameters == 9 * 3 + 3 + 13 * 13 * 3 * 4 + 4 + 4 * 10 + 10
    far = np.abs(np.asarray(moved) - contest.as_floats(np.asarray(data.images))) / contest.STEP
    # Back and forth or always on: one or three steps, none where a ReLU hides the pixel.
    assert far.max() == pytest.approx(3, abs=1e-3) and far.min() >= 0


def test_the_table_of_the_face_mask_net_has_rates_and_steps() -> None:
    seconds = {"ours": [9.0, 1.0, 2.0, 9.0], "keras": [5.0, 4.0, 4.0, 90.0]}
    facts = {"missing": ["torch"], "versions": {"jax": "1.2"}, "threads": {"ours": 2}}
    peak_mib = {"ours": 500.0, "keras": 1000.0}
    counts = {"count": 10, "batch_size": 32, "parameters": 1234}
    table = masks_net.table({**HEAD, **facts, **counts, "seconds": seconds, "peak_mib": peak_mib})
    assert cells(table, "training: images per second") == ["160", "80"]
    assert cells(table, "step (ms)") == ["200.0", "400.0 (0.25)"]
    assert cells(table, "once, before the first step (s)") == ["7.0", "1.0"]
    assert cells(table, "peak memory (MiB)") == ["500", "1,000 (0.50)"]
    assert "3 turns of 10 steps" in table and "Parameters: 1,234." in table


def test_every_contestant_is_told_the_face_mask_net() -> None:
    for name in masks_net.WORK.names:
        argv = masks_net.command(name, 3, "python")
        switches = [word.removeprefix("--") for word in argv[7:]]
        options = contest.parse_cnn(argv[3:], *switches)
        assert (argv[0] == "python") == (name in cnn.PEERS)
        assert (options.work, options.count) == ("train", 3)
        assert options.net["dataset"] == "masks" and options.net["batch_size"] == 32
        assert options.net["filters"] == [10, 10, 10, 10, 16, 16, 32, 32]


def test_our_face_mask_net_is_the_one_that_it_is_told() -> None:
    told = json.loads(json.dumps(masks_net.net()))
    task = ours_masks.make_task(told)
    shapes = jax.eval_shape(task.model.init, jax.random.key(0), np.zeros((1, 200, 200, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 2_389_540
    assert task.loop.batch_size == 32 and task.loop.convolutions


def test_random_pictures_have_the_shape_and_classes_of_their_data_set() -> None:
    for dataset, count in contest.DRAWN.items():
        images, labels = contest.draw_pictures(dataset)
        assert images.shape == (count, *contest.SHAPES[dataset]) and images.dtype == np.uint8
        assert sorted(set(labels.tolist())) == list(range(contest.CLASSES[dataset]))


def test_the_rows_of_the_layers_have_the_shapes_and_flops_of_the_nets() -> None:
    rows = layers_cnn.list_rows(configs.get_config("cifar10"), 128)
    by_name = {(row["layer"], row["direction"]): row for row in rows}
    assert by_name["conv_1", "kernel"]["images"] == [128, 30, 30, 64]
    assert by_name["pool_1", "both"]["images"] == [128, 28, 28, 64]
    assert by_name["conv_3", "images"]["images"] == [128, 12, 12, 128]
    assert by_name["dense_0", "forward"]["kernel"] == [12800, 1024]
    assert by_name["conv_3", "forward"]["flops"] == 2 * 128 * 10 * 10 * 9 * 128 * 128
    argv = layers_cnn.peer_options(rows, 2, 3)
    assert contest.parse_layers(argv).rows == rows


def test_the_layers_of_the_face_mask_net_are_listed_under_its_own_name() -> None:
    rows = layers_cnn.list_rows(masks.get_config("vgg"), 32, "masks")
    by_name = {(row["layer"], row["direction"]): row for row in rows}
    assert {row["net"] for row in rows} == {"masks"}
    assert by_name["conv_1", "kernel"]["images"] == [32, 198, 198, 10]
    assert by_name["pool_7", "both"]["images"] == [32, 17, 17, 32]
    assert by_name["dense_0", "images"]["kernel"] == [2048, 1024]


def test_ours_and_the_own_form_of_xla_are_the_same_operation() -> None:
    config = tiny_config()
    config.padding = "same"
    for row in layers_cnn.list_rows(config, 2):
        operation, operands = layers_cnn.make_operation(row, own=False)
        own, _ = layers_cnn.make_operation(row, own=True)
        np.testing.assert_allclose(operation(*operands), own(*operands), rtol=1e-4, atol=1e-4)


def test_a_row_is_measured_in_every_form_that_it_has() -> None:
    rows = layers_cnn.list_rows(tiny_config(), 2)
    forms = {"forward": {"ours", "xla", "xla_default"}, "kernel": {"ours", "xla"}}
    for direction, expected in forms.items():
        (row,) = [r for r in rows if (r["layer"], r["direction"]) == ("conv_0", direction)]
        seconds = layers_cnn.measure_row(row, 2, 3, None)
        assert set(seconds) == expected
        assert len(seconds["ours"]) == 3
        assert len(seconds["xla"]) == (1 if direction == "kernel" else 3)


def test_the_table_of_layers_has_flops_per_second_and_every_form() -> None:
    row = {
        "net": "mnist", "layer": "conv_1", "kind": "conv", "direction": "kernel", "flops": 2e9,
        "images": [128, 26, 26, 32], "kernel": [3, 3, 32, 64], "padding": "valid",
        "seconds": {"ours": [0.02, 0.01, 0.04], "xla": [4.0], "torch": [0.03, 0.03, 0.03]},
    }  # fmt: skip
    pool = {**row, "kind": "pool", "layer": "pool_1", "direction": "both", "flops": 0, "kernel": []}
    facts = {"missing": [], "versions": {"jax": "1.2"}, "threads": {"ours": 2}}
    table = layers_cnn.table(
        {**HEAD, **facts, "batch_size": 128, "iterations": 4, "rows": [row, pool]}
    )
    label = "MNIST, conv_1 26x26x32 -> 64: gradient of the kernel"
    assert cells(table, label) == ["2.00", "20.0", "100", "4,000.0", "30.0"]
    label = "MNIST, pool_1 26x26x32: forward and gradient"
    assert cells(table, label) == ["-", "20.0", "-", "4,000.0", "30.0"]
    assert "medians of 3 calls of 4 iterations" in table


def processes_results() -> dict[str, Any]:
    alone = {"seconds": 9.4, "equal": {}, "difference": {}}
    same = {"arrays": [17, 17], "rows": [2, 2], "digests": [13, 13]}
    near = {"gradient maxima": 2.4e-5, "losses": 0.0}
    return {
        **HEAD,
        **{"versions": {"jax": "1.2"}, "seeds": 4, "epochs": 2, "images": 10},
        "depth": {"1": alone, "2": {**alone, "equal": same}},
        "shared": {"1": alone, "2": {**alone, "difference": near}},
        "attack": {"1": alone, "4": {**alone, "equal": {"rows": [99, 100], "pictures": [5, 5]}}},
        "killed": {
            **{"processes": 2, "process": 1, "then": 4, "epoch": 1, "epochs": 20},
            **{"seconds": 0.26, "code": 75, "line": "has died", "equal": {"arrays": [17, 17]}},
        },
    }


def test_the_table_of_processes_says_what_is_equal_and_how_a_killed_one_ended() -> None:
    table = processes.table(processes_results())
    rows = [line for line in table.splitlines() if line.startswith("| depth study, seeds")]
    assert rows[1].endswith("| 2 | 9 | 17 of 17 arrays, 2 of 2 rows, 13 of 13 digests |")
    assert rows[0].endswith("| 1 | 9 | - |")
    assert "gradient maxima within 2e-05, losses within 0 |" in table
    assert "| depth study, a process killed | 2, then 4 | - | 17 of 17 arrays |" in table
    assert "ended 0.3 s later with code 75 and said: has died" in table
    assert "Abacus, 2 cores; jax 1.2; 2024-02-29." in table


def test_what_has_to_be_equal_and_is_not_is_a_failure() -> None:
    results = processes_results()
    assert processes.failures(results) == ["attack, 4 processes: 99 of 100 rows are the same"]
    results["attack"] = {}
    results["shared"]["2"]["difference"]["losses"] = float("nan")
    results["killed"] |= {"code": 0, "equal": {"arrays": [16, 17]}}
    assert processes.failures(results) == [
        "shared, 2 processes: losses differ by nan",
        "killed: code 0 after 0.3 s",
        "killed and resumed: 16 of 17 arrays are the same",
    ]


def test_arrays_agree_to_the_bit_and_a_missing_one_does_not_agree() -> None:
    one = {"a": np.float32([0.0, np.nan]), "b": np.float32([1.0]), "c": np.float32([1.0])}
    other = {"a": np.float32([0.0, np.nan]), "b": np.float64([1.0]), "d": np.float32([1.0])}
    assert processes.agreement(one, other) == [1, 4]
    assert processes.agreement({"a": np.float32([0.0])}, {"a": np.float32([-0.0])}) == [0, 1]
    assert processes.difference([2.0, 4.0], [2.0, 3.0]) == 0.25


def test_efficiency_is_the_median_of_the_ratios_over_the_number_of_devices() -> None:
    seconds = {
        "seeds": {"1": [4.0, 4.0, 90.0], "2": [2.0, 4.0, 50.0]},
        "shared_mlp": {"1": [1.0], "2": [2.0]},
        "cells": {"1": [1.0], "2": [1.0]},
    }
    moved = {
        "seeds": {"parameters": 7, "exchanged": {"2": {}, "8": {}}},
        "shared_mlp": {
            "parameters": 500,
            "exchanged": {"2": {"all-reduce": 2004, "all-gather": 6}, "8": {"all-reduce": 2004}},
        },
    }
    facts = {"versions": {"jax": "1.2"}, "seconds": seconds, "bytes": moved, "turns": 3}
    table = scaling.table({**HEAD, **facts})
    assert cells(table, "tanh-20, 2 seeds") == ["4.00", "4.00", "90%", "0", "0", "0"]
    exchanged = ["all-reduce 2,004, all-gather 6", "all-reduce 2,004"]
    expected = ["1.00", "2.00", "25%", "2,000", *exchanged]
    assert cells(table, "relu-5, 1 seed, batch of 64 shared") == expected
    assert cells(table, "attack, 40 images x 10") == ["1.00", "1.00", "50%", "0", "-", "-"]
    assert cells(table, "mnist, 1 seed, batch of 128 shared") == ["-"] * 6
    assert "3 turns" in table


def test_devices_that_share_a_batch_exchange_all_gradients() -> None:
    data, caption = scaling.load("", 40)
    assert caption == "random bytes" and data.images.shape == (40, 28, 28, 1)
    work = scaling.Work("", "relu-5", 1, 0, together=True)
    steps = scaling.Steps(work, data, 1, 2)
    assert scaling.read_bytes(steps)["all-reduce"] >= 4 * steps.parameters


FIGURES = {
    "study": {
        **{"nets": 2, "flops": 2e6, "layers": 20, "parameters": 2000},
        **{"batch_size": 64, "epochs": 3},
    },
    "picture": {"flops": 1e9, "layers": 9, "parameters": 10**6, "batch_size": 128, "epochs": 8},
    "cell": {"flops": 4e7, "layers": 4, "gradients": 170.0},
}


def test_the_plan_divides_work_among_devices_and_adds_up_the_parts_of_a_step() -> None:
    few, many = plan.works(FIGURES, 8), plan.works(FIGURES, 256)
    # Nets of 1 MFLOP an image and 10 layers; 938 steps an epoch.
    assert few["twelve nets, 8 seeds"][:5] == (64, 64e6, 100, 0, 2 * 3 * 938)
    assert many["twelve nets, one seed over all"][:4] == (1, 1e6, 100, 1000)
    assert few["cifar10-best, batch 128"][:4] == (16, 16e9, 90, 10**6)
    # 12,500 cells are 12 groups of 1000 and 5 of 100; 391 are 4 of 100.
    assert few["attack, 10,000 images x 10"].steps == 17 * 170
    assert many["attack, 10,000 images x 10"][::4][:2] == (100, 4 * 170)
    assert plan.exchanged(10**6, 8) == 7e6
    machine = plan.Machine("", 1e12, 1e-6, {8: 7e9}, {8: 2e-6})
    found = plan.parts(plan.Work(1, 3e6, 5, 10**6, 1, 0.5), machine, 8)
    expected = {"computing": 6e-6, "starting": 5e-6, "bandwidth": 1e-3, "latency": 2e-6}
    assert found == pytest.approx(expected)


def test_the_table_of_the_plan_names_what_takes_most_of_a_step() -> None:
    table = plan.table({"date": "2024-02-29", "figures": FIGURES})
    computing = 64e6 / (67e12 * plan.NARROW)
    row = cells(table, "8 x H100: twelve nets, 8 seeds")
    assert row[:6] == ["64", "64", "0", f"{1e6 * computing:.0f}", "500", "0"]
    assert row[6:] == ["2.9 s", "starting operations (96%)"]
    row = cells(table, "256 x TPU v5e: twelve nets, one seed over all")
    assert row[2] == "8" and row[5] == "40"
    assert "2024-02-29" in table and "https://docs.cloud.google.com/tpu/docs/v5e" in table


def test_the_plan_counts_the_nets_that_the_configs_name() -> None:
    study = plan.count_study()
    kernels = [(784, 32), *[(32, 32)] * 4, (32, 10)]
    assert study["nets"] == 12 and study["layers"] == 4 * (6 + 21 + 41)
    assert study["parameters"] > 4 * sum(a * b + b for a, b in kernels)


def test_every_trial_of_what_would_save_a_net_is_a_run_of_the_study() -> None:
    for net, changes in counterfactuals.TRIALS.items():
        for keys in changes.values():
            config = mlp_configs.get_config(net)
            config.update(keys)
            depth_study.check(config)


def test_the_table_of_what_would_save_a_net_has_every_seed_and_when_all_had_the_goal() -> None:
    trial = {"net": "relu-40", "change": "He", "keys": {"init": "he"}, "scales": 0.0, "error": ""}
    trials = [
        {**trial, "accuracy": [0.96, 0.951], "reached": 7},
        {**trial, "change": "none", "scales": 27.0, "accuracy": [0.1135, 0.6], "reached": None},
        {**trial, "change": "far", "accuracy": [], "reached": None, "error": "no number"},
    ]
    table = counterfactuals.table({**HEAD, "epochs": 10, "seeds": 2, "trials": trials})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[2][1:5] == ["He: `init=he`", "0.0", "96.0, 95.1", "7"]
    assert rows[3][2:5] == ["27.0", "11.3, 60.0", "-"] and "1 of 2 train" in rows[3][5]
    assert rows[4][3:5] == ["no number", "-"]
    verdicts = [row[5] for row in rows[2:5]]
    assert len(set(verdicts)) == 3
    assert ["lost" in verdict for verdict in verdicts] == [False, True, False]


def test_the_table_of_theory_names_the_worst_layer_and_counts_spreads_that_are_right() -> None:
    def sides(one_image_sd: list[float]) -> dict[str, dict[str, list[float]]]:
        sizes = {name: [1.0, 1.0, 1.0] for name in ("kernel_abs", "signal_rms", "sd")}
        predicted = {**sizes, "kernel_rms": [1.0, 1.1, 0.5], "one_image_sd": [0.5, 0.5, 9.0]}
        measured = {**sizes, "kernel_rms": [1.0, 1.0, 1.0], "one_image_sd": one_image_sd}
        return {"predicted": predicted, "measured": measured}

    nets = {"tanh-2": sides([0.54, 0.47, 0.1]), "relu-2": sides([0.5, 0.6, 9.0])}
    table = theory.table({**HEAD, "seeds": 9, "nets": nets})
    row = cells(table, "relu-2")
    assert row[0] == "1.00 [0.50]" and row[-2:] == ["0.50 / 0.50", "0.50 / 0.60"]
    assert "for 1 of 2 nets" in table
