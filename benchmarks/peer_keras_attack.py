"""The report's own loop in Keras on TensorFlow (Exercise 2, Fig. 6 and 7), one cell at a time.

A dense layer fed by the constant 1 holds the noise; noise and image are added, clipped and
classified by the frozen net; `fit` takes one step an epoch, and after every epoch a callback rounds
the noise and classifies the image that it makes. The report looks at that every 100 epochs and
computes it after every one; so does this.

A turn is the next cell for a few epochs, whether or not it would have been stopped: what an epoch
costs. Its file holds `begin`, the seconds until the first epoch was done, model and compilation
included, and `epochs`, the seconds of every other one.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_keras_cnn import make_net


def load_net(net: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> keras.Model:
    """Logits of the net with these weights."""
    made = make_net(net)
    names = [f"conv_{i}" for i in range(len(net["filters"]))]
    names += [*(f"dense_{i}" for i in range(len(net["dense"]))), "output"]
    made.set_weights([weights[f"{name}/{leaf}"] for name in names for leaf in ("kernel", "bias")])
    return made


def positive_mse(wanted: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    return keras.ops.mean(keras.ops.square(probabilities - wanted), axis=-1)


def negative_mse(wanted: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    return -positive_mse(wanted, probabilities)


def make_attack(classifier: keras.Model, shape: tuple[int, ...], *, own: bool) -> keras.Model:
    """The net whose only free weights are the noise (report, Fig. 6)."""
    image, one = keras.Input(shape, name="image"), keras.Input((1,), name="unity")
    noise = keras.layers.Dense(
        int(np.prod(shape)), use_bias=False, kernel_initializer="random_normal"
    )(one)
    noisy = keras.layers.Add()([keras.layers.Reshape(shape)(noise), image])
    clipped = keras.layers.Activation(lambda x: keras.ops.clip(x, 0.0, 1.0))(noisy)
    model = keras.Model([image, one], classifier(clipped))
    model.layers[-1].trainable = False
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=negative_mse if own else positive_mse,
        metrics=["accuracy"],
    )
    return model


class Check(keras.callbacks.Callback):
    """Classifies the rounded image after every epoch (report, Fig. 7); keeps the time of each."""

    def __init__(self, classifier: keras.Model, image: np.ndarray) -> None:
        super().__init__()
        self._classifier, self._image = classifier, image
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        del epoch, logs
        noise = np.round(self.model.get_weights()[0].reshape(self._image.shape) * 255.0) / 255.0
        _ = self._classifier.predict(np.clip(self._image + noise, 0.0, 1.0), verbose=0).argmax()
        self.ends.append(time.perf_counter())


def attack(
    classifier: keras.Model, image: np.ndarray, label: int, target: int, epochs: int
) -> dict[str, Any]:
    """So many epochs of one cell; image [1, H, W, C] float32."""
    began = time.perf_counter()
    model = make_attack(classifier, image.shape[1:], own=label == target)
    check = Check(classifier, image)
    wanted = np.eye(10, dtype=np.float32)[[target]]
    inputs = {"image": image, "unity": np.ones((1, 1), np.float32)}
    _ = model.fit(inputs, wanted, epochs=epochs, verbose=0, callbacks=[check])
    return {"begin": check.ends[0] - began, "epochs": np.diff(check.ends)}


def main(argv: Sequence[str]) -> None:
    options = contest.parse_attack(argv)
    keras.utils.set_random_seed(0)
    sample, weights = contest.read_attacked(options.directory)
    net = load_net(options.net, weights)
    logits = net.predict(contest.as_floats(sample.probes), verbose=0)
    contest.announce(
        versions={"keras": keras.__version__, "tensorflow": tf.__version__},
        parameters=net.count_params(),
        difference=contest.difference(logits, sample),
    )
    classifier = keras.Sequential([net, keras.layers.Softmax()])
    images, targets = contest.targeted_cells(sample.labels)
    cells = iter(zip(images.tolist(), targets.tolist(), strict=True))

    def take(setting: Mapping[str, Any]) -> dict[str, Any]:
        row, target = next(cells)
        image = contest.as_floats(sample.images[row : row + 1])
        return attack(classifier, image, int(sample.labels[row]), target, setting["epochs"])

    contest.take_attacks(options, take)


if __name__ == "__main__":
    main(sys.argv[1:])
