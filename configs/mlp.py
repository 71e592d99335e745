"""Depth study: MLPs of 5, 20, 40 hidden layers with four activations on MNIST (report, Exercise 1).

    python -m research.main --config=configs/mlp.py:tanh-40
    python -m research.main --config=configs/mlp.py:all --config.seeds=5
    python -m research.main --config=configs/mlp.py:tanh-40,smoke      # seconds; learns little

Variants: {relu,tanh,sigmoid,lecun}-{5,20,40}, and `all` for the twelve nets in one run.
Settings: report, Part B; defaults it leaves to Keras are Glorot-uniform kernels and zero biases.
Results: docs/depth.md has every net; in short:

<!-- generated: note-depth -->
    python -m research.main --config=configs/mlp.py:all --config.seeds=20 --config.data.dir=DIR
    seeds: 20; minutes on two CPU cores: 25
    test accuracy (%), 5 hidden layers: ReLU, tanh, sigmoid, LeCun: 94.75, 95.18, 11.35, 95.28;
      the report 96.2, 96.1, 11.3, 96.1; 3 CONTRADICTED, 1 REPRODUCED
    test accuracy (%), 40 hidden layers: ReLU, tanh, sigmoid, LeCun: 13.27, 92.86, 11.35, 95.01;
      the report 19.6, 95.4, 11.3, 96.3; 4 REPRODUCED
<!-- end -->
"""

from ml_collections import ConfigDict

from configs.common import add_data, add_devices, add_training, begin

NETS = tuple(
    f"{name}-{depth}" for name in ("relu", "tanh", "sigmoid", "lecun") for depth in (5, 20, 40)
)


def get_config(arg: str = "relu-5") -> ConfigDict:
    """The config of one variant; raises ValueError listing the valid ones."""
    config, variant, smoke = begin("depth", arg, (*NETS, "all"))
    config.nets = NETS if variant == "all" else (variant,)  # "activation-depth", one run each

    config.width = 32  # units in every hidden layer
    config.init = "glorot_uniform"  # or he, orthogonal, lecun_normal, lsuv
    config.gain = 1.0  # factor on the initial kernels
    config.residual = False  # hidden layers add to their input, by 1 / sqrt(depth)
    config.shift = False  # sigmoids start as the tanh net would: times 4, biases take off 1/2

    config.epochs = 10
    config.batch_size = 64
    config.eval_batch_size = 1000  # images at once when judging; does not change the result
    config.optimizer = "sgd"  # or adam (Keras'), adamw
    config.learning_rate = 0.01
    config.probe = True  # record the gradients of every layer, and predict them

    add_training(config)
    add_data(config)
    add_devices(config, cpu_devices=0, cpu_threads=1)  # too small for a second thread each

    if smoke:
        config.epochs = 2
        config.data.source = "synthetic"
    return config
