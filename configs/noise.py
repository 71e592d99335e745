"""Adversarial noise: every image of a sample toward every class (report, Exercise 2, second half).

    python -m research.main --config=configs/noise.py:mnist
    python -m research.main --config=configs/noise.py:mnist --config.norm=linf
    python -m research.main --config=configs/noise.py:mnist --config.method=faithful
    python -m research.main --config=configs/noise.py:cifar10 --config.data.dir=path/to/cifar10
    python -m research.main --config=configs/noise.py:mnist --config.images=1000
    python -m research.main --config=configs/noise.py:mnist --config.input=photo.png
    python -m research.main --config=configs/noise.py:mnist,smoke      # seconds; learns little

Variants: mnist, cifar10 (the report's CNNs), mlp (the twelve MLPs of the depth study).
A net that is not trained yet is trained first, in the directory where its own command would.
Results: docs/noise.md has every net and method; in short:

<!-- generated: note-noise -->
    python -m research.main --config=configs/noise.py:mnist --config.method=faithful
      "--config.baselines=()" --config.data.dir=DIR
    seeds: 1; minutes on two CPU cores: 5
    digits taken to each other class (%), the report's attack: 99.33; the report all; TREND-ONLY
<!-- end -->
"""

from ml_collections import ConfigDict

from configs import mlp
from configs.common import add_data, add_devices, begin

VARIANTS = ("mnist", "cifar10", "mlp")


def get_config(arg: str = "mnist") -> ConfigDict:
    """The config of one variant; raises ValueError listing the valid ones."""
    config, variant, smoke = begin("noise", arg, VARIANTS)
    config.dataset = "cifar10" if variant == "cifar10" else "mnist"

    # The classifiers, as config file and variant, attacked on the same images.
    config.nets = {
        "mnist": ("cnn:mnist",),
        "cifar10": ("cnn:cifar10",),
        "mlp": tuple(f"mlp:{net}" for net in mlp.NETS),
    }[variant]
    # Attacked as well, for comparison, where they are trained already.
    config.baselines = {
        "mnist": ("cnn:mnist-best", "cnn:mnist-robust"),
        "cifar10": ("cnn:cifar10-best",),
        "mlp": (),
    }[variant]
    config.run = ""  # directory of the trained net, or of several by name; "" is runs/<file>/<name>

    # lagrangian, the smallest noise for its gradients; minimal, that of some published runs; or
    # faithful, the report to the letter.
    config.method = "lagrangian"
    config.norm = "l2"  # that is made small; with lagrangian also linf, or l1 for few values
    config.seed = 0  # of every random start

    # The sample: of each of these classes the first so many test images, in the report the ones
    # that the (first) classifier has right; and the test images of these numbers.
    config.classes = (0, 2, 4, 6, 8) if config.dataset == "mnist" else tuple(range(10))
    config.per_class = 10 if config.dataset == "mnist" else 2
    config.only_correct = variant != "mlp"
    config.extra_indices = () if config.dataset == "mnist" else (87,)  # the report's horse
    config.images = 0  # if not 0: the first so many test images instead, right or wrong
    config.input = ""  # if not "": a picture of your own instead, PNG or JPEG
    config.batch = 50  # images in one call; every one of them is ten cells

    config.lagrangian = ConfigDict()
    config.lagrangian.steps = 160  # gradients of a cell after its first success; 30 are quick
    config.lagrangian.search = 200  # most of them before it
    config.lagrangian.required = 0.01  # logits by which the target must lead
    config.lagrangian.polish = 8  # of l2, rounds of taking levels away on the lattice; 0 is none

    config.minimal = ConfigDict()  # as those of lagrangian
    config.minimal.steps = 160
    config.minimal.search = 200
    config.minimal.required = 0.01
    config.minimal.polish = 8

    config.faithful = ConfigDict()
    config.faithful.steps = 3000
    config.faithful.check_every = 100  # after 1, 101, 201, ... steps
    config.faithful.learning_rate = 0.01
    config.faithful.std = 0.05  # of the first noise
    config.faithful.dropout = False  # True: the classifier's dropout stays on, as in Keras' fit

    config.pgd = ConfigDict()  # robust accuracy under PGD, the curve of every net
    config.pgd.levels = (4, 13, 26, 51, 76, 102) if config.dataset == "mnist" else (1, 2, 4, 8)
    config.pgd.norm = "linf"  # levels are of 255, of any value; or l2, of the whole image
    config.pgd.images = 200  # the first of the test set; 0 is no curve
    config.pgd.steps = 40
    config.pgd.restarts = 2

    config.eval_batch_size = 64  # images at once when the files are judged again

    add_data(config)
    add_devices(config, cpu_devices=1, cpu_threads=0)  # one device has all the threads

    if smoke:
        # Two epochs on drawn pictures leave the report's CNNs without a gradient, ours not.
        best = "-best" if variant != "mlp" else ""
        config.nets = tuple(f"{net}{best},smoke" for net in config.nets[:2])
        config.baselines = ()
        config.per_class = 1
        config.classes = (0, 2)
        config.extra_indices = ()
        config.only_correct = False
        config.minimal.steps = 10
        config.minimal.search = 20
        config.lagrangian.steps = 10
        config.lagrangian.search = 20
        config.faithful.steps = 101
        config.pgd.images = 10
        config.pgd.levels = config.pgd.levels[:2]
        config.pgd.steps = 5
        config.data.source = "synthetic"
    return config
