"""The benchmark of the ingestion: as many faces as asked for, and a table of what it measures."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import ingest, ours_ingest
from research.data.image_files import photograph_header, read_photograph
from research.faces import annotations, dataset
from research.faces.annotations import Box, Face, Photograph
from research.ledger import documents
from research.structs import Dataset, Metrics
from research.training.epoch import EpochResult
from research.training.step import Loop

RESULTS = {
    "device": "Abacus, 2 cores",
    "date": "2024-02-29",
    "size": 200,
    "versions": {"jax": "1.2"},
    "threads": 2,
    "pixels_mib": 1401.0,
    "corpus": {"photographs": 2250, "annotated": 9000},
    "phases": {
        "ingest": {"faces": 12243, "copies": 3243, "seconds": 100.0, "cores": 1.76}
        | {"wall_s": 103.0, "peak_mib": 400.4},
        "train": {"trained": 9243, "tested": 2000, "seconds": 90.6, "images_per_s": 123.4}
        | {"loading": 2.34, "wall_s": 99.0, "peak_mib": 1600.0},
        "whole": {"wall_s": 201.0, "peak_mib": 1700.0},
    },
}


def test_the_table_has_rates_and_the_peak_of_every_phase() -> None:
    lines = ingest.table(RESULTS).splitlines()
    assert lines[2:5] == [
        "| annotated photographs to faces on the disk | 100 | 122 faces | 400 |",
        "| an epoch on them, and the validation faces | 91 | 123 images | 1,600 |",
        "| both in one process | 201 | - | 1,700 |",
    ]
    assert "12,243 faces of 200 x 200, 3,243 of them copies" in lines[-1]
    assert "1.8 of 2 cores" in lines[-1] and "takes 2.3 s to read" in lines[-1]
    assert "peak memory is below 2,048 MiB" in lines[-1]
    assert lines[-1].endswith("Abacus, 2 cores; jax 1.2; 2024-02-29.")
    larger = copy.deepcopy(RESULTS)
    larger["phases"]["train"]["peak_mib"] = 2048.0
    assert "peak memory is NOT below 2,048 MiB" in ingest.table(larger)


def test_the_table_is_one_of_the_readme(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks" / "results" / "ingest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(RESULTS))
    assert documents.BLOCKS["benchmark-ingest"](tmp_path) == ingest.table(RESULTS)


def test_there_are_as_many_faces_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours_ingest, "_BASES", 12)
    monkeypatch.setattr(ours_ingest, "_LARGE_EVERY", 9)
    monkeypatch.setattr(ours_ingest, "_LARGE_PX", 600_000)
    said = ours_ingest.draw(tmp_path, 200, 16)
    assert said["annotated"] == 147  # 9,000 of 12,243
    corpus = annotations.read(tmp_path / "voc", "voc")
    assert len(corpus.faces) == 147 and corpus.problems == []
    sizes = [
        photograph_header(path)[:2] for path in sorted((tmp_path / "voc" / "images").iterdir())
    ]
    assert len(sizes) == said["photographs"] >= 18
    assert [w * h > 500_000 for w, h in sizes[:18]] == [i % 9 == 8 for i in range(18)]
    found, took = ours_ingest.prepare(tmp_path, tmp_path / "home")
    assert took["faces"] == 200 and took["copies"] == 53 and took["seconds"] > 0
    counts = {split: len(faces.data.labels) for split, faces in found.splits.items()}
    assert counts == {"train": 151, "val": 33, "test": 16}
    assert found.about["problems"] == 0 and not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("number", range(4))
def test_the_boxes_move_with_the_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A white face on black, mirrored or not, in another size; the last one is large."""
    monkeypatch.setattr(ours_ingest, "_LARGE_EVERY", 4)
    monkeypatch.setattr(ours_ingest, "_LARGE_PX", 120_000)
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[20:50, 10:40] = 255
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    Image.fromarray(pixels).save(tmp_path / "base.png")
    face = Face(
        Photograph(f"{tmp_path}/base.png", 120, 90), Box(10, 20, 40, 50), "with_mask", "voc"
    )
    generator = np.random.default_rng(number)
    ours_ingest._write_varied(tmp_path, number, [face], generator)
    (found,) = annotations.read(tmp_path, "voc").faces
    light = read_photograph(found.photograph.path).mean(axis=2)
    box = found.box
    inside = light[box.top + 1 : box.bottom - 1, box.left + 1 : box.right - 1]
    assert inside.min() > 150 and (light.size > 110_000) == (number == 3)
    light[box.top - 1 : box.bottom + 1, box.left - 1 : box.right + 1] = 0
    assert light.max() < 60


def test_an_epoch_counts_all_faces_and_is_timed_without_its_compilation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 50.0, 52.0, 54.0, 60.0])
    monkeypatch.setattr(ours_ingest.time, "monotonic", lambda: next(clock))

    def fit(
        model: object, tx: object, data: Dataset, test: Dataset, loop: Loop, **words: object
    ) -> None:
        assert (loop.epochs, loop.batch_size, loop.floor) == (1, 32, 1e-7)
        assert model.head == "sigmoid" and len(data.images) == 90
        for done in (1, 2, 3):
            words["on_steps"](1, done, 3)
        result = EpochResult(
            *(Metrics(np.zeros(1), np.zeros(1), np.array([n])) for n in (90, 7)), {}, 0, True
        )
        words["on_epoch"](1, None, result, 9.0)

    monkeypatch.setattr(ours_ingest, "fit", fit)
    monkeypatch.setattr(ours_ingest.sharding, "configure", lambda **_: None)  # once a process
    empty = np.zeros(0, np.int32)
    splits = {
        split: dataset.Faces(Dataset(np.zeros((n, 4, 4, 3), np.uint8), empty), empty, empty, empty)
        for split, n in (("train", 90), ("val", 7))
    }
    found = dataset.Masks(splits, ("a", "b"), {}, Path())
    said = ours_ingest.run_epoch(found)
    # Steps 2 and 3, 64 images in 4 s.
    expected = {"trained": 90, "tested": 7, "seconds": 60.0, "images_per_s": 16.0}
    assert said == expected and json.dumps(said)
