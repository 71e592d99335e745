import errno
import fcntl
import json
import subprocess
import sys

import numpy as np
import object_store
import pytest
from matplotlib.figure import Figure
from tensorboardX.proto.event_pb2 import Event

from configs import cnn, masks, noise
from configs import mlp as configs
from research.storage import attack_files, run_directory
from research.structs import UserError

VERSIONS = {"packages": {"jax": "1"}, "data": {"sha256": "a", "caption": "MNIST"}}
STATISTICS = {"kernel_abs_max": np.float32([[1, 2]])}


def config(**changes):
    made = configs.get_config("tanh-5,smoke")
    made.update(changes)
    return made


def row(epoch):
    return {"epoch": epoch, "test_accuracy": [0.5, 0.7], "seconds": 1.0, "memory": None}


def logged(workdir, epochs, *, after=None, probed=True):
    """Write some epochs after what a checkpoint holds; what checkpoints of them hold."""
    held = []
    with run_directory.EpochLog(workdir, ["hidden_00", "output"], probed=probed) as log:
        log.continue_from(after or {})
        for epoch in epochs:
            scaled = {name: values * epoch for name, values in STATISTICS.items()}
            log.write(epoch, row(epoch) if epoch else None, scaled)
            held.append(log.contents())
    return held


def test_config_and_versions_are_written_before_anything_else(tmp_path):
    run_directory.begin(tmp_path, config(), VERSIONS)
    assert json.loads((tmp_path / "config.json").read_text())["nets"] == ["tanh-5"]
    assert run_directory.read_json(tmp_path / "versions.json") == VERSIONS
    run_directory.begin(tmp_path, config(), VERSIONS)


def test_another_config_is_refused_with_every_difference(tmp_path):
    run_directory.begin(tmp_path, config(), VERSIONS)
    other = config(epochs=7, nets=("tanh-20",))
    with pytest.raises(UserError) as caught:
        run_directory.begin(tmp_path, other, VERSIONS)
    assert "epochs: begun with 2, asked for 7" in str(caught.value)
    assert "nets: begun with ['tanh-5'], asked for ['tanh-20']" in str(caught.value)
    assert "batch_size" not in str(caught.value)


def test_where_the_data_lie_and_what_the_machine_has_are_no_other_run(tmp_path):
    """But other bytes are, wherever they lie."""
    run_directory.begin(tmp_path, config(), VERSIONS)
    other = config(cpu_devices=3, cpu_threads=5, data_devices=2)
    other.data = {"dir": "elsewhere", "source": "idx", "tfds_dir": "there", "download": True}
    run_directory.begin(tmp_path, other, VERSIONS)
    run_directory.check_same(tmp_path, other, but=())
    changed = {**VERSIONS, "data": {"sha256": "b" * 64, "caption": "OTHERS"}}
    with pytest.raises(UserError, match=f"--workdir, such as {tmp_path},data=bbbbbbbb"):
        run_directory.begin(tmp_path, other, changed)


def test_faces_in_another_directory_are_no_other_run_but_other_faces_are(tmp_path):
    begun = masks.get_config("smoke")
    run_directory.begin(tmp_path, begun, VERSIONS)
    begun.data.update({"voc": "a", "json": "b", "folders": "c", "tfds_dir": "d"})
    run_directory.check_same(tmp_path, begun, but=())
    begun.data.update({"size": 30, "seed": 2})
    with pytest.raises(UserError, match=r"data\.size: begun with 100, .*; data\.seed: "):
        run_directory.check_same(tmp_path, begun, but=())


def test_other_data_are_refused_by_name(tmp_path):
    run_directory.begin(tmp_path, config(), VERSIONS)
    other = {**VERSIONS, "data": {"sha256": "b", "caption": "MNIST SAMPLE"}}
    with pytest.raises(UserError, match="MNIST then, MNIST SAMPLE now"):
        run_directory.begin(tmp_path, config(), other)


