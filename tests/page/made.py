"""Made-up runs and claims, as small as a page can be made of."""

import io
import json

import numpy as np
from PIL import Image

from research.ledger import verdicts
from research.ledger.tables.depth import REPORTED
from research.page import content
from research.storage import run_directory

KEYS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
HOSTILE = '<script>alert("claimed")</script> & more'


def entry(name="B08", **changes):
    """A claim as `book.judged` gives it."""
    return {
        "id": name,
        "exercise": 1,
        "section": "Exercise 1, Part B",
        "kind": "N",
        "text": f"the text of {name}",
        "claimed": "96.2 %",
        "verdict": "REPRODUCED",
        "reason": f"the reason of {name}",
        "ours": None,
        "values": [],
        "reported": 96.2,
        "parts": [{"text": "a check", "holds": True, "order": False}],
        "data": "MNIST, all of it",
        "config": "configs/mlp.py:relu-5",
        "command": "python -m research.main",
        "figure": "",
        "hypotheses": [],
        "test": ["tests/test_x.py::test_y"],
        "estimate": None,
    } | changes


def ours(**changes):
    """Numbers of a claim."""
    numbers = {"mean": 94.6, "sd": 0.66, "min": 93.5, "max": 95.3, "seeds": 5}
    return {**numbers, "percentile": 100.0, "unit": "%"} | changes


def entries():
    """A claim of each verdict, in three sections, and one that would like to be HTML."""
    claims = [
        entry(f"B{i:02d}", verdict=verdict, kind=kind)
        for i, (verdict, kind) in enumerate(zip(verdicts.VERDICTS, "NQMCX", strict=True))
    ]
    other = {"name": "batch-32", "text": "batches of 32", "command": "", "ours": ours(mean=96.0)}
    claims[2] |= {"ours": ours(), "hypotheses": [{**other, "reason": ""}]}
    second = entry("E22", exercise=2, section="Exercise 2", kind="N/Q", reason="a horse")
    hostile = entry("F01", exercise=3, section="Exercise 3", text=HOSTILE, verdict="CONTRADICTED")
    return [*claims, second, hostile]


def write(folder, config, summary, files):
    """A finished run; files: {path below its directory: content}."""
    versions = {
        "data": {"name": "MNIST", "caption": "MNIST, all of it", "full": True},
        "device": "a device",
        "packages": {"jax": "0.0.1"},
        "git_commit": "abcdef0123456789",
    }
    parts = {"config": config, "versions": versions, "summary": summary}
    parts = {f"{name}.json": json.dumps(part) for name, part in parts.items()}
    for name, whole in {**files, **parts}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole if isinstance(whole, bytes) else whole.encode())
    return run_directory.load_run(folder)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def bands(net, epochs):
    """10^-layer at epoch 0, ten times more with every epoch; half a decade around."""
    layers = int(net.partition("-")[2]) + 1
    grid = np.arange(epochs)[:, None] - np.arange(1, layers + 1)
    shifts = {"median": 0.0, "low": -0.5, "high": 0.5}
    return {name: (10.0 ** (grid + shift)).tolist() for name, shift in shifts.items()}


def depth(folder):
    """A trimmed depth study of two seeds."""
    config = {"experiment": "depth", "name": "all", "width": 32, "batch_size": 64, "epochs": 10}
    config |= {"learning_rate": 0.01, "seeds": 2, "nets": list(REPORTED)}
    curve = {name: [value] * 3 for name, value in (("mean", 0.6), ("low", 0.5), ("high", 0.7))}
    files = {}
    for net in REPORTED:
        gradients = {"kernel_abs_max": bands(net, 11), "signal_abs_max": bands(net, 4)}
        content = {"curves": dict.fromkeys(KEYS, curve), "gradients": gradients}
        files[f"{net}/over_seeds.json"] = json.dumps(content)
    nets = {net: {"test_accuracy": [0.5, 0.9]} for net in REPORTED}
    return write(folder, config, {"nets": nets, "headline": "many nets"}, files)


