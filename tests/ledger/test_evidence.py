import numpy as np
import pytest

from ledger import finished
from research.ledger import evidence
from research.storage.run_directory import load_run
from research.structs import UserError

RECORDS = {
    "masks-vgg": {
        "curve": [[0.5, 0.4], [0.3, 0.6], [0.4, None]],
        "three": {"a": [1, 5], "b": [4, 2]},
        "one": 7,
    }
}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("masks-vgg:three.a", [1, 5]),
        ("masks-vgg:one", [7]),
        ("masks-vgg:three.a,b", [[1, 5], [4, 2]]),
        ("masks-vgg:three.a,b|highest", [4, 5]),
        ("masks-vgg:three.a,b|lowest", [1, 2]),
        ("masks-vgg:curve|first", [0.5, 0.4]),
        ("masks-vgg:curve|last", [0.4, 0.6]),
        ("masks-vgg:curve|rises", [1, 1]),
        ("masks-vgg:curve|turns", [1, 0]),
    ],
)
def test_a_key_is_the_way_to_its_numbers(key, values):
    found = evidence.samples(RECORDS, key)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("key", ["depth:x", "masks-vgg:other", "masks-vgg:three.c"])
def test_what_is_not_recorded_is_missing(key):
    with pytest.raises(KeyError):
        _ = evidence.samples(RECORDS, key)


def test_the_runs_of_a_directory_are_read_by_name(tmp_path):
    finished.study(tmp_path / "depth")
    finished.attack(tmp_path / "noise-cifar10-faithful", "cifar10", finished.HORSE)
    (tmp_path / "notes").mkdir()
    facts = evidence.read(tmp_path)
    assert list(facts) == ["depth", "noise-cifar10-faithful"]
    assert facts["depth"]["gradients"]["relu-5"]["kernel_abs_max"]["largest"] == [3.0, 13.0]
    assert facts["depth"]["test_loss"]["tanh-40"] == [0.25, 0.75]
    assert facts["noise-cifar10-faithful"]["psnr_first"] == [20.0]
    (tmp_path / "depth" / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"depth/summary\.json: cannot be read"):
        _ = evidence.read(tmp_path)


def test_a_run_gives_the_facts_of_its_experiment(tmp_path):
    (made,) = evidence.of_run(load_run(finished.classifier(tmp_path / "b"))).items()
    assert made[0] == "cnn-cifar10" and made[1]["test_accuracy"] == [0.8, 0.7]
    assert (made[1]["epochs"], made[1]["shortfall"]) == (50, "")
    (made,) = evidence.of_run(load_run(finished.mask_classifier(tmp_path / "c"))).items()
    assert made[0] == "masks-vgg" and made[1]["epochs_trained"] == [4, 3]
    assert made[1]["curves"]["val_loss"] == finished.CURVES["val_loss"]
    jpeg = finished.attack(
        tmp_path / "d", method="faithful", data={"name": "CIFAR-10 (JPEG copies)", "full": False}
    )
    (facts,) = evidence.of_run(load_run(jpeg)).values()
    assert (facts["horse"], facts["epochs"]) == (False, 4)
    assert facts["shortfall"] == "it is on MNIST, all of it"


@pytest.mark.parametrize(
    ("data", "number", "horse"),
    [
        ("CIFAR-10", 87, True),
        ("CIFAR-10 (JPEG copies)", 87, False),  # the ninth horse
        ("CIFAR-10 (JPEG copies)", 97, True),  # the tenth
        ("CIFAR-10", 97, False),
    ],
)
def test_the_reports_horse_has_another_number_in_copies_in_jpeg(tmp_path, data, number, horse):
    changes = {"method": "faithful", "extra_indices": (number,)}
    changes["data"] = {"name": data}
    made = finished.attack(tmp_path / "a", "cifar10", finished.HORSE, **changes)
    (facts,) = evidence.of_run(load_run(made)).values()
    assert facts["horse"] == horse


def test_an_attack_that_does_not_say_what_its_nets_were_made_from_judges_only_from_results(
    tmp_path,
):
    net = finished.attacked()
    del net["origin"]
    workdir = finished.attack(tmp_path / "noise-mnist-faithful", method="faithful", net=net)
    assert evidence.read(tmp_path)["noise-mnist-faithful"]["shortfall"] == ""
    with pytest.raises(UserError, match="did not record what the net mnist was trained on"):
        _ = evidence.of_run(load_run(workdir))
