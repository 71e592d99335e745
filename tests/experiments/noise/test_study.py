import signal

import numpy as np
import pytest
import toy_attack as toy

from research.adversarial import generate
from research.adversarial.augmented_lagrangian import AugmentedLagrangian
from research.adversarial.faithful import Faithful
from research.adversarial.minimal import Minimal
from research.adversarial.pgd import PGD
from research.adversarial.polish import Polish
from research.experiments import trainer
from research.experiments.noise import attack_figures, attack_run, nets, study
from research.runtime import preemption
from research.storage import attack_files, run_directory
from research.structs import UserError

NUMBERS = (7, 10, 2)  # always 7, and the first of the classes 0 and 2 that the first net has right
LEVELS = (0, 13, 40)
# The second net leans to class 5, and takes images whose pixel is no brighter for one.
LEANING = toy.BIAS + np.eye(10, dtype=np.float32)[5] * 10 * 50 / 255
NETS = (toy.net(), toy.net("second", LEANING))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    settle(monkeypatch)


def settle(patched):
    """Toy images and toy nets, and programs of a single size."""
    loaded = toy.data(), toy.data(), toy.SOURCE
    patched.setattr(trainer, "load", lambda *_, **__: loaded)
    by_spec = dict(zip(("cnn:mnist", "cnn:mnist-best"), NETS, strict=True))
    patched.setattr(nets, "locate", lambda spec, run, dataset: by_spec[spec].workdir)
    patched.setattr(nets, "find", lambda spec, *_: by_spec[spec])
    patched.setitem(generate.SIZES, "cpu", (20,))
    patched.setattr(attack_run, "RESTARTED", 4)


