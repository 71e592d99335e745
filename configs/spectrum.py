"""Jacobian and sharpness of the nets of the depth study: what a net is before and while it trains.

    python -m research.main --config=configs/spectrum.py:tanh-40
    python -m research.main --config=configs/spectrum.py:tanh-40 --config.init=orthogonal
    python -m research.main --config=configs/spectrum.py:relu-5,smoke       # seconds

Variants: {relu,tanh,sigmoid,lecun}-{5,20,40}, and `all` for the twelve nets in one run.
Before the first step: the singular values of the Jacobian of the hidden layers, with their
prediction.  Then the net is trained by gradient descent on all images at once, and by SGD beside
it, and the largest eigenvalue of the Hessian is held against 2 / learning rate.
Results: docs/depth.md.
"""

from ml_collections import ConfigDict

from configs.common import add_data, add_devices, add_training, begin
from configs.mlp import NETS


def get_config(arg: str = "relu-5") -> ConfigDict:
    """The config of one variant; raises ValueError listing the valid ones."""
    config, variant, smoke = begin("spectrum", arg, (*NETS, "all"))
    config.nets = NETS if variant == "all" else (variant,)  # "activation-depth", one run each

    config.width = 32  # units in every hidden layer
    config.init = "glorot_uniform"  # or he, orthogonal, lecun_normal, lsuv
    config.gain = 1.0  # factor on the initial kernels
    config.residual = False  # hidden layers add to their input, by 1 / sqrt(depth)
    config.shift = False  # sigmoids start as the tanh net would: times 4, biases take off 1/2

    config.inputs = 64  # images at which the Jacobian is taken
    config.draws = 20  # nets of which it is taken, with seeds seed, seed + 1, ...

    config.images = 2000  # the first of the training set, that are trained on; 0 is all
    config.batch_sizes = (0, 64)  # a training each; 0 is all images at once
    config.steps = 1200  # of each training, at least
    config.every = 10  # steps between two measurements; whole passes through the images
    config.sharpness_images = 2000  # the first, that the Hessian is of; 0 is all
    config.lanczos = 20  # Hessian-vector products for an eigenvalue
    config.eval_batch_size = 1000  # images at once when judging; does not change the result
    # High enough for 2 / learning rate to be met; the depth study has 0.01.
    config.learning_rate = 0.1 if variant.startswith("tanh") else 0.05

    add_training(config)
    add_data(config)
    add_devices(config, cpu_devices=0, cpu_threads=1)  # too small for a second thread each

    if smoke:
        config.inputs, config.draws = 4, 2
        config.images, config.steps, config.sharpness_images = 256, 40, 64
        config.data.source = "synthetic"
    return config