def test_other_packages_are_kept_beside_the_first_and_told(tmp_path, capsys):
    run_directory.begin(tmp_path, config(), VERSIONS)
    assert capsys.readouterr().err == ""
    run_directory.begin(tmp_path, config(), {**VERSIONS, "packages": {"jax": "2"}})
    for version in ("2", "3", "3", "1"):
        run_directory.begin(tmp_path, config(), {**VERSIONS, "packages": {"jax": version}})
    kept = run_directory.read_json(tmp_path / "versions.json")
    assert kept["packages"]["jax"] == "1"
    first, *others = capsys.readouterr().err.splitlines()
    assert first.endswith(": packages.jax: begun with '1', asked for '2'") and len(others) == 2
    assert [each["packages"]["jax"] for each in kept["resumed_with"]] == ["2", "3", "1"]


def test_a_config_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        run_directory.begin(tmp_path, config(), VERSIONS)


REMAINS = ("metrics.jsonl", "gradients.npz", "cells.jsonl", "summary.json", "SHA256SUMS")


@pytest.mark.parametrize("name", [*REMAINS, "checkpoints/3/x", "figures/x.png", "export/x"])
def test_what_a_run_has_left_without_its_config_is_never_taken_for_a_fresh_one(tmp_path, name):
    """Whatever else there is of it; and no line advises to delete what can still be used."""
    run_directory.begin(tmp_path, config(), VERSIONS)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("of a run")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError) as caught:
        run_directory.begin(tmp_path, config(epochs=7), VERSIONS)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'config.json'} is missing, but {name.split('/')[0]} is ")
    assert said.endswith("restore it or give another --workdir") and "delete" not in said
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("left", [".lock", ".config.json.tmp", "versions.json", "data/x", "notes"])
def test_what_a_kill_leaves_before_a_run_has_begun_is_fresh(tmp_path, left):
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text("{")
    run_directory.begin(tmp_path, config(), VERSIONS)
    assert run_directory.read_json(tmp_path / "versions.json") == VERSIONS


def test_a_lost_description_of_the_versions_is_named(tmp_path):
    run_directory.begin(tmp_path, config(), VERSIONS)
    (tmp_path / "versions.json").unlink()
    with pytest.raises(UserError, match=r"versions\.json: cannot be read \(No such file"):
        run_directory.begin(tmp_path, config(), VERSIONS)


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"data": []}', '{"data": {}}', "\x00"])
def test_versions_of_another_kind_are_one_line(tmp_path, content):
    run_directory.begin(tmp_path, config(), VERSIONS)
    (tmp_path / "versions.json").write_text(content)
    with pytest.raises(UserError) as caught:
        run_directory.begin(tmp_path, config(), VERSIONS)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'versions.json'}: ") and "\n" not in said
    run_directory.write_json(tmp_path / "summary.json", {})
    if content not in ('{"data": []}', '{"data": {}}'):
        with pytest.raises(UserError, match=r"versions\.json: cannot be read"):
            _ = run_directory.load_run(tmp_path)


def test_rows_drop_a_line_that_was_cut_short(tmp_path):
    logged(tmp_path, [0, 1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])
    assert [r["epoch"] for r in run_directory.rows(tmp_path)] == [1]


def test_gradients_grow_by_an_epoch_at_a_time_and_name_their_layers(tmp_path):
    logged(tmp_path, [0, 1, 2])
    arrays = run_directory.gradients(tmp_path)
    assert arrays["epochs"].tolist() == [0, 1, 2]
    assert arrays["layers"].tolist() == ["hidden_00", "output"]
    assert arrays["kernel_abs_max"].tolist() == [[[0, 0]], [[1, 2]], [[2, 4]]]
    assert arrays["kernel_abs_max"].dtype == np.float32