def masks(folder):
    """The report's face-mask net with two seeds, the second of which stopped first."""
    config = {"experiment": "masks", "name": "vgg", "seeds": 2, "data": {}}
    rows = [
        {"epoch": epoch, **{key.replace("test", "val"): values for key in KEYS}}
        for epoch, values in enumerate([[0.5, 0.6], [0.4, 0.7], [0.3, None]], 1)
    ]
    summary = {"net": "vgg", "epochs_trained": [3, 2]}
    return write(folder, config, summary, {"metrics.jsonl": lines(rows)})


def picture(kind="png", level=0, side=4):
    stream = io.BytesIO()
    Image.new("L", (side, side), level).save(stream, kind)
    return stream.getvalue()


def attack(folder, dataset="mnist", method="minimal", actual=(0, 7), first=0):
    """An attack whose last cell of a row has failed; grey levels say row and column."""
    config = {"experiment": "noise", "name": dataset, "dataset": dataset, "method": method}
    numbers = {"steps": 3, "predicted": 1, "probability": 0.5, "l0": 9, "l2": 0.7, "linf": 0.2,
               "psnr": 30.0, "ssim": 0.9}  # fmt: skip
    cells, files = [], {}
    for row, label in enumerate(actual):
        image = 3 + row
        files[f"clean/{image:05d}.png"] = picture(level=first + 11 * row)
        for target in range(10):
            file = f"cells/{image:05d}-to-{target}.png"
            files[file] = picture(level=first + 11 * row + 1 + target)
            about = {"image": image, "actual": label, "target": target, "file": file}
            cells.append({**about, **numbers, "success": target < 9})
    cells[0]["l2"] = 1.5 + first / 100
    summary = {"method": method, "nets": {dataset: {"epochs": 4}}}
    return write(folder, config, summary, {"cells.jsonl": lines(cells), **files})


def theory():
    """As `benchmarks.theory` writes it: a tenth of the first epoch's medians."""
    sides = {
        net: [0.1 * 10.0**-layer for layer in range(1, int(net.partition("-")[2]) + 2)]
        for net in REPORTED
    }
    names = ("kernel_rms", "kernel_abs", "signal_rms", "signal_abs")
    nets = {
        net: {
            "predicted": dict.fromkeys(names, sizes),
            "measured": {name: [2 * size for size in sizes] for name in names},
        }
        for net, sizes in sides.items()
    }
    return {"nets": nets, "seeds": 3}


def table():
    """As `content.table` reads it."""
    return {"head": ["net", "so"], "rows": [["relu-5", HOSTILE]], "note": "A note."}


def root(folder):
    """A folder with results/ of every run that the page needs, and of benchmarks."""
    results = folder / "results"
    trial = {"net": "relu-40", "change": "He", "keys": {"init": "he"}, "scales": 0.0, "error": ""}
    trials = [{**trial, "accuracy": [0.9], "reached": None}]
    benchmarks = {
        "theory": theory(),
        "counterfactuals": {"trials": trials, "epochs": 1, "seeds": 1, "device": "a device",
                            "data": "MNIST", "date": "2024-02-29"},
    }  # fmt: skip
    for name, content_ in benchmarks.items():
        path = folder / "benchmarks" / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        _ = path.write_text(json.dumps(content_))
    _ = depth(results / "depth")
    _ = masks(results / "masks-vgg")
    for dataset, actual in (("mnist", (0, 7)), ("cifar10", (7,))):
        for i, method in enumerate(content.METHODS):
            place = results / f"grid-{dataset}-{method}"
            _ = attack(place, dataset, method, actual, first=100 * i)
    for name, file in (
        ("masks-drawn", "figures/scored.webp"),
        ("masks-smoke", "figures/samples.png"),
        ("predict-portrait", "portrait-panels.png"),
        ("predict-drawn", "drawn-panels.webp"),
    ):
        config = {"experiment": name.partition("-")[0], "name": name, "data": {}}
        summary = {"headline": f"headline of {name}"}
        _ = write(results / name, config, summary, {file: picture(file.rpartition(".")[2])})
    return folder
