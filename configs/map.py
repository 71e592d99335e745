"""The map of trainability: depth x sigma_w, or depth x learning rate, a trained net in every cell.

    python -m research.main --config=configs/map.py:tanh
    python -m research.main --config=configs/map.py:tanh --config.axis=learning_rate
    python -m research.main --config=configs/map.py:relu --config.resolution=64 --config.seeds=5
    python -m research.main --config=configs/map.py:tanh --dry_run      # cost and expectation
    python -m research.main --config=configs/map.py:tanh,smoke          # seconds; learns little

Variants: tanh, relu, lecun, sigmoid.
A cell is a net of the depth study: that of depth 12 at sigma_w 1.5 is
`--config=configs/mlp.py:all --config.nets="('tanh-12',)" --config.init=lecun_normal
--config.gain=1.5 --config.learning_rate=0.05`, after its first 300 steps.
Results: docs/depth.md has the table; in short:

<!-- generated: note-map -->
    python -m research.main --config=configs/map.py:tanh --config.data.dir=DIR
    minutes on two CPU cores: 4.2, 4.6, 4.5, 4.5
    tanh: 36% of the cells train, 91% agree with depth < 6 depth scales, AUC 0.966
    relu: 18% of the cells train, 90% agree with depth < 6 depth scales, AUC 0.958
    lecun: 32% of the cells train, 88% agree with depth < 6 depth scales, AUC 0.951
    sigmoid: 6% of the cells train, 80% agree with depth < 6 depth scales, AUC 0.924
<!-- end -->
"""

from ml_collections import ConfigDict

from configs.common import add_data, add_devices, begin

# From well inside the ordered phase, where the signal dies out, to well inside the chaotic one.
RANGES = {"tanh": (0.5, 4.0), "relu": (0.7, 2.8), "lecun": (0.4, 3.2), "sigmoid": (1.0, 16.0)}
# Where the axis is another: a depth scale of a few layers on the chaotic side.
SIGMA_W = {"tanh": 1.5, "relu": 1.6, "lecun": 1.3, "sigmoid": 4.0}
VARIANTS = tuple(RANGES)


def get_config(arg: str = "tanh") -> ConfigDict:
    """The config of one variant; raises ValueError listing the valid ones."""
    config, variant, smoke = begin("map", arg, VARIANTS)
    config.activation = variant

    config.axis = "sigma_w"  # or learning_rate: what is varied beside the depth
    config.resolution = 24  # depths, evenly from deepest / 24 on, and values of the axis
    config.deepest = 48  # hidden layers
    config.ranges = ConfigDict()  # first and last value of the axis, evenly in the logarithm
    config.ranges.sigma_w = RANGES[variant]
    config.ranges.learning_rate = (0.001, 1.0)
    config.sigma_w = SIGMA_W[variant]  # kernels start with sd sigma_w / sqrt(inputs); if not varied
    config.learning_rate = 0.05  # if it is not what is varied

    config.seed = 0  # the first seed
    config.seeds = 3  # nets in each cell, with seeds seed, seed + 1, ...
    config.width = 32  # units in every hidden layer
    config.steps = 300
    config.batch_size = 64
    config.eval_batch_size = 1000  # test images at once; does not change the result
    config.programs = 4  # compiled ones, a range of depths each; does not change the result

    add_data(config)
    add_devices(config, cpu_devices=0, cpu_threads=1)  # too small for a second thread each

    if smoke:
        config.resolution = 3
        config.deepest = 6
        config.seeds = 2
        config.steps = 20
        config.programs = 1
        config.data.source = "synthetic"
    return config
