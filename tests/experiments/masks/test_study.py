"""The face-mask study end to end, on drawn faces and with a net that takes no time."""

import json
import shutil

import jax
import matplotlib.image
import numpy as np
import pytest

from configs import masks as configs
from research.experiments import trainer
from research.experiments.masks import faces, study
from research.faces import detectors, mtcnn_weights, splits
from research.ledger import published, verdicts
from research.ledger.trim import trim
from research.storage import run_directory
from research.structs import UserError
from research.training.evaluate import predict_all

SMALL = {"filters": (3,), "pools": (2,), "dropouts": (0.0,), "dense": (4,)}


def smoke(variant="smoke", **changes):
    """Faces of 24 pixels out of 24 drawn photographs."""
    config = configs.get_config(variant)
    if config.net == "cnn":
        config.update(SMALL | {"dense_dropouts": (0.0,)})
    else:
        config.update({"widths": (8,), "residual": (False,)})
    config.update({"epochs": 2, "learning_rate": 0.01} | changes)
    config.data.update({"drawn": 24, "size": 24, "val": 0.25, "test": 0.15})
    return config


@pytest.fixture(scope="module", autouse=True)
def detector():
    """A detector that takes the middle of a picture, where the drawn person is."""

    def find(images):
        return [np.array([[0.25, 0.1, 0.75, 0.8]]) * [*(i.shape[1::-1] * 2)] for i in images]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "_finder", lambda name, min_face_px: find)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Summary and directory of a run with two seeds and a last step on the validation faces."""
    workdir = tmp_path_factory.mktemp("study")
    return study.run(smoke(seeds=2), workdir), workdir


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The prepared data set, for runs that start from the same photographs."""
    made = tmp_path_factory.mktemp("made")
    _ = study.run(smoke(mode="ingest"), made)

    def into(workdir):
        for name in ("corpus", "masks"):
            shutil.copytree(made / name, workdir / name, copy_function=shutil.copy2)
        return workdir

    return into


def test_a_run_leaves_its_documented_files_and_pictures(finished):
    summary, workdir = finished
    assert run_directory.read_json(workdir / "summary.json") == summary
    for name in ("config.json", "versions.json", "metrics.jsonl", "problems.csv", "checkpoints"):
        assert (workdir / name).exists()
    for name in ("model.safetensors", "model.jaxexport", "labels.json", "README.md"):
        assert (workdir / "export" / name).exists()
    origin = json.loads((workdir / "export" / "origin.json").read_text())
    assert (origin["name"], origin["epochs"]) == (summary["net"], 2)
    assert origin["data"] == {key: summary["data"][key] for key in ("caption", "sha256")}
    drawn = {path.stem: path for path in (workdir / "figures").iterdir()}
    expected = {"samples", "balance", "learning_curves", "confusion_val", "confusion_test"}
    assert set(drawn) - {"mistakes"} == expected | {"roc", "scored"}
    for path in drawn.values():
        assert matplotlib.image.imread(path)[..., :3].std() > 0.02


def test_the_numbers_of_the_summary_are_those_of_the_predictions(finished):
    summary, workdir = finished
    for split in ("val", "test"):
        with np.load(workdir / f"predictions_{split}.npz") as stored:
            hits = stored["logits"].argmax(-1) == stored["labels"]
        numbers = summary[split]["all"]
        assert numbers["accuracies"] == hits.mean(axis=1).tolist()
        parts = [numbers for name, numbers in summary[split].items() if name != "all"]
        assert sum(part["count"] for part in parts) == numbers["count"] == hits.shape[1]
        total = sum(part["count"] * part["accuracy"] for part in parts)
        assert total / numbers["count"] == pytest.approx(numbers["accuracy"])
        assert sum(cell["count"] for cell in numbers["classes"].values()) == numbers["count"]
        assert np.trace(numbers["confusion"]) == hits.sum()
    assert summary["epochs_trained"] == [2, 2]
    losses = np.array([row["val_loss"] for row in run_directory.rows(workdir)])
    assert summary["best_epoch"] == (losses.argmin(axis=0) + 1).tolist()