@pytest.mark.parametrize("damage", ["none", "ahead", "lost", "damaged"])
@pytest.mark.parametrize("probed", [True, False])
def test_records_are_made_again_from_a_checkpoint_whatever_became_of_the_files(
    tmp_path, damage, probed
):
    """And go on as if nothing had been."""
    names = ("metrics.jsonl", "gradients.npz") if probed else ("metrics.jsonl",)
    held = logged(tmp_path, [0, 1, 2, 3, 4], probed=probed)
    whole = {name: (tmp_path / name).read_bytes() for name in names}
    assert held[-1] == whole
    kept = held[4 if damage == "none" else 2]
    for name in names:
        if damage == "lost":
            (tmp_path / name).unlink()
        elif damage == "damaged":
            (tmp_path / name).write_bytes(b"?")
    if damage != "none":
        _ = logged(tmp_path, [3], after=kept, probed=probed)
        assert [row["epoch"] for row in run_directory.rows(tmp_path)] == [1, 2, 3]
        kept = held[3]
        assert {name: (tmp_path / name).read_bytes() for name in names} == kept
    _ = logged(tmp_path, [] if damage == "none" else [4], after=kept, probed=probed)
    assert {name: (tmp_path / name).read_bytes() for name in names} == whole
    if probed:
        assert run_directory.gradients(tmp_path)["epochs"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_records_whose_checkpoints_are_lost_are_not_begun_anew(tmp_path, epochs):
    """Those of two epochs are what a kill can leave while the first checkpoint is written."""
    _ = logged(tmp_path, range(epochs + 1))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    if epochs < 3:
        _ = logged(tmp_path, [0, 1])
        assert [row["epoch"] for row in run_directory.rows(tmp_path)] == [1]
        return
    with pytest.raises(UserError, match=r"metrics\.jsonl holds 3 epochs, but none of their check"):
        _ = logged(tmp_path, [0, 1])
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_arrays_are_replaced_in_one_move(tmp_path):
    path, (first, second) = tmp_path / "predictions.npz", np.eye(2, dtype=np.float32)
    run_directory.write_arrays(path, {"logits": first, "labels": np.arange(3)})

    class Broken:
        def __array__(self, *_, **__):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_directory.write_arrays(path, {"logits": Broken()})
    with np.load(path) as stored:
        assert sorted(stored) == ["labels", "logits"]
        np.testing.assert_array_equal(stored["logits"], first)
    run_directory.write_arrays(path, {"logits": second})
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["logits"], second)
    assert list(tmp_path.iterdir()) == [path]


def test_a_net_is_the_same_but_for_the_keys_that_may_differ(tmp_path):
    run_directory.begin(tmp_path, config(), VERSIONS)
    other = config(epochs=7, width=5)
    run_directory.check_same(tmp_path, other, but=("epochs", "width"))
    with pytest.raises(UserError) as caught:
        run_directory.check_same(tmp_path, other, but=("width",))
    assert f"{tmp_path} holds another net: epochs: begun with 2, asked for 7." in str(caught.value)


def test_a_run_begun_before_a_key_existed_is_one_that_did_without(tmp_path):
    later = {"adversarial_radius", "adversarial_steps"}
    asked = cnn.get_config("mnist")
    before = {key: value for key, value in json.loads(asked.to_json()).items() if key not in later}
    run_directory.write_json(tmp_path / "config.json", before)
    run_directory.write_json(tmp_path / "versions.json", VERSIONS)
    run_directory.begin(tmp_path, asked, VERSIONS)
    run_directory.check_same(tmp_path, asked, but=())
    asked.adversarial_radius = 0.3
    said = r"config: adversarial_radius: begun with 0.0, asked for 0.3\. "
    with pytest.raises(UserError, match=said):
        run_directory.begin(tmp_path, asked, VERSIONS)


def test_a_config_of_an_earlier_version_is_refused_by_the_new_name_of_its_key(tmp_path):
    asked = noise.get_config("mnist")
    begun = json.loads(asked.to_json())
    begun["faithful"]["deviation"] = begun["faithful"].pop("std")
    run_directory.write_json(tmp_path / "config.json", begun)
    said = r"config\.json is of an earlier version, which called faithful\.deviation what is "
    for call in (
        lambda: run_directory.begin(tmp_path, asked, VERSIONS),
        lambda: run_directory.check_same(tmp_path, asked, but=()),
    ):
        with pytest.raises(UserError, match=said + r"faithful\.std now"):
            call()