def smoke(**changes):
    return toy.smoke(nets=("cnn:mnist",), baselines=("cnn:mnist-best",), **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The summary and the directory of a whole run against two nets.

    Compiled is the attack alone: PGD and another start have their known answers.
    """
    workdir = tmp_path_factory.mktemp("study")
    attack, known = generate.generate, toy.attack([], claims=lambda number, target: False)

    def mostly(apply_fn, params, images, labels, *, methods, **options):
        found = known(apply_fn, params, images, labels, **options)
        method = methods[0]
        if isinstance(method, PGD):
            return found.replace(
                success=leads(images, labels, params)[:, None] < 20 * method.radius
            )
        if options.get("targets") is not None:
            return found
        return attack(apply_fn, params, images, labels, methods=methods, **options)

    with pytest.MonkeyPatch.context() as patched:
        settle(patched)
        patched.setattr(generate, "generate", mostly)
        return study.run(smoke(lagrangian__polish=0), workdir), workdir


def leads(images, labels, params):
    """Of the labels' logits [N] before all others; noise of e takes away 20 e, of two pixels."""
    scores = np.array([toy.exact(image, params) for image in images])
    others = np.where(np.arange(toy.CLASSES) == labels[:, None], -np.inf, scores).max(axis=1)
    return scores[np.arange(len(labels)), labels] - others


@pytest.fixture
def no_figures(monkeypatch):
    for name in ("draw", "draw_budgets"):
        monkeypatch.setattr(attack_figures, name, lambda *_: {})
    monkeypatch.setattr(attack_figures, "draw_transfers", lambda *_: None)
    monkeypatch.setattr(run_directory, "save_figures", lambda *_: None)


@pytest.fixture
def calls(monkeypatch, no_figures):
    made = []
    monkeypatch.setattr(generate, "generate", toy.attack(made))
    return made


def rows(workdir):
    return attack_files.CellLog(workdir, cells=10).rows()


def contents(workdir):
    files = (path for path in sorted(workdir.rglob("*")) if path.is_file())
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def test_a_run_leaves_its_documented_files(finished):
    summary, workdir = finished
    assert run_directory.read_json(workdir / "summary.json") == summary
    of_a_net = {"cells.jsonl", "cells", "clean", "figures", "net.json", "robust_accuracy.json"}
    of_the_run = {"config.json", "versions.json", "summary.json", "SHA256SUMS", ".lock", "second"}
    assert {path.name for path in workdir.iterdir()} == of_a_net | of_the_run
    assert {path.name for path in (workdir / "second").iterdir()} == of_a_net
    drawn = {"grid_1", "noise", "success", "distributions"}
    assert {path.stem for path in (workdir / "second/figures").iterdir()} == drawn
    shared = {"robust_accuracy", "transfer"}
    assert {path.stem for path in (workdir / "figures").iterdir()} == drawn | shared
    for into in (workdir, workdir / "second"):
        assert len(list((into / "cells").iterdir())) == 30
        assert {path.stem for path in (into / "clean").iterdir()} == {"00002", "00007", "00010"}


def test_a_summary_says_what_was_done_to_which_images(finished):
    summary, _ = finished
    assert list(summary["nets"]) == ["first", "second"]
    first = summary["nets"]["first"]
    assert (first["run"], first["epochs"], first["cells"]) == ("runs/first", 4, 30)
    assert summary["headline"] == f"first: {first['words']}"
    assert first["origin"] == toy.ORIGIN and "trained on" not in first["words"]
    assert summary["method"] == "lagrangian" and summary["data"]["caption"] == toy.SOURCE.caption()
    assert summary["sample"] == (
        "the first 1 correctly classified test images of each of 2 classes, and test image 7"
    )


@pytest.mark.parametrize("number", [0, 1])
def test_every_success_is_one_on_its_bytes_and_class_9_is_out_of_reach(finished, number):
    workdir = finished[1] / ("", "second")[number]
    found = rows(workdir)
    assert {row["image"] for row in found} == set(NUMBERS)
    summary = finished[0]["nets"][NETS[number].name]
    for row in found:
        picture = attack_files.read_png(workdir / row["file"])
        logits = toy.exact(picture, NETS[number].params)
        margin = logits[row["target"]] - np.delete(logits, row["target"]).max()
        margin = -margin if row["target"] == row["actual"] else margin
        assert row["margin"] == pytest.approx(margin, abs=1e-4)
        assert row["predicted"] == logits.argmax()
        assert row["success"] == (margin > 0) == (row["target"] != 9)
        clean = toy.data().images[row["image"]]
        change = picture / 255 - clean / 255
        assert row["l2"] == pytest.approx(np.linalg.norm(change))
        if row["success"]:  # only what the net reads is changed
            assert not change[1:].any() and 0 < row["steps"] + 1 <= row["gradients"] <= 12
    assert summary["targeted"]["won"] == 24 and summary["untargeted"]["won"] == 3
    assert summary["verified"] == {"files": 27, "survived": 27, "batch_size": 17}
    assert (summary["diagnostics"]["restarted_cells"], summary["diagnostics"]["restart_gain"]) == (
        3,
        0.0,
    )


def test_robust_accuracy_is_what_is_known_of_these_nets(finished):
    """Noise of e levels takes away a lead of 2 e levels, and no more."""
    robust = finished[0]["robust_accuracy"]
    assert (robust["levels"], robust["norm"], robust["count"]) == ([0, 13, 40], "linf", 25)
    images, labels = toy.data().images[:25], toy.LABELS[:25]
    for net in NETS:
        lead = leads(images, labels, net.params)
        expected = [int(np.sum(lead > 20 * level / 255)) for level in LEVELS]
        assert robust["hits"][net.name] == expected
        clean = [toy.exact(image, net.params).argmax() for image in images]
        assert expected[0] == (clean == labels).sum() > expected[1] > expected[2]


def test_transfer_counts_the_images_that_the_judging_net_has_right_without_noise(finished):
    summary, workdir = finished
    transfer = summary["transfer"]
    assert (transfer["names"], transfer["counts"]) == (["first", "second"], [27, 27])
    images = toy.data().images
    for i, maker in enumerate((workdir, workdir / "second")):
        for j, judge in enumerate(NETS):
            fooled = [
                toy.exact(attack_files.read_png(maker / row["file"]), judge.params).argmax()
                != row["actual"]
                for row in rows(maker)
                if row["success"]
                and toy.exact(images[row["image"]], judge.params).argmax() == row["actual"]
            ]
            assert transfer["rates"][i][j] == pytest.approx(np.mean(fooled))
            assert len(fooled) == (27, 9)[j]  # the second takes images 2 and 7 for a 5
    assert transfer["rates"][0][0] == transfer["rates"][1][1] == 1.0
    assert 0 < transfer["rates"][0][1] <= 1.0


def test_a_net_of_other_data_than_the_images_says_so(calls, tmp_path, monkeypatch, capsys):
    other = {"epochs": 1, "data": {"sha256": "ab", "caption": "MNIST SUBSET, 600 train"}}
    monkeypatch.setattr(nets, "find", lambda spec, *_: toy.net()._replace(origin=other))
    summary = study.run(toy.smoke(nets=("cnn:mnist",), baselines=(), pgd__images=0), tmp_path)
    assert summary["nets"]["first"]["origin"] == other
    assert summary["headline"].endswith("; trained on MNIST SUBSET, 600 train")
    said = capsys.readouterr().err
    assert f"trained on MNIST SUBSET, 600 train, attacked on {toy.SOURCE.caption()}" in said


def test_a_share_of_no_image_is_none(calls, tmp_path):
    summary = study.run(smoke(extra_indices=(), classes=(2,), pgd__images=0), tmp_path)
    assert summary["transfer"]["rates"] == [[1.0, None], [1.0, None]]
    assert "robust_accuracy" not in summary


def test_a_finished_run_is_not_run_again(finished, capsys):
    summary, workdir = finished
    before = contents(workdir)
    assert study.run(smoke(lagrangian__polish=0), workdir) == summary
    assert "mnist-smoke: all of it is done already" in capsys.readouterr().err
    assert contents(workdir) == before


def test_a_net_is_known_by_its_weights_wherever_it_lies(finished, monkeypatch):
    summary, workdir = finished
    elsewhere = dict(lagrangian__polish=0, run="elsewhere")
    assert study.run(smoke(**elsewhere), workdir) == summary
    for other, said in ((NETS[1], "was begun against another net"), (None, "is not trained where")):
        monkeypatch.setattr(nets, "find", lambda *_, net=other: net)
        with pytest.raises(UserError, match=said):
            _ = study.run(smoke(**elsewhere), workdir)


def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_is_not(
    calls, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = study.run(smoke(), whole)
    images = [call["numbers"] for call in calls if len(call["targets"][0]) == 10]
    assert images == [[7, 10], [2, 2]] * 2
    pgds = [call for call in calls if len(call["numbers"]) == 20]
    assert len(pgds) == 2 * 2 * 2  # nets, levels above 0, and 25 images in two calls
    calls.clear()
    stops = 0
    while not (parts / "summary.json").exists():
        with monkeypatch.context() as patched, pytest.raises(preemption.Stopped):
            patched.setitem(preemption._state, "received", signal.SIGTERM)
            _ = study.run(smoke(), parts)
        stops += 1
        if stops == 2 + 2 + 3 + 3:  # calls of each net, levels of each net
            assert study.run(smoke(), parts) == expected
    assert [call["numbers"] for call in calls if len(call["targets"][0]) == 10] == images
    assert len([call for call in calls if len(call["numbers"]) == 20]) == len(pgds)
    left_out = (".lock", "versions.json")
    one, other = (
        {k: v for k, v in contents(d).items() if k not in left_out} for d in (whole, parts)
    )
    assert one == other


def test_a_signal_during_the_training_of_a_net_waits_for_the_end_of_the_attack_s_calls(
    calls, tmp_path, monkeypatch
):
    """The training defers signals as well, and its end must not end the deferral."""
    seen = []

    def train(*_):
        with preemption.deferred():
            pass
        seen.append(preemption._state["deferred"])
        return NETS[0]

    monkeypatch.setattr(nets, "find", lambda *_: None)
    monkeypatch.setattr(nets, "train", train)
    summary = study.run(smoke(), tmp_path)
    assert seen == [True] and not preemption._state["deferred"]
    assert list(summary["nets"]) == ["first"] and "transfer" not in summary  # nothing to compare


def test_levels_are_sorted_each_once_and_begin_without_noise(calls, tmp_path):
    summary = study.run(smoke(pgd__levels=(40, 0, 13, 13)), tmp_path)
    assert summary["robust_accuracy"]["levels"] == [0, 13, 40]


def test_a_picture_of_the_user_is_attacked_alone_and_must_stay_the_same(calls, tmp_path):
    mine = tmp_path / "mine.png"
    attack_files.write_png(mine, toy.data().images[3])
    config = smoke(input=str(mine), images=3, pgd__images=3)
    summary = study.run(config, tmp_path / "run")
    assert summary["nets"]["first"]["cells"] == 10
    assert "robust_accuracy" not in summary and summary["sample"] == "the picture mine.png"
    assert study.run(config, tmp_path / "run") == summary
    attack_files.write_png(tmp_path / "moved.png", toy.data().images[3])
    moved = smoke(input=str(tmp_path / "moved.png"), images=3, pgd__images=3)
    assert study.run(moved, tmp_path / "run") == summary
    with pytest.raises(UserError, match="input: begun with 'a picture', asked for ''"):
        _ = study.run(smoke(images=3, pgd__images=3), tmp_path / "run")
    attack_files.write_png(mine, toy.data().images[4])
    with pytest.raises(UserError, match=r"mine.png is not the picture that .*run was begun with"):
        _ = study.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "mnsit"}, "dataset: 'mnsit' is not one of mnist, cifar10"),
        ({"nets": ()}, "nets: empty"),
        ({"nets": ("cnn:mnist",) * 2}, "nets, baselines: two are called 'mnist'; name each once"),
        (
            {"baselines": tuple(f"a:{i}" for i in range(12))},
            "nets, baselines: 13 nets are more than 12",
        ),
        ({"method": "minimla"}, "method: 'minimla' is not one of lagrangian, minimal, faithful"),
        ({"seed": -1}, "seed: -1 is not"),
        ({"seed": 2**31 - 1}, "seed: 2147483647 is not a"),
        ({"classes": (0, 10)}, r"classes: \(0, 10\) is not .* from 0 to 9"),
        ({"per_class": -1}, "per_class: -1"),
        ({"images": -1}, "images: -1"),
        ({"batch": 0}, "batch: 0 is not a"),
        ({"eval_batch_size": 0}, "eval_batch_size: 0 is not a"),
        ({"norm": "l0"}, "norm: 'l0' is not one of l2, linf, l1"),
        ({"norm": "l1", "method": "minimal"}, "norm: l1 needs method=lagrangian, not minimal"),
        ({"minimal__steps": 0}, "minimal.steps: 0"),
        ({"minimal__search": 0}, "minimal.search: 0"),
        ({"minimal__required": -1.0}, "minimal.required: -1.0"),
        ({"minimal__required": 0.0}, "minimal.required: 0.0"),
        ({"lagrangian__steps": 0}, "lagrangian.steps: 0"),
        ({"lagrangian__polish": -1}, "lagrangian.polish: -1"),
        ({"nets": (1, 2)}, "nets"),
        ({"classes": ("3",)}, "classes"),
        ({"minimal__polish": -1}, "minimal.polish: -1"),
        ({"faithful__steps": 0}, "faithful.steps: 0"),
        ({"faithful__check_every": 0}, "faithful.check_every: 0"),
        ({"pgd__norm": "l1"}, "pgd.norm: 'l1' is not one of linf, l2"),
        ({"pgd__levels": (4, -1)}, r"pgd.levels: \(4, -1\)"),
        ({"pgd__images": -1}, "pgd.images: -1"),
        ({"pgd__steps": 0}, "pgd.steps: 0"),
        ({"pgd__restarts": 0}, "pgd.restarts: 0"),
        ({"input": "nowhere.png"}, "nowhere.png: cannot be read"),
        ({"extra_indices": (30,)}, "extra_indices: there is no test image 30"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key_and_leaves_nothing(
    changes, said, tmp_path
):
    with pytest.raises(UserError, match=said):
        _ = study.run(with_changes(changes), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=said):
        _ = study.describe(with_changes(changes))


def with_changes(changes):
    return toy.smoke(**{"nets": ("cnn:mnist",), "baselines": ("cnn:mnist-best",)} | changes)


def test_a_given_directory_without_the_net_is_refused_but_a_net_to_compare_is_left_out(
    calls, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(nets, "locate", lambda *_: None)
    said = r"run: /a/b is no run of 'cnn:mnist', nor does it hold one as mnist;"
    with pytest.raises(UserError, match=said):
        _ = study.run(smoke(run="/a/b"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    own = {"cnn:mnist": NETS[0]}
    monkeypatch.setattr(nets, "locate", lambda spec, *_: spec == "cnn:mnist" or None)
    monkeypatch.setattr(nets, "find", lambda spec, *_: own.get(spec))
    summary = study.run(smoke(run="/a/b"), tmp_path)
    assert list(summary["nets"]) == ["first"]
    assert "cnn:mnist-best is not trained to its end, and left out" in capsys.readouterr().err


def test_a_net_that_is_attacked_anyway_is_not_compared_with_itself(calls, tmp_path):
    summary = study.run(with_changes({"baselines": ("cnn:mnist", "cnn:mnist-best")}), tmp_path)
    assert list(summary["nets"]) == ["first", "second"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": 4000}, "30 images, 300 cells a net"),
        ({"input": "mine.png"}, "1 images, 10 cells a net"),
        ({"classes": (1, 2, 3), "per_class": 2}, "7 images, 70 cells a net"),
    ],
)
def test_a_description_has_the_nets_the_cells_and_the_method(
    changes, said, tmp_path, monkeypatch, calls
):
    attack_files.write_png(tmp_path / "mine.png", toy.data().images[0])
    monkeypatch.chdir(tmp_path)
    places = {"cnn:mnist": "runs/first"}
    monkeypatch.setattr(nets, "locate", lambda spec, *_: places.get(spec))
    lines = study.describe(smoke(**changes)).splitlines()
    assert f"data: {toy.SOURCE.caption()}" in lines and '  "batch": 2,' in lines
    assert lines[-4:-1] == ["cnn:mnist: runs/first", "cnn:mnist-best: left out, not trained", said]
    assert (
        lines[-1].startswith("AugmentedLagrangian(steps=3, search=8,")
        and ", then Polish(" in lines[-1]
    )
    places.clear()
    assert "cnn:mnist: would be trained first" in study.describe(smoke(**changes))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"] and calls == []


def test_a_method_has_the_settings_of_its_config():
    config = smoke(method="minimal", minimal__steps=11, minimal__search=12, minimal__required=0.5)
    assert study.make_methods(config) == (
        Minimal(steps=11, search=12, required=0.5),
        Polish(1, required=0.5),
    )
    changes = {"lagrangian__steps": 11, "lagrangian__required": 0.5, "lagrangian__polish": 0}
    (search,) = study.make_methods(smoke(**changes))
    assert search == AugmentedLagrangian(steps=11, search=8, required=0.5)
    (search,) = study.make_methods(smoke(norm="linf"))  # the polish is one of L2
    assert search == AugmentedLagrangian(steps=3, search=8, norm="linf")
    own = {
        **{"steps": 7, "check_every": 3, "learning_rate": 0.5},
        **{"std": 0.1, "dropout": True},
    }
    config = smoke(method="faithful", **{f"faithful__{key}": own[key] for key in own})
    assert study.make_methods(config) == (Faithful(**own),)