def test_whole_photographs_are_measured_by_every_detector_that_there_is(finished):
    """The detector takes the middle of a picture: the faces of folders, few of the others."""
    summary, _ = finished
    assert [*summary["end_to_end"]] == [*detectors.KINDS]
    sources = summary["end_to_end"]["mtcnn"]["sources"]
    for source, classes in summary["test"].items():
        assert sources[source]["all"]["count"] >= classes["count"]
    assert sources["folders"]["all"]["found"] == summary["test"]["folders"]["count"]
    assert sources["voc"]["all"]["found"] < summary["test"]["voc"]["count"]
    people = sources["all"]["all"]
    assert f"{people['share']:.2%} of {people['count']} faces in test" in summary["headline"]


def test_every_face_of_the_corpus_is_in_a_split(finished):
    about = finished[0]["data"]["about"]
    annotated = sum(sum(labels.values()) for labels in about["annotated"].values())
    incorrect = sum(labels.get("incorrect", 0) for labels in about["annotated"].values())
    usable = sum(sum(labels.values()) for labels in about["usable"].values())
    shared = [about["splits"][split].values() for split in splits.SPLITS]
    assert usable == sum(sum(labels.values()) for counts in shared for labels in counts)
    assert (usable, about["problems"]) == (annotated - incorrect, 0)
    assert about["detector"]["weights_sha256"] == mtcnn_weights.SHA256


def test_the_last_step_trains_on_the_validation_faces_and_is_evaluated_on_the_test_faces(
    finished, capsys
):
    summary, workdir = finished
    (row,) = run_directory.rows(workdir / "final")
    assert summary["final"]["epochs"] == 1
    assert summary["final"]["test"]["all"]["accuracies"] == row["test_accuracy"]
    exported = json.loads((workdir / "export" / "config.json").read_text())
    assert exported["final_epochs"] == 1
    assert {exported["data"][key] for key in ("voc", "json", "folders", "tfds_dir")} == {""}
    assert "no figure on them holds" in (workdir / "export" / "README.md").read_text().lower()


def test_a_run_of_before_the_splits_were_renamed_is_refused(tmp_path):
    config = json.loads(smoke().to_json_best_effort())
    config["data"]["score"] = config["data"].pop("val")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"called data\.score what is data\.test"):
        _ = study.run(smoke(), tmp_path)


def test_a_finished_run_is_not_run_again(finished, capsys):
    summary, workdir = finished
    assert study.run(smoke(seeds=2), workdir) == summary
    assert "all is done already" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"seeds: begun with 2, asked for 1"):
        _ = study.run(smoke(), workdir)