def test_a_classifier_of_an_earlier_version_goes_on_under_the_new_name_of_its_study(tmp_path):
    asked = cnn.get_config("mnist")
    begun = json.loads(asked.to_json()) | {"experiment": "classify"}
    run_directory.write_json(tmp_path / "config.json", begun)
    run_directory.write_json(tmp_path / "versions.json", VERSIONS)
    run_directory.begin(tmp_path, asked, VERSIONS)
    run_directory.write_json(tmp_path / "summary.json", {"net": "mnist"})
    assert run_directory.load_run(tmp_path).experiment == "classifiers"


def events(folder):
    """{(name, step): value} of all TensorBoard files in a folder."""
    values = {}
    for path in folder.iterdir():
        content, position = path.read_bytes(), 0
        while position < len(content):
            size = int.from_bytes(content[position : position + 8], "little")
            event = Event.FromString(content[position + 12 : position + 12 + size])
            for value in event.summary.value:
                values[value.tag, event.step] = value.simple_value
            position += 16 + size
    return values


def test_tensorboard_reads_the_mean_over_seeds_of_what_is_known(tmp_path):
    logged(tmp_path, [0, 1, 2])
    values = events(tmp_path / "tensorboard")
    assert values["test_accuracy", 2] == pytest.approx(0.6)
    assert {step for _, step in values} == {1, 2}
    assert "memory" not in {name for name, _ in values}
    assert (
        run_directory.mean([0.5, None]) == 0.5
        and run_directory.mean([None]) is run_directory.mean(None) is None
    )


def test_in_a_store_the_records_are_those_of_a_disk(tmp_path, monkeypatch):
    store = object_store.install(tmp_path / "objects", monkeypatch)
    for workdir in (tmp_path / "disk", store):
        with run_directory.locked(workdir):
            run_directory.begin(workdir, config(), VERSIONS)
            held = logged(workdir, [0, 1, 2, 3])
            _ = logged(workdir, [3], after=held[2])
            run_directory.save_figures(workdir, lambda: {"drawn": Figure()})
            assert run_directory.finished_summary(workdir) is None
            run_directory.finish(workdir, {"net": "x"})
            assert run_directory.finished_summary(workdir) == {"net": "x"}
    for name in ("config.json", "versions.json", "metrics.jsonl", "summary.json"):
        assert (store / name).read_bytes() == (tmp_path / "disk" / name).read_bytes()
    assert (store / "figures/drawn.png").read_bytes().startswith(b"\x89PNG")
    assert (
        run_directory.gradients(store).keys() == run_directory.gradients(tmp_path / "disk").keys()
    )
    assert events(store / "tensorboard")["seconds", 3] == 1.0
    with pytest.raises(UserError, match="begun with another config: epochs"):
        run_directory.begin(store, config(epochs=9), VERSIONS)


def test_the_missing_lock_of_an_object_store_is_reported_once(tmp_path, monkeypatch, capsys):
    store = object_store.install(tmp_path / "objects", monkeypatch)
    run_directory._say_unlocked.cache_clear()
    with run_directory.locked(store), run_directory.locked(store / "net"):
        pass
    assert capsys.readouterr().err.count("cannot be locked") == 1
    monkeypatch.setattr(object_store.ObjectStore, "_open", lambda *_, **__: 1 / 0)
    with (
        pytest.raises(UserError, match="cannot be used as a work directory"),
        run_directory.locked(store),
    ):
        pass


