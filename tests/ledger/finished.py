"""Directories of finished runs, as small as tables and ledger can be made of."""

import json
from pathlib import Path

import numpy as np

from configs import cnn, masks, mlp, noise
from research.data.provenance import MNIST_SHA256
from research.ledger import published
from research.ledger.tables import depth
from research.storage import records, run_directory

NUMBERS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
ROOT = Path(__file__).parents[2]
HOME = "/home/somebody"
FACES = min(published.FACES)


def write(workdir, config, data, summary):
    """The three JSON files; the data lie in somebody's home."""
    workdir.mkdir(parents=True, exist_ok=True)
    config.data.update({"voc" if config.experiment == "masks" else "dir": f"{HOME}/data"})
    (workdir / "config.json").write_text(config.to_json())
    versions = {"data": data, "device": "a device", "packages": {"jax": "0.0.1"}}
    run_directory.write_json(workdir / "versions.json", versions | {"git_commit": "abc"})
    run_directory.write_json(workdir / "summary.json", summary | {"data": data})
    return workdir


def whole(data, **changes):
    """A whole data set, as versions.json describes it."""
    described = {"name": data, "caption": f"{data}, all of it", "full": True}
    described |= {"dataset": "mnist", "sha256": MNIST_SHA256}
    if data == "CIFAR-10":
        described |= {"dataset": "cifar10", "sha256": "c1fa4"}
    return described | {"source": f"files in {HOME}"} | changes


def study(workdir, nets=mlp.NETS, data=None, **changes):
    """Some nets with two seeds: a row of metrics of epoch 1, gradients of epochs 0 to 3.

    In layer l (from 0) of seed s the kernel maxima of epoch e are e + 10 s - l / 100.
    """
    config = mlp.get_config("all")
    config.update({"seeds": 2, "nets": tuple(nets)} | changes)
    last = {key: [0.25, 0.75] for key in NUMBERS}
    summary = {"nets": {net: {"net": net, "epoch": 1, **last} for net in nets}}
    write(workdir, config, whole("MNIST", **data or {}), summary)
    (workdir / "figures").mkdir()
    (workdir / "figures" / "figure_3.png").write_bytes(b"picture")
    for net in nets:
        (workdir / net).mkdir()
        metrics = records.lines([{"epoch": 1, "seconds": 2.0} | last])[0]
        _ = (workdir / net / "metrics.jsonl").write_text(metrics)
        layers = np.arange(int(net.split("-")[1]) + 1)
        epochs, seeds = np.arange(4)[:, None, None], np.arange(2)[None, :, None]
        maxima = np.float32(epochs + 10 * seeds - layers / 100)
        arrays = {name: maxima for name in (*depth.READINGS, "signal_abs_max")}
        arrays["signal_abs_mean"] = np.float32(0.5) ** np.float32(layers[::-1]) * np.ones((4, 2, 1))
        run_directory.write_arrays(workdir / net / "gradients.npz", arrays)
    return workdir


def classifier(workdir, name="cifar10", data=None, **changes):
    """A classifier of two seeds, with 80 and 70 of 100 images right."""
    config = cnn.get_config(name)
    config.update({"seeds": 2} | changes)
    test = [
        {"accuracy": correct / 100, "correct": correct, "count": 100, "ece": ece}
        for correct, ece in ((80, 0.01), (70, 0.03))
    ]
    summary = {"net": name, "parameters": 1234, "peak_memory_mib": 512.0, "test": test}
    write(workdir, config, whole("CIFAR-10", **data or {}), summary)
    (workdir / "figures").mkdir()
    (workdir / "figures" / "confusion.png").write_bytes(b"matrix")
    return workdir


def cell(image, actual, target, predicted, success=True, **more):
    """A line of cells.jsonl."""
    numbers = {"steps": 101, "probability": 0.75, "psnr": 20.0, "l2": 1.0, "ssim": 0.5}
    return {
        "image": image, "actual": actual, "target": target, "predicted": predicted,
        "success": success, "file": f"cells/{image:05d}-to-{target}.png", **numbers, **more,
    }  # fmt: skip


ZEROS = [cell(3, 0, 0, 6), cell(3, 0, 2, 1, success=False, steps=3000), cell(10, 0, 2, 2)]
HORSE = [cell(87, 7, 0, 0, probability=0.99), cell(87, 7, 7, 4), cell(5, 3, 0, 0)]


def kind(won, tried, **medians):
    """What a summary says of the targeted or of the untargeted cells of a net."""
    keys = ("l0", "l2", "linf", "psnr", "ssim", "probability", "margin", "steps", "start_l2")
    spread = {key: {"median": value, "p90": 2 * value} for key, value in medians.items()}
    return {"tried": tried, "won": won, **dict.fromkeys(keys), **spread}


