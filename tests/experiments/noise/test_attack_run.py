import json

import numpy as np
import pytest
import toy_attack as toy

from research.adversarial import generate
from research.adversarial.minimal import Minimal
from research.adversarial.polish import Polish
from research.experiments.noise import attack_figures, attack_run
from research.runtime import preemption
from research.storage import attack_files
from research.structs import UserError

KEYS = [
    *("image", "actual", "target", "success", "steps", "predicted", "probability", "margin"),
    *("l0", "l1", "l2", "linf", "psnr", "ssim", "file", "gradients", "success_lost"),
    *("start_l2", "dead_first", "dead_last", "gradient_first", "gradient_last", "last_margin"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No figures, and a search that knows the answers."""
    monkeypatch.setattr(attack_figures, "draw", lambda *_: {})
    monkeypatch.setattr(attack_run, "RESTARTED", 4)


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(generate, "generate", toy.attack(made))
    return made


def attack(workdir, numbers=(7, 10, 2), net=None, **changes):
    return attack_run.attack(
        toy.smoke(**changes),
        net or toy.net(),
        (Minimal(), Polish()),
        toy.sample(numbers),
        workdir,
        toy.SOURCE,
    )


def rows(workdir):
    return attack_files.CellLog(workdir, cells=toy.CLASSES).rows()


def contents(workdir):
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("*"))
        if path.is_file()
    }


def log_of(workdir):
    return [json.loads(line) for line in (workdir / "cells.jsonl").read_text().splitlines()]


def test_rows_have_the_documented_keys_and_hold_what_the_pictures_hold(calls, tmp_path):
    _ = attack(tmp_path)
    found = rows(tmp_path)
    assert [(row["image"], row["target"]) for row in found] == [
        (number, target) for number in (2, 7, 10) for target in range(10)
    ]
    images = toy.data().images
    for row in found:
        assert list(row) == KEYS
        number, target, clean = row["image"], row["target"], images[row["image"]]
        assert row["file"] == f"cells/{number:05d}-to-{target}.png"
        picture = attack_files.read_png(tmp_path / row["file"])
        expected = toy.toward(clean, toy.LABELS[number], target) if target != 9 else clean
        np.testing.assert_array_equal(picture, expected)
        logits, change = toy.exact(picture), picture / 255 - clean / 255
        shares = np.exp(logits) / np.exp(logits).sum()
        assert row["predicted"] == logits.argmax()
        above = logits[target] - np.delete(logits, target).max()
        expected = -above if target == row["actual"] else above
        assert row["margin"] == pytest.approx(expected, abs=1e-4)
        assert row["probability"] == pytest.approx(shares.max(), abs=1e-5)
        assert row["l0"] == np.any(picture != clean, axis=2).sum()
        assert row["l1"] == pytest.approx(np.sum(np.abs(change)))
        assert row["l2"] == pytest.approx(np.sqrt(np.sum(change**2)))
        assert row["linf"] == pytest.approx(np.abs(change).max())
        assert (row["psnr"] is None) == (row["l2"] == 0) == (row["ssim"] == 1)
        assert row["actual"] == toy.LABELS[number]
        assert row["success"] == (target != 9) and not row["success_lost"]
        assert (row["steps"], row["gradients"]) == (3 if row["success"] else 7, 7)
        assert row["last_margin"] == number and row["start_l2"] == number / 4
        assert (row["dead_first"], row["dead_last"]) == (0, 1)
        assert (row["gradient_first"], row["gradient_last"]) == (number + 1, number + 2)


def test_the_pictures_without_noise_lie_beside_them(calls, tmp_path):
    _ = attack(tmp_path)
    assert len(list((tmp_path / "clean").iterdir())) == 3
    for number in (2, 7, 10):
        picture = attack_files.read_png(tmp_path / f"clean/{number:05d}.png")
        np.testing.assert_array_equal(picture, toy.data().images[number])


def test_a_success_that_the_judge_does_not_confirm_is_refused_and_said_to_be_lost(
    tmp_path, monkeypatch
):
    """Toward class 9 the picture never shows what is claimed."""
    monkeypatch.setattr(generate, "generate", toy.attack([], claims=lambda n, t: True))
    summary = attack(tmp_path)
    refused = [row for row in rows(tmp_path) if row["target"] == 9]
    assert len(refused) == 3
    for row in refused:
        assert (row["success"], row["success_lost"]) == (False, True) and row["margin"] < 0
    assert summary["targeted"]["won"] == 3 * 8
    assert summary["diagnostics"]["why_failed"] == {attack_run.diagnostics.reason(refused[0]): 3}


def test_an_infinite_trace_is_null_in_the_row(tmp_path, monkeypatch):
    plain = toy.attack([])

    def without(*args, **options):
        found = plain(*args, **options)
        return found.replace(last_margin=np.full_like(found.last_margin, -np.inf))

    monkeypatch.setattr(generate, "generate", without)
    _ = attack(tmp_path)
    assert {row["last_margin"] for row in rows(tmp_path)} == {None}


def test_the_last_call_is_filled_up_and_its_rows_are_those_of_the_right_images(calls, tmp_path):
    _ = attack(tmp_path, (7, 10, 2, 3, 4), batch=3)
    assert [call["numbers"] for call in calls[:2]] == [[7, 10, 2], [3, 4, 3]]
    found = [(row["image"], row["last_margin"]) for row in log_of(tmp_path)[::10]]
    assert found == [(7, 7), (10, 10), (2, 2), (3, 3), (4, 4)]  # the trace has the number
    assert calls[0]["seed"] == 0 and len(calls[0]["methods"]) == 2


def test_a_call_is_never_larger_than_the_sample(calls, tmp_path):
    _ = attack(tmp_path, batch=50)
    assert [call["numbers"] for call in calls[:1]] == [[7, 10, 2]]


def test_a_run_that_is_stopped_between_two_calls_keeps_its_cells_and_ends_the_same(
    calls, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    numbers = (7, 10, 2, 3, 4)
    expected = attack(whole, numbers)

    def stop():
        raise preemption.Stopped(15)

    for done in (2, 4):
        with monkeypatch.context() as patched, pytest.raises(preemption.Stopped):
            patched.setattr(preemption, "raise_if_requested", stop)
            _ = attack(parts, numbers)
        assert len(rows(parts)) == 10 * done
    calls.clear()
    assert attack(parts, numbers) == expected
    assert [call["numbers"] for call in calls] == [[4, 4], [2, 3, 4, 7]]  # the last: restarts
    assert contents(parts) == contents(whole)
    calls.clear()
    assert attack(parts, numbers) == expected  # nothing is attacked again
    assert len(calls) == 1


def test_images_whose_rows_a_kill_cut_short_are_made_anew(calls, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = attack(whole)
    _ = attack(cut)
    content = (cut / "cells.jsonl").read_bytes()
    _ = (cut / "cells.jsonl").write_bytes(content[:-30])
    calls.clear()
    assert attack(cut) == expected
    assert calls[0]["numbers"] == [2, 2]
    assert contents(cut) == contents(whole)


def test_verified_is_counted_from_the_files_on_the_disk(calls, tmp_path, monkeypatch):
    """One success of 27 is overwritten with the image that it was made of, once the log is read.

    Before, the picture is noticed and made again.
    """
    picture, read = tmp_path / "cells/00007-to-3.png", attack_files.CellLog.rows
    assert attack(tmp_path)["verified"] == {"files": 27, "survived": 27, "batch_size": 17}
    whole = picture.read_bytes()

    def overwritten(log):
        attack_files.write_png(picture, toy.data().images[7])
        return read(log)

    with monkeypatch.context() as patch:
        patch.setattr(attack_files.CellLog, "rows", overwritten)
        assert attack(tmp_path)["verified"] == {"files": 27, "survived": 26, "batch_size": 17}
    assert attack(tmp_path)["verified"] == {"files": 27, "survived": 27, "batch_size": 17}
    assert picture.read_bytes() == whole


def test_failed_cells_are_tried_once_more_from_another_start(calls, tmp_path):
    summary = attack(tmp_path)
    last = calls[-1]
    assert (last["seed"], last["methods"]) == (1, calls[0]["methods"][:1])
    assert last["numbers"] == [2, 7, 10, 2]
    assert last["targets"].tolist() == [[9], [9], [9], [9]]
    assert (summary["diagnostics"]["restarted_cells"], summary["diagnostics"]["restart_gain"]) == (
        3,
        0.0,
    )


def test_cells_of_another_net_are_not_gone_on_with(calls, tmp_path):
    _ = attack(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"begun against another net: that of runs/first .* --work"):
        _ = attack(tmp_path, net=toy.net(bias=toy.BIAS + 1))
    assert contents(tmp_path) == before


def test_rows_of_images_that_are_not_in_the_sample_are_left_out(calls, tmp_path):
    _ = attack(tmp_path)
    assert attack(tmp_path, (7, 2))["cells"] == 20


def by_hand():
    """Two images of class 1 and one of 0, K = 3; image 5 is not what the net says."""
    lost = {"success": False, "l2": 9.0, "steps": 9}
    cells = [
        *((4, 1, 0, {}), (4, 1, 1, {"l2": 5.0}), (4, 1, 2, {"l2": 2.0, "psnr": None})),
        *((5, 1, 0, lost), (5, 1, 1, {"l2": 7.0}), (5, 1, 2, {"l2": 4.0})),
        *((6, 0, 0, lost), (6, 0, 1, lost), (6, 0, 2, {"l2": 3.0})),
    ]
    plain = {
        **{"success": True, "steps": 1, "probability": 0.5, "margin": 1.0, "psnr": 20.0},
        **{"l0": 3, "l1": 1.5, "l2": 1.0, "linf": 0.5, "ssim": 0.9, "gradients": 10},
        "start_l2": 0.25,
    }
    return [
        {"image": image, "actual": actual, "target": target, **plain, **changes}
        for image, actual, target, changes in cells
    ], {4: 1, 5: 2, 6: 0}


def test_targeted_cells_and_those_that_leave_their_class_are_never_pooled():
    summary = attack_run.summarise(*by_hand())
    assert (summary["cells"], summary["gradients"]) == (9, 90)
    targeted, own = summary["targeted"], summary["untargeted"]
    names = ("tried", "won", "tried_correct", "won_correct")
    assert [targeted[name] for name in names] == [6, 4, 4, 3]
    assert [own[name] for name in names] == [3, 2, 2, 1]
    assert targeted["l2"] == {"median": 2.5, "p90": pytest.approx(3.7)}  # of 1, 2, 3, 4
    assert own["l2"] == {"median": 6.0, "p90": pytest.approx(6.8)}  # of 5, 7
    assert targeted["steps"]["median"] == 1 and targeted["psnr"]["median"] == 20
    assert targeted["start_l2"] == {"median": 0.25, "p90": 0.25}


def test_where_nothing_was_won_there_are_no_norms():
    cells, said = by_hand()
    summary = attack_run.summarise([{**row, "success": False} for row in cells], said)
    assert summary["targeted"]["l2"] is None and summary["untargeted"]["margin"] is None
    assert summary["targeted"]["start_l2"]["median"] == 0.25


def test_the_success_matrix_is_that_of_a_slow_count():
    cells, said = by_hand()
    found = attack_run.success_matrix(cells, said)
    for actual, target in np.ndindex(3, 3):
        these = [row for row in cells if (row["actual"], row["target"]) == (actual, target)]
        right = [row for row in these if said[row["image"]] == actual]
        assert found["tried"][actual][target] == len(these)
        assert found["won"][actual][target] == sum(row["success"] for row in these)
        assert found["tried_correct"][actual][target] == len(right)
        assert found["won_correct"][actual][target] == sum(row["success"] for row in right)
    assert json.loads(json.dumps(found)) == found
    assert np.sum(found["tried"]) == 9 and found["tried"][2] == [0, 0, 0]


@pytest.mark.parametrize(
    ("actual", "target", "margin"), [(0, 2, 1.0), (0, 1, -3.0), (2, 2, -1.0), (1, 1, 3.0)]
)
def test_the_margin_toward_a_class_and_away_from_the_own(actual, target, margin):
    found, won = attack_run.judge(np.float32([[2, 0, 3]]), np.int32([actual]), np.int32([target]),
                                  required=5.0)  # fmt: skip
    assert found == margin and won == (margin > 0)


def test_a_tie_is_judged_as_the_method_has_judged_it():
    """No success of a method that asks for a margin; of the report's what argmax says."""
    actual, target = np.int32([0, 0, 1, 1]), np.int32([0, 1, 0, 1])
    for required, expected in ((0.01, [False] * 4), (0.0, [False, False, True, True])):
        _, won = attack_run.judge(np.zeros((4, 2), np.float32), actual, target, required)
        assert won.tolist() == expected
