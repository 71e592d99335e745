"""Tables of the face masks, from a small made-up run."""

from ledger.finished import mask_classifier
from research.ledger.tables import masks as tables
from research.storage.run_directory import load_run


def test_a_row_has_the_numbers_of_a_source_and_of_both_held_out_sets(tmp_path):
    run = load_run(mask_classifier(tmp_path, data={"tfds_dir": "/somewhere"}))
    whole, voc = tables.table([run]).splitlines()[2:4]
    assert whole == (
        "| vgg | all | 16 | 80.0 | 5.0 | 70.0 - 90.0 | 75.0 | 0.9877 "
        "| 11 | 70.0 | 60.0 - 80.0 | 75.0 |"
    )
    assert voc == "| vgg | voc | 16 | 80.0 | - | 70.0 - 90.0 | 75.0 | 0.9877 | - | - | - | - |"
    command = "python -m research.main --config=configs/masks.py:vgg --config.seeds=2"
    assert f"`{command} --config.data.voc=DIR/voc`" in tables.table([run])


def test_a_row_of_photographs_has_every_detector(tmp_path):
    lines = tables.end_to_end_table([load_run(mask_classifier(tmp_path))]).splitlines()
    cells = "| 9 | 45.0 | 25.0 - 55.0 | 12 | 60.0 | 40.0 - 70.0 |"
    assert lines[2] == f"| vgg | all | all | 20 {cells}"
    assert {line.count("|") for line in lines[:3]} == {lines[2].count("|")}


def test_of_one_source_there_are_no_rows_of_all(tmp_path):
    run = load_run(mask_classifier(tmp_path))
    for measured in run.summary["end_to_end"].values():
        measured["sources"]["voc"] = measured["sources"]["all"]
    rows = tables.end_to_end_table([run]).splitlines()[2:-2]
    assert [row.split(" | ")[1] for row in rows] == ["voc"]


def test_the_same_faces_stand_side_by_side_where_there_are_any(tmp_path):
    lines = tables.both_ways_table([load_run(mask_classifier(tmp_path))]).splitlines()
    assert lines[2:] == [
        "| vgg | mtcnn | all | 9 | 90.0 | 80.0 - 100.0 | 80.0 | 70.0 - 90.0 |",
        "| vgg | mtcnn | with_mask | 9 | 90.0 | 70.0 - 100.0 | 80.0 | 60.0 - 90.0 |",
    ]


def test_a_row_of_a_class_says_what_its_faces_are_called_by_a_net(tmp_path):
    lines = tables.classes_table([load_run(mask_classifier(tmp_path))]).splitlines()
    assert lines[0].endswith("| called with_mask | called without_mask |")
    assert lines[2:] == [
        "| vgg | val | with_mask | 16 | 80.0 | 60.0 - 90.0 | 8.0 | 1.5 |",
        "| vgg | test | with_mask | 11 | 70.0 | 50.0 - 80.0 | 5.5 | 1.5 |",
    ]


def test_the_counts_follow_every_class_from_annotation_to_split(tmp_path):
    lines = tables.counts_table(load_run(mask_classifier(tmp_path))).splitlines()
    assert lines[2:5] == [
        "| voc | incorrect | 3 | 0 | 0 | 0 | 0 | 0 |",
        "| voc | with_mask | 70 | 70 | 50 | 0 | 12 | 8 |",
        "| voc | without_mask | 20 | 19 | 12 | 38 | 4 | 3 |",
    ]


def test_the_trends_are_those_of_every_seed_as_long_as_it_was_trained(tmp_path):
    found = {}
    for line in tables.trends_table(load_run(mask_classifier(tmp_path))).splitlines()[2:]:
        claim, _, here = (cell.strip() for cell in line.strip("|").split("|"))
        found[claim] = here
    assert found == {
        "F17, F23": "after 4, 3",
        "F19": "70.0 → 95.0 %; 60.0 → 80.0 %",
        "F20": "60.0 → 75.0 %; 50.0 → 70.0 %",
        "F21": "in 1 of 2 seeds",
        "F22": "it turns 2, 0 times",
        "F32": "10.0, 0.0 points",
    }
