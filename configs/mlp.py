"""Depth study: MLPs of 5, 20, 40 hidden layers with four activations on MNIST (report, Exercise 1).

    python -m research.main --config=configs/mlp.py:tanh-40
    python -m research.main --config=configs/mlp.py:all --config.seeds=5
    python -m research.main --config=configs/mlp.py:tanh-40,smoke      # seconds; learns nothing

Variants: {relu,tanh,sigmoid,lecun}-{5,20,40}, and `all` for the twelve nets in one run.
Expected: the table "Depth study" of README.md, whose row is the variant.
Settings: report, Part B; defaults it leaves to Keras are Glorot-uniform kernels and zero biases.
"""

from ml_collections import ConfigDict

from configs.common import parse_variant

NETS = tuple(
    f"{name}-{depth}" for name in ("relu", "tanh", "sigmoid", "lecun") for depth in (5, 20, 40)
)


def get_config(arg: str = "relu-5") -> ConfigDict:
    """The config of one variant; raises ValueError listing the valid ones."""
    variant, switches = parse_variant(arg, (*NETS, "all"), ("smoke",))
    config = ConfigDict()
    config.experiment = "depth"
    config.name = arg.replace(",", "-")
    config.nets = NETS if variant == "all" else (variant,)  # "activation-depth", one run each

    config.width = 32  # units in every hidden layer
    config.init = "glorot_uniform"  # or he, orthogonal, lecun_normal

    config.epochs = 10
    config.batch_size = 64
    config.eval_batch_size = 1000  # images at once when judging; does not change the result
    config.learning_rate = 0.01
    config.seed = 0  # the first seed
    config.seeds = 1  # how many nets, with seeds seed, seed + 1, ...
    config.probe = True  # record the gradients of every layer

    config.data = ConfigDict()
    config.data.source = "auto"  # or idx, tfds, sample, synthetic
    config.data.dir = ""  # directory with the four IDX files
    config.data.tfds_dir = ""  # "" is $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.download = True  # try the network if the full set is not on this machine

    config.matmul_precision = "highest"  # of accelerators; or high, default
    config.data_devices = 0  # that share each batch; 0: those that the seeds leave over; 1: none
    config.cpu_devices = 0  # virtual devices that share the seeds; 0 is one per core
    config.cpu_threads = 1  # threads of XLA; these nets are too small for a second one

    if "smoke" in switches:
        config.epochs = 2
        config.data.source = "synthetic"
    return config