@pytest.mark.slow
def test_a_run_stopped_in_its_second_epoch_resumes_to_the_same_results(
    finished, corpus, tmp_path, monkeypatch
):
    fit = trainer.fit

    def killed(*arguments, on_epoch, **settings):
        def stop(number, *rest):
            on_epoch(number, *rest)
            raise KeyboardInterrupt

        return fit(*arguments, on_epoch=stop, **settings)

    workdir = corpus(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            _ = study.run(smoke(seeds=2), workdir)
    again = study.run(smoke(seeds=2), workdir)
    for split in ("val", "test", "final"):
        assert again[split] == finished[0][split]


@pytest.mark.slow
def test_with_keep_best_the_best_net_is_evaluated_and_exported(corpus, tmp_path, monkeypatch):
    """With a rate at which the first epoch is the best."""
    seen = {}
    write = study.export.write
    monkeypatch.setattr(study.export, "write", lambda *a, **k: (seen.update(k), write(*a, **k))[1])
    changes = {"keep_best": True, "final_epochs": 0, "patience": 1, "epochs": 4}
    summary = study.run(smoke(learning_rate=0.3, **changes), corpus(tmp_path))
    rows = run_directory.rows(tmp_path)
    best = summary["best_epoch"][0]
    assert best < summary["epochs_trained"][0] == len(rows) < 4
    assert summary["val"]["all"]["accuracies"][0] == rows[best - 1]["val_accuracy"]
    task = study.make_task(smoke(**changes), 50, ("with_mask", "without_mask"))
    loop, split = task.loop, study.data.load(next((tmp_path / "masks").glob("*/2.0.0")), print)
    params = jax.tree.map(lambda leaf: leaf[None], seen["params"])
    logits = predict_all(task.model, params, split.splits["val"].data.images, loop, seeds=1)
    with np.load(tmp_path / "predictions_val.npz") as stored:
        np.testing.assert_array_equal(logits, stored["logits"])


def test_mode_ingest_summarises_the_data_and_trains_nothing(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train_net", None)
    summary = study.run(smoke(mode="ingest"), corpus(tmp_path))
    assert summary["headline"].startswith("DRAWN FACES, no photographs")
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("layout", "claim", "shown"), [("voc", "F02", "with_mask"), ("folders", "F07", "")]
)
def test_prepared_photographs_judge_the_counts_of_their_data_set_if_all_are_there(
    layout, claim, shown, corpus, tmp_path, monkeypatch
):
    photographs = corpus(tmp_path) / "corpus" / layout
    config = configs.get_config("vgg")
    config.update({"mode": "ingest", "data": {layout: str(photographs)}})
    config.data.tfds_dir = str(tmp_path / "tfds")
    data = study.run(config, tmp_path / "run")["data"]["about"]
    run = tmp_path / "run" / "ingest"
    assert run_directory.verify(run) == []

    def judged():
        entries = verdicts.judged(tmp_path, [run])
        return next(entry for entry in entries if entry["id"] == claim)

    entry, whole = judged(), published.PHOTOGRAPHS[layout]
    count = sum(file.suffix in (".png", ".jpg") for file in photographs.rglob("*"))
    assert entry["verdict"] == "NOT RUN"
    assert f"it is on {count} of {whole:,} photographs" in entry["reason"]
    with pytest.raises(UserError, match="was not run on the full set: it is on"):
        _ = trim(run_directory.load_run(run), tmp_path / "kept")
    monkeypatch.setitem(published.PHOTOGRAPHS, layout, count)
    entry = judged()
    annotated = data["annotated"][layout]
    assert entry["verdict"] == "CONTRADICTED"
    assert entry["values"] == [annotated[shown] if shown else sum(annotated.values())]
    assert trim(run_directory.load_run(run), tmp_path / "kept") == f"masks-{layout}"
    kept = "".join(file.read_text() for file in (tmp_path / "kept").rglob("*.json"))
    assert str(tmp_path) not in kept
    # What was prepared next takes its place; a training in the same directory is not in its way.
    config.data.margin = 0.1
    assert study.run(config, tmp_path / "run")["data"]["sha256"]
    assert run_directory.load_run(run).config["data"]["margin"] == 0.1
    with pytest.raises(UserError, match=r"from masks-.* differ: data\.margin"):
        _ = published.name_of(run_directory.load_run(run))


@pytest.mark.parametrize("variant", ["vgg", "best", "best3", "smoke", "vgg,smoke", "best3,smoke"])
def test_every_variant_can_be_used_and_lists_its_layers_and_parameters(variant):
    config = configs.get_config(variant)
    if not config.data.drawn:
        config.data.drawn = 12
    told = study.describe(config)
    if variant == "vgg":
        assert f"{'parameters':52}{2_389_540:>14,}" in told
    assert f"\n{variant.replace(',', '-')}\n" in told
    loop = study.make_task(config, 1000, ("a", "b")).loop
    assert (loop.patience, loop.floor) == (config.patience, config.probability_floor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "evaluate"}, "mode: 'evaluate' is not one of train, ingest"),
        ({"patience": -1}, "patience: -1"),
        ({"final_epochs": -1}, "final_epochs: -1"),
        ({"probability_floor": 0.5}, "probability_floor: 0.5 is not in"),
        ({"net": "vgg"}, "net: 'vgg' is not one of cnn, resnet"),
        ({"filters": (2,) * 12, "pools": (2,) * 12, "dropouts": (0.0,) * 12}, "nothing is left"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_key(changes, message, corpus, tmp_path):
    with pytest.raises(UserError, match=message):
        _ = study.run(smoke(**changes), corpus(tmp_path))
    assert not (tmp_path / "config.json").exists()