def test_a_process_that_is_not_the_first_writes_and_draws_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory.distributed, "is_first", lambda: False)
    logged(tmp_path, [0, 1])
    run_directory.save_figures(tmp_path, lambda: 1 / 0)
    run_directory.write_arrays(tmp_path / "arrays.npz", {"a": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_and_the_error_names_the_holder(tmp_path):
    code = (
        "from pathlib import Path; from research.storage import run_directory as record\n"
        f"with record.locked(Path({str(tmp_path)!r})): pass"
    )
    with run_directory.locked(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode != 0
        assert f"{tmp_path} is in use by process" in done.stderr
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_written_once_the_lock_is_removed_or_replaced(tmp_path, replaced):
    workdir, other = tmp_path / "run", tmp_path / "other"
    run_directory.files.make_folder(other)
    with run_directory.locked(workdir), run_directory.locked(workdir / "net"):
        logged(workdir / "net", [0, 1])
        (workdir / ".lock").rename(tmp_path / "lock")
        if replaced:
            (workdir / ".lock").write_text("process 1 on another")
        before = {path: path.read_bytes() for path in workdir.rglob("*.*") if path.is_file()}
        for write in (
            lambda: run_directory.begin(workdir, config(), VERSIONS),
            lambda: run_directory.files.append(workdir / "net/metrics.jsonl", "{}"),
            lambda: run_directory.files.remove(workdir / "net/metrics.jsonl"),
            lambda: attack_files.write_png(workdir / "a.png", np.zeros((2, 2, 1), np.uint8)),
        ):
            with pytest.raises(UserError, match=r"run/\.lock was removed or replaced while"):
                write()
        run_directory.write_json(other / "config.json", {})
        assert before == {path: path.read_bytes() for path in before}
    run_directory.write_json(workdir / "config.json", {})  # as any run that has the lock


def test_a_run_goes_on_under_the_settings_of_the_compiler_that_it_was_begun_with(tmp_path):
    old = {**VERSIONS, "packages": {"jax": "0"}}  # of before they were recorded
    begun, other = ({**VERSIONS, "environment": {"XLA_FLAGS": flags}} for flags in ("-a", "-b"))
    run_directory.begin(tmp_path, config(), old)
    run_directory.begin(tmp_path, config(), begun)
    with pytest.raises(UserError, match=r"XLA_FLAGS: begun with '-a', asked for '-b'\. Set"):
        run_directory.begin(tmp_path, config(), other)
    with pytest.raises(UserError, match=r"XLA_FLAGS: begun with '-a', asked for '\(absent\)'"):
        run_directory.begin(tmp_path, config(), {**VERSIONS, "environment": {}})
    run_directory.begin(tmp_path, config(), other, resuming=False)  # it is only read
    run_directory.begin(tmp_path, config(), begun)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line_with_a_remedy(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(UserError, match=r"its file system has no locks .*; give a --workdir"),
        run_directory.locked(tmp_path),
    ):
        pass


def test_a_work_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be used as a work directory"),
        run_directory.locked(tmp_path / "file" / "run"),
    ):
        pass


def test_versions_name_packages_device_data_commit_and_settings_that_change_bits(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/home/of/somebody")
    found = run_directory.describe_versions({"sha256": "a"})
    assert set(found["packages"]) == set(run_directory.PACKAGES)
    assert found["device"].startswith("CPU ") and found["device"].endswith(" cores")
    assert found["data"] == {"sha256": "a"}
    assert found["environment"] == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    assert found["git_commit"]


def finished(workdir, experiment="depth", summary=None, **config):
    """Write the three files that every finished run has."""
    run_directory.write_json(
        workdir / "config.json", {"experiment": experiment, "name": "x", **config}
    )
    run_directory.write_json(workdir / "versions.json", VERSIONS)
    run_directory.write_json(workdir / "summary.json", summary or {"net": "x"})


def test_a_finished_run_is_loaded_with_what_its_files_hold(tmp_path):
    logged(tmp_path, [0, 1, 2])
    finished(tmp_path)
    run_directory.write_arrays(tmp_path / "predictions_val.npz", {"labels": np.arange(3)})
    attack_files.write_png(tmp_path / "figures" / "drawn.png", np.zeros((2, 3, 1), np.uint8))
    run = run_directory.load_run(tmp_path)
    assert (run.experiment, run.name, run.caption) == ("depth", "x", "MNIST")
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert run.gradients["kernel_abs_max"].tolist() == [[[0, 0]], [[1, 2]], [[2, 4]]]
    assert run.predictions("val")["labels"].tolist() == [0, 1, 2]
    assert run.predictions() == {} and run.cells == [] and run.over_seeds == {}
    assert run.nets == {"x": run}
    assert run.figure("drawn") == tmp_path / "figures" / "drawn.png"
    with pytest.raises(UserError, match=r"figures/other\.png is missing"):
        run.figure("other")


def test_the_nets_of_a_study_are_runs_with_the_files_of_their_folders(tmp_path):
    (tmp_path / "tanh-5").mkdir()
    logged(tmp_path / "tanh-5", [0, 1])
    finished(tmp_path, summary={"nets": {"tanh-5": {"epoch": 1}, "relu-5": {"epoch": 2}}})
    nets = run_directory.load_run(tmp_path).nets
    assert list(nets) == ["tanh-5", "relu-5"]
    assert len(nets["tanh-5"].metrics) == 1 and nets["tanh-5"].summary == {"epoch": 1}
    assert nets["relu-5"].path == tmp_path and nets["relu-5"].caption == "MNIST"


def test_the_pictures_of_an_attack_are_those_that_its_cells_name(tmp_path):
    finished(tmp_path, "noise")
    made = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    attack_files.write_png(tmp_path / "clean" / "00007.png", made)
    attack_files.write_png(tmp_path / "cells" / "00007-to-1.png", made + 1)
    cell = {"image": 7, "target": 1, "file": "cells/00007-to-1.png"}
    (tmp_path / "cells.jsonl").write_text(json.dumps(cell) + "\n")
    run = run_directory.load_run(tmp_path)
    assert run.cells == [cell]
    np.testing.assert_array_equal(run.clean(7), made)
    np.testing.assert_array_equal(run.adversarial(run.cells[0]), made + 1)
    with pytest.raises(UserError, match=r"00008\.png"):
        run.clean(8)


@pytest.fixture
def ended(tmp_path):
    """A finished study of a net, a file of every kind in the place of each, and a log beside it."""
    net = tmp_path / "run" / "tanh-5"
    net.mkdir(parents=True)
    for folder in (net, net.parent):
        run_directory.begin(folder, config(), VERSIONS)
        run_directory.save_figures(folder, lambda: {"drawn": Figure()})
        if folder == net:
            logged(net, [0, 1, 2])
            run_directory.write_arrays(net / "predictions.npz", {"labels": np.arange(3)})
            (net / "checkpoints").mkdir()
            (net / "checkpoints" / "x.json").write_text("later")
        run_directory.finish(folder, {"nets": {"tanh-5": {}}} if folder != net else {"net": "x"})
        (folder / "log").write_text("of the terminal")
    return net.parent


LISTED = (
    *("config.json", "versions.json", "metrics.jsonl", "gradients.npz", "predictions.npz"),
    *("summary.json", "figures/drawn.png"),
)


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("kind", ["digit", "delete"])
def test_a_finished_run_is_done_only_while_every_file_is_what_was_written(
    ended, name, kind, capsys
):
    path = ended / "tanh-5" / name
    assert run_directory.verify(ended) == []
    if kind == "delete":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    for folder in (ended, path.parents[name.count("/")]):
        (fault,) = run_directory.verify(folder)
        assert fault.startswith(f"{path}: cannot be read (")
        _ = capsys.readouterr()
        assert run_directory.finished_summary(folder) is None
        assert capsys.readouterr().err.count(f"{path}: ") == 1


@pytest.mark.parametrize("name", ["log", "tanh-5/checkpoints/x.json", "tanh-5/tensorboard/x"])
def test_what_a_run_does_not_list_may_change(ended, name):
    (ended / name).write_text("changed")
    assert run_directory.verify(ended) == []
    assert run_directory.finished_summary(ended / "tanh-5") == {"net": "x"}


def test_a_loaded_run_reads_only_what_was_written(ended):
    """A whole file of another run in the place of its own as well."""
    net = run_directory.load_run(ended).nets["tanh-5"]
    assert net.predictions()["labels"].tolist() == [0, 1, 2] and len(net.metrics) == 2
    logged(ended / "tanh-5", [0, 1])
    run_directory.write_arrays(ended / "tanh-5/predictions.npz", {"labels": np.arange(4)})
    run_directory.save_figures(ended / "tanh-5", lambda: {"drawn": Figure(figsize=(1, 1))})
    net = run_directory.load_run(ended).nets["tanh-5"]
    for read in (
        lambda: net.metrics,
        lambda: net.gradients,
        net.predictions,
        lambda: net.figure("drawn"),
    ):
        with pytest.raises(UserError, match="damaged or changed, its SHA-256 is not the one in"):
            _ = read()
    run_directory.write_json(ended / "summary.json", {"nets": {}})
    with pytest.raises(UserError, match=r"summary\.json: cannot be read \(damaged or changed"):
        _ = run_directory.load_run(ended)


def test_of_a_run_that_is_not_finished_each_file_shows_its_own_damage(tmp_path):
    with pytest.raises(UserError, match="there is no run in"):
        _ = run_directory.verify(tmp_path)
    run_directory.begin(tmp_path, config(), VERSIONS)
    logged(tmp_path, [0, 1, 2])
    run_directory.save_figures(tmp_path, lambda: {"drawn": Figure()})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3')  # the line that is being written
    assert run_directory.verify(tmp_path) == []
    names = ("versions.json", "metrics.jsonl", "gradients.npz", "figures/drawn.png")
    for name in names:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:30] + b"?" + content[31:])
    assert sorted(line.partition(": ")[0] for line in run_directory.verify(tmp_path)) == sorted(
        str(tmp_path / name) for name in names
    )


def test_a_run_that_cannot_be_loaded_is_one_line_that_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"summary\.json is missing: there is no finished run"):
        run_directory.load_run(tmp_path)
    finished(tmp_path, "dreams")
    with pytest.raises(UserError, match=r"config\.json: experiment 'dreams' is not one of depth"):
        run_directory.load_run(tmp_path)
    finished(tmp_path, "masks", data={"test": 0.16, "score": 0.08})
    with pytest.raises(UserError, match=r"called data\.score what is data\.test"):
        run_directory.load_run(tmp_path)
    finished(tmp_path)
    (tmp_path / "versions.json").unlink()
    with pytest.raises(UserError, match=r"versions\.json: cannot be read"):
        run_directory.load_run(tmp_path)
    finished(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{")
    (tmp_path / "gradients.npz").write_text("no arrays")
    run = run_directory.load_run(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read"):
        _ = run.metrics
    with pytest.raises(UserError, match=r"gradients\.npz: cannot be read"):
        _ = run.gradients


MODULE = "research/storage/run_directory.py"


def git(folder, *words):
    who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    done = subprocess.run(
        ["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("place", "tracked", "installed", "expected"),
    [
        ("", True, False, "{commit}"),
        (".venv/lib/site-packages", False, True, "small-net-laboratory 1.2"),
        (".venv/lib/site-packages", False, False, "unknown"),
        ("third_party", True, False, "unknown"),
        ("", False, False, "unknown"),
    ],
)
def test_a_commit_is_that_of_the_repository_that_has_the_code_and_of_no_other(
    tmp_path, monkeypatch, place, tracked, installed, expected
):
    module = tmp_path / place / MODULE
    module.parent.mkdir(parents=True)
    module.write_text("")
    (tmp_path / "README.md").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "." if tracked else "README.md")
    git(tmp_path, "commit", "-q", "-m", "all")
    monkeypatch.syspath_prepend(tmp_path / place)
    if installed:
        about = tmp_path / place / "small_net_laboratory-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Name: small-net-laboratory\nVersion: 1.2\n")
    expected = expected.format(commit=git(tmp_path, "rev-parse", "HEAD"))
    assert run_directory.code_version(module) == expected
    if tracked and not place:
        module.write_text("changed")
        assert run_directory.code_version(module) == f"{expected}+changes"


def test_a_statistic_that_is_new_is_nan_in_the_epochs_before():
    old = run_directory.with_epoch({}, 0, ("a", "b"), {"x": np.ones((3, 2), np.float32)})
    both = {"x": np.zeros((3, 2), np.float32), "y": np.zeros((3, 2), np.float32)}
    new = run_directory.with_epoch(old, 1, ("a", "b"), both)
    assert new["x"].shape == new["y"].shape == (2, 3, 2)
    assert np.isnan(new["y"][0]).all() and not new["y"][1].any()
