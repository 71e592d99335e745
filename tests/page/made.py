"""Made-up records and claims, as small as a page can be made of."""

import hashlib
import io
import json

import numpy as np
from PIL import Image

from research.ledger import verdicts
from research.ledger.tables.depth import REPORTED
from research.page import collect, content

ORIGIN = {
    "command": "python -m research.main --config=configs/some.py",
    "epochs": 10,
    "data": {"name": "MNIST", "caption": "MNIST, all of it"},
    "device": "a device",
    "packages": {"jax": "0.0.1"},
    "git_commit": "abcdef0123456789",
}
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


def depth():
    """Like results/depth.json, of two seeds."""
    keys = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    last = {key: {net: [0.5, 0.9] for net in REPORTED} for key in keys}
    curve = {name: [0.4, 0.5, 0.6] for name in ("mean", "low", "high")}
    return {**ORIGIN, **last, "curves": {net: dict.fromkeys(keys, curve) for net in REPORTED}}


def gradients():
    """Like results/gradients.json: 10^-layer at epoch 0, ten times more with every epoch."""

    def reading(net, epochs):
        layers = int(net.partition("-")[2]) + 1
        grid = np.arange(epochs)[:, None] - np.arange(1, layers + 1)
        bands = {"median": 0.0, "low": -0.5, "high": 0.5}
        return {name: (10.0 ** (grid + shift)).tolist() for name, shift in bands.items()}

    nets = {
        net: {"kernel_abs_max": reading(net, 11), "signal_abs_max": reading(net, 4)}
        for net in REPORTED
    }
    return {**ORIGIN, "readings": [], "nets": nets}


def masks():
    """Like results/masks.json: two seeds, the second of which stopped first."""
    rows = [[0.5, 0.6], [0.4, 0.7], [0.3, None]]
    keys = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    run = {**ORIGIN, "seeds": [0, 1], "epochs_trained": [3, 2]}
    return {"vgg": run | {"curves": dict.fromkeys(keys, rows)}}


def sheet(rows, columns, first=0, side=4):
    """A PNG whose pictures differ: the grey level says row and column."""
    levels = first + np.arange(rows * columns).reshape(rows, columns)
    pixels = np.kron(levels, np.ones((side, side)))
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def grid(dataset="mnist", method="minimal", actual=(0, 7), **changes):
    """A record of grids.json without its sheet; the last cell of a row has failed."""
    numbers = {"steps": 3, "predicted": 1, "probability": 0.5, "l0": 9, "l2": 0.7, "linf": 0.2,
               "psnr": 30.0, "ssim": 0.9}  # fmt: skip
    cells = [[numbers | {"success": target < 9} for target in range(10)] for _ in actual]
    images = [{"image": 3 + i, "actual": label} for i, label in enumerate(actual)]
    about = {"dataset": dataset, "method": method, "net": "mnist", "words": "some images"}
    return {**ORIGIN, **about, "images": images, "cells": cells} | changes


def root(folder):
    """A folder with results/ of everything that the page needs."""
    results = folder / "results"
    results.mkdir()
    kept = {}
    for dataset, actual in (("mnist", (0, 7)), ("cifar10", (7,))):
        for i, method in enumerate(content.METHODS):
            made = sheet(len(actual), 11, first=100 * i)  # the two sheets differ
            (results / f"grid_{dataset}-{method}.png").write_bytes(made)
            found = grid(dataset, method, actual, sheet_sha256=hashlib.sha256(made).hexdigest())
            found["cells"][0][0]["l2"] = 1.5 + i
            kept[f"{dataset}-{method}"] = found
    pictures = {}
    for name in (collect.SCORED, collect.DRAWN, *content.PORTRAITS):
        stream = io.BytesIO()
        Image.new("RGB", (30, 20), "green").save(stream, name.rpartition(".")[2])
        (results / name).write_bytes(stream.getvalue())
        sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
        pictures[name] = {"sha256": sha256, "headline": f"headline of {name}"}
    records = {"depth": depth(), "gradients": gradients(), "masks": masks(), "grids": kept}
    for name, record in (records | {"masks_pictures": pictures}).items():
        (results / f"{name}.json").write_text(json.dumps(record))
    return folder
