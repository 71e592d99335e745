from ledger import finished
from research.ledger.tables import classifiers
from research.storage.run_directory import load_run


def test_a_classifier_is_a_row_with_its_data_and_its_command(tmp_path):
    run = load_run(finished.classifier(tmp_path, epochs=10))
    head, _, row, *notes = classifiers.table([run]).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["epochs"] == "10 of 50" and cells["seeds"] == "2"
    assert cells["parameters"] == "1,234" and cells["test accuracy (%)"] == "75.00"
    assert (cells["min"], cells["max"]) == ("70.00", "80.00")
    assert cells["95 % of the first"] == "71.12 - 86.66"
    assert cells["calibration error"] == "0.0200" and cells["the report |"] == "75 |"
    text = "\n".join(notes)
    for words in ("--config.epochs=10 --config.seeds=2", "512 MiB", "cifar10: CIFAR-10, all"):
        assert words in text


def test_a_net_of_ours_has_no_number_of_the_report(tmp_path):
    run = load_run(finished.classifier(tmp_path, "mnist-best"))
    assert classifiers.table([run]).splitlines()[2].endswith("| - |")
