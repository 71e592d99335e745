"""A small book of claims, and records that judge it."""

from research.ledger import claims

BOOK = """
[run.study]
command = "--config=configs/mlp.py:all --config.seeds=20"
record = "depth"
seconds = 100
data = { "config.data.dir" = "mnist" }

[run.other]
command = "--config=configs/mlp.py:all --config.batch_size=32"
record = "hypotheses.batch-32"
seconds = 50
data = { "config.data.dir" = "mnist" }

[run.cells]
command = "--config=configs/noise.py:cifar10 --config.baselines=()"
record = "cells.cifar10 faithful"
requires = { epochs = 4 }
after = "study"
seconds = 10
data = { "config.data.dir" = "mnist" }

[run.far]
command = "--config=configs/masks.py:vgg"
record = "faces.voc"
seconds = 1
by_hand = "ask for the photographs"

[hypothesis.batch-32]
text = "batches of 32"
of = "hypotheses.batch-32:test_accuracy.{net}"
run = "other"

[[claim]]
id = "A01"
kind = "M"
text = "mathematics"
tests = ["tests/ledger/test_claims.py::test_x"]
verdict = "REPRODUCED"
reason = "Equal."

[[claim]]
id = "B08"
kind = "N"
text = "accuracy of relu-5"
claimed = "96.2 %"
run = "study"
net = "relu-5"
parts = [{ rule = "value", of = "depth:test_accuracy.relu-5", is = 96.2, digit = 0.1, unit = "%" }]
hypotheses = ["batch-32"]
failed = { of = "depth:test_accuracy.relu-5", below = 20 }
note = "A note."

[[claim]]
id = "C01"
kind = "Q"
text = "gradients of relu-5 are the largest"
run = "study"
[[claim.parts]]
rule = "above"
of = "gradients:nets.relu-5.{reading}.largest"
than = "gradients:nets.tanh-5.{reading}.largest"

[[claim]]
id = "E22"
kind = "N"
text = "a cell"
run = "cells"
stand_in = "Other images."
[[claim.parts]]
rule = "value"
of = "cells.cifar10 faithful:probability"
is = 99
digit = 1
unit = "%"

[[claim]]
id = "F02"
kind = "N"
text = "faces"
run = "far"
parts = [{ rule = "value", of = "faces.voc:count", is = 3232, digit = 1 }]

[[claim]]
id = "F28"
kind = "Q"
text = "more than satisfying"
untestable = "The images are not given."
"""

DATA = {"full": True, "name": "MNIST", "caption": "MNIST, 60,000 train / 10,000 test"}
SAMPLE = {"full": False, "name": "MNIST sample", "caption": "MNIST sample, 4,000 / 1,000"}
READINGS = ("kernel_abs_max", "layer_abs_max", "kernel_signed_max", "kernel_abs_last")


def book(tmp_path, text=BOOK):
    path = tmp_path / "claims.toml"
    _ = path.write_text(text)
    return claims.read(path)


def records(data=DATA, epochs=4):
    """Records of every run but `far`: relu-5 at 94, 95 and 97 %, its gradients above tanh-5's."""
    above, below = {"largest": [3.0, 4.0]}, {"largest": [1.0, 2.0]}
    readings = {name: above for name in READINGS}
    others = {name: below for name in READINGS} | {"kernel_abs_last": {"largest": [5.0, 6.0]}}
    return {
        "depth": {"data": data, "test_accuracy": {"relu-5": [0.94, 0.95, 0.97]}},
        "gradients": {"data": data, "nets": {"relu-5": readings, "tanh-5": others}},
        "hypotheses.batch-32": {"data": data, "test_accuracy": {"relu-5": [0.961, 0.963]}},
        "cells.cifar10 faithful": {"data": data, "probability": [0.99], "epochs": epochs},
    }
