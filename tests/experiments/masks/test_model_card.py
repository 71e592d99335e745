"""The card says what is so, and what is not known."""

import copy
import re

import pytest

from configs.masks import get_config
from research.experiments.masks.model_card import card


def group(count, accuracy, **values):
    return {
        **{"count": count, "accuracy": accuracy, "sd": None, "interval": [0.81, 0.93]},
        **{"majority": 0.625, "accuracies": [accuracy], "auc": 0.9411, **values},
        "classes": {"with_mask": share(count - 30, accuracy - 0.1)},
    }


def share(count, right, **values):
    return {"count": count, "share": right, "interval": [0.51, 0.77], **values}


SUMMARY = {
    "net": "vgg",
    "names": ["with_mask", "without_mask"],
    "seeds": [3],
    "epochs_trained": [14],
    "best_epoch": [10],
    "val": {"all": group(200, 0.885), "voc": group(150, 0.91), "folders": group(50, 0.81)},
    "test": {"all": group(100, 0.864, auc=None), "voc": group(100, 0.864)},
    "end_to_end": {
        "mtcnn": {"sources": {"all": {"all": share(140, 0.64, found=91)}, "voc": {}}},
    },
    "final": {},
    "data": {
        "caption": "voc 1,000 faces, sha256 12345678",
        "sha256": "12345678",
        "about": {
            "annotated": {"voc": {"with_mask": 900, "incorrect": 104}, "folders": {}},
            "left_out": {"voc": {"hijab_niqab": 17}, "folders": {}},
            "too_small": 23,
            "usable": {},
            "splits": {
                "train": {"voc": {"with_mask": 701, "without_mask": 155}},
                "val": {"voc": {"with_mask": 130}},
            },
            "copies": {"voc": {"without_mask": 546}},
            "problems": 9,
            "near_duplicates": 2,
            "request": {"directories": {"voc": "/home/somebody/voc"}},
        },
    },
    "parameters": 2389540,
    "seconds": 812.3,
    "peak_memory_mib": 1500.0,
    "device": "CPU of some kind, 2 cores",
    "headline": "",
}


def written(**changes):
    """The card with other values of config keys, dotted as in "data.drawn", or of the summary."""
    config = get_config("vgg")
    config.data.min_side = 12
    summary = copy.deepcopy(SUMMARY)
    for key, value in changes.items():
        if key in summary:
            summary[key] = value
        else:
            config.update_from_flattened_dict({key.replace("__", "."): value})
    return card(summary, config)


def rows(text, start):
    """The cells of the table rows whose first cell is `start`."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_number_of_the_data_and_of_the_accuracy_is_in_its_place():
    text = written()
    assert rows(text, "train") == [["train", "voc", "701", "155"]]
    assert rows(text, "val")[0] == ["val", "voc", "130", "0"]
    assert rows(text, "train, augmented copies") == [["train, augmented copies", "voc", "0", "546"]]
    assert rows(text, "val")[1:4] == [
        ["val", "all", "200", "88.50%", "81.00% - 93.00%", "", "62.50%", "0.9411"],
        ["val", "voc", "150", "91.00%", "81.00% - 93.00%", "", "62.50%", "0.9411"],
        ["val", "folders", "50", "81.00%", "81.00% - 93.00%", "", "62.50%", "0.9411"],
    ]
    assert rows(text, "test")[0][3:] == ["86.40%", "81.00% - 93.00%", "", "62.50%", ""]
    assert ["test", "with_mask", "70", "76.40%", "51.00% - 77.00%"] in rows(text, "test")
    assert rows(text, "mtcnn") == [["mtcnn", "all", "140", "91", "64.00%", "51.00% - 77.00%"]]
    assert "voc 1,000 faces, sha256 12345678" in text and "2,389,540 parameters" in text
    left = "17 hijab_niqab (voc); 104 masks worn incorrectly (voc); 23 faces with a side under 12"
    assert f"Left out: {left}" in text and "9 problems" in text
    assert "Seeds 3; epochs 14, lowest validation loss after epoch 10; 812 s on CPU of some" in text
    assert "`learning_rate` 0.001" in text and "`data.margin` 0.0" in text
    assert re.search(r"Written with Python 3\.\d+\.\d+, jax \d+\.", text)


def test_all_rows_of_a_table_have_as_many_cells():
    tables = re.findall(r"(?:^\|.*\n)+", written(), re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_limits_are_stated():
    text = written()
    for words in (
        "**Not a safety device**",
        "their origin is unclear",
        "different sources",
        "**not measured**",
        "Faces under 20 pixels",
        "Masks worn incorrectly were left out",
        "the probability given is p / sum p",
        "their loss ended it",
        "CC0 1.0, as quoted by third parties",
        "no licence stated",
    ):
        assert words in text, words
    assert "on request" not in text  # that set has no part in it
    assert "/home/somebody" not in text


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({"names": ["with_mask", "incorrect"]}, "a class of its own", "were left out"),
        ({"head": "softmax"}, "A probability is not calibrated.\n", "p / sum p"),
        ({"keep_best": True}, "the epoch that is kept was chosen by them", "ended it"),
        ({"patience": 0}, "watched while training: they", "ended it"),
        ({"data__drawn": 60}, "**Trained on drawings of faces", "Licences"),
        ({"data__min_side": 31}, "Faces under 31 pixels", "Faces under 20"),
        ({"seeds": [0, 1]}, "means over 2 seeds; this is the first of them", "Seeds 3"),
    ],
)
def test_the_text_depends_on_the_run(changes, present, absent):
    text = written(**changes)
    assert present in text and absent not in text
    assert present not in written() and absent in written()


def test_after_epochs_on_the_validation_faces_no_figure_on_them_is_claimed():
    claim = "No figure on them holds for the net in this folder."
    final = {"epochs": 5, "test": {"all": group(100, 0.874)}}
    text = written(final_epochs=5, final=final)
    assert claim in text and "trained for 5 epochs on the validation faces" in text
    row, of_class = rows(text, "test, after the last epochs")
    assert of_class[1:4] == ["with_mask", "70", "77.40%"]
    assert row[1:4] == ["all", "100", "87.40%"]
    assert claim not in written()
    assert claim in written(final_epochs=5, final={"epochs": 5, "test": {}}, test={})