def attacked(**changes):
    """What a summary says of a net under attack."""
    return {
        "targeted": kind(88, 90, l2=0.5, linf=40 / 255, psnr=30.26, ssim=0.91251),
        "untargeted": kind(10, 10),
        "verified": {"files": 98, "survived": 97, "batch_size": 65},
        "diagnostics": {"dead_share_first": 0.404, "dead_share_last": 0.7},
        "cells": 100,
        "gradients": 12_345,
        "epochs": 4,
        "run": f"{HOME}/runs/mnist",
        "origin": origin(),
    } | changes


def origin(data=None, **changes):
    """What a net was made from that its own variant has trained to its end on all of MNIST."""
    stated = {"experiment": "classifiers", "changes": {}, "epochs": 4, "epochs_asked": 4}
    described = whole("MNIST", **data or {})
    del described["source"]
    return stated | {"data": described} | changes


def attack(workdir, name="mnist", cells=ZEROS, net=None, data=None, summary=None, **changes):
    """An attack of one net, with the pictures of its cells and a figure."""
    config = noise.get_config(name)
    with config.unlocked():
        config.update(changes)
    content = {"method": config.method, "sample": "some images"}
    content |= {"nets": {name: net or attacked()}} | (summary or {})
    write(workdir, config, whole("MNIST", **data or {}), content)
    lines = "".join(json.dumps(each) + "\n" for each in cells)
    (workdir / "cells.jsonl").write_text(lines)
    for folder, file in (("figures", "distributions.png"), ("clean", "00003.png")):
        (workdir / folder).mkdir()
        (workdir / folder / file).write_bytes(file.encode())
    (workdir / "cells").mkdir()
    for each in cells:
        (workdir / each["file"]).write_bytes(b"a picture")
    return workdir


def group(count, accuracy, sd=0.05):
    """What a summary says of the faces of a source."""
    return {
        "count": count,
        "accuracy": accuracy,
        "sd": sd,
        "interval": [accuracy - 0.1, accuracy + 0.1],
        "majority": 0.75,
        "accuracies": [accuracy] * 2,
        "auc": 0.98765,
        "classes": {"with_mask": share(count, accuracy)},
        "confusion": [[count, 3], [0, 0]],
    }


def share(count, right):
    """What a summary says of the faces of a class."""
    return {"count": count, "share": right, "interval": [right - 0.2, right + 0.1]}


ABOUT = {
    "annotated": {"voc": {"with_mask": 70, "without_mask": 20, "incorrect": 3}},
    "usable": {"voc": {"with_mask": 70, "without_mask": 19}},
    "splits": {
        "train": {"voc": {"with_mask": 50, "without_mask": 12}},
        "val": {"voc": {"with_mask": 12, "without_mask": 4}},
        "test": {"voc": {"with_mask": 8, "without_mask": 3}},
    },
    "copies": {"voc": {"without_mask": 38}},
    "problems": 1,
    "near_duplicates": 2,
}
# Two seeds; the second has stopped after its third epoch.
CURVES = {
    "train_loss": [[0.5, 0.5], [0.4, 0.6], [0.3, 0.5], [0.2, None]],
    "train_accuracy": [[0.7, 0.6], [0.8, 0.7], [0.9, 0.8], [0.95, None]],
    "val_loss": [[0.6, 0.6], [0.7, 0.5], [0.5, 0.4], [0.6, None]],
    "val_accuracy": [[0.6, 0.5], [0.85, 0.6], [0.8, 0.7], [0.75, None]],
}


def mask_classifier(workdir, name="vgg", data=None, sha256=FACES, **changes):
    """A classifier of faces, of two seeds; its figures are pictures of the least size."""
    config = masks.get_config(name)
    config.update({"seeds": 2} | changes)
    config.data.update(data or {})
    summary = {
        "net": name,
        "seeds": [0, 1],
        "epochs_trained": [4, 3],
        "best_epoch": [3, 3],
        "val": {"all": group(16, 0.8), "voc": group(16, 0.8, None)},
        "test": {"all": group(11, 0.7)},
        "names": ["with_mask", "without_mask"],
        "end_to_end": {
            "mtcnn": {
                "sources": {"all": {"all": {"found": 9, **share(20, 0.45)}}},
                "both_ways": {"annotated": group(9, 0.9), "detected": group(9, 0.8)},
            },
            "centerface": {
                "sources": {"all": {"all": {"found": 12, **share(20, 0.6)}}},
                "both_ways": {},
            },
        },
        "parameters": 1234,
        "headline": "a headline",
    }
    write(workdir, config, {"caption": "Faces, some", "sha256": sha256, "about": ABOUT}, summary)
    rows = [{"epoch": i + 1} | {key: CURVES[key][i] for key in CURVES} for i in range(4)]
    _ = (workdir / "metrics.jsonl").write_text(records.lines(rows)[0])
    return workdir
