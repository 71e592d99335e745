"""A small book of claims, and facts of runs that judge it."""

from research.ledger import claims

BOOK = """
[run.depth]
command = "--config=configs/mlp.py:all --config.seeds=20"
seconds = 100
data = { "config.data.dir" = "mnist" }

[run.batch-32]
command = "--config=configs/mlp.py:all --config.batch_size=32"
seconds = 50
data = { "config.data.dir" = "mnist" }

[run.noise-cifar10-faithful]
command = "--config=configs/noise.py:cifar10 --config.baselines=()"
requires = { epochs = 4 }
after = "depth"
seconds = 10
data = { "config.data.dir" = "mnist" }

[run.masks-voc]
command = "--config=configs/masks.py:vgg"
seconds = 1
by_hand = "ask for the photographs"

[hypothesis.batch-32]
text = "batches of 32"
of = "batch-32:test_accuracy.{net}"
run = "batch-32"

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
run = "depth"
net = "relu-5"
parts = [{ rule = "value", of = "depth:test_accuracy.relu-5", is = 96.2, digit = 0.1, unit = "%" }]
hypotheses = ["batch-32"]
failed = { of = "depth:test_accuracy.relu-5", below = 20 }
note = "A note."

[[claim]]
id = "C01"
kind = "Q"
text = "gradients of relu-5 are the largest"
run = "depth"
[[claim.parts]]
rule = "above"
of = "depth:gradients.relu-5.{reading}.largest"
than = "depth:gradients.tanh-5.{reading}.largest"

[[claim]]
id = "E22"
kind = "N"
text = "a cell"
run = "noise-cifar10-faithful"
stand_in = "Other images."
[[claim.parts]]
rule = "value"
of = "noise-cifar10-faithful:probability"
is = 99
digit = 1
unit = "%"

[[claim]]
id = "F02"
kind = "N"
text = "faces"
run = "masks-voc"
parts = [{ rule = "value", of = "masks-voc:count", is = 3232, digit = 1 }]

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
    """Facts of all runs but masks-voc: relu-5 at 94, 95, 97 %, its gradients above tanh-5's."""
    above, below = {"largest": [3.0, 4.0]}, {"largest": [1.0, 2.0]}
    readings = {name: above for name in READINGS}
    others = {name: below for name in READINGS} | {"kernel_abs_last": {"largest": [5.0, 6.0]}}
    shortfall = "" if data["full"] else f"it is on {data['caption']}"
    common = {"data": data, "shortfall": shortfall}
    gradients = {"relu-5": readings, "tanh-5": others}
    accuracy = {"relu-5": [0.94, 0.95, 0.97]}
    return {
        "depth": {**common, "test_accuracy": accuracy, "gradients": gradients},
        "batch-32": {**common, "test_accuracy": {"relu-5": [0.961, 0.963]}},
        "noise-cifar10-faithful": {**common, "probability": [0.99], "epochs": epochs},
    }
