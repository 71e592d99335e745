"""The CNNs in Keras on TensorFlow, as its users write them: compile and fit, and a GradientTape."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest
from benchmarks.peer_keras import Pace


def make_net(net: Mapping[str, Any]) -> keras.Model:
    layers: list[keras.layers.Layer] = [keras.Input(contest.SHAPES[net["dataset"]])]
    stages = zip(net["filters"], net["pools"], net["dropouts"], strict=True)
    for filters, pool, rate in stages:
        layers.append(keras.layers.Conv2D(filters, 3, padding=net["padding"], activation="relu"))
        layers += [keras.layers.MaxPooling2D(pool)] if pool > 1 else []
        layers += [keras.layers.Dropout(rate)] if rate else []
    layers.append(keras.layers.Flatten())
    for units, rate in zip(net["dense"], net["dense_dropouts"], strict=True):
        layers.append(keras.layers.Dense(units, activation="relu"))
        layers += [keras.layers.Dropout(rate)] if rate else []
    return keras.Sequential([*layers, keras.layers.Dense(contest.CLASSES[net["dataset"]])])


def make_gradients(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, count: int
) -> Callable[[], object]:
    """A turn that moves the images along the sign of their gradient, `count` times."""
    targets = tf.constant(labels)

    @tf.function
    def move(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = model(images, training=False)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_sum(each)
        gradient: Any = tape.gradient(loss, images)
        return images - contest.STEP * tf.sign(gradient)

    moved = tf.constant(images)

    def turn() -> np.ndarray:
        nonlocal moved
        for _ in range(count):
            moved = move(moved)
        return moved.numpy()

    return turn


def main(argv: Sequence[str]) -> None:
    options = contest.parse_cnn(argv)
    net = options.net
    images, labels = contest.read_pictures(net["dataset"], options.data_dir)
    keras.utils.set_random_seed(0)
    model = make_net(net)
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    contest.announce(versions=versions, parameters=model.count_params())
    if options.work == "gradient":
        few = slice(contest.ATTACKED)
        contest.take_turns(make_gradients(model, images[few], labels[few], options.count))
        return
    model.compile(
        optimizer=keras.optimizers.Adam(net["learning_rate"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # An epoch of Keras is a turn; its iterator goes on through the data from turn to turn.
    turns = len(images) // net["batch_size"] // options.count
    while True:
        model.fit(
            images,
            labels,
            batch_size=net["batch_size"],
            epochs=turns,
            steps_per_epoch=options.count,
            shuffle=True,
            verbose=0,
            callbacks=[Pace()],
        )


if __name__ == "__main__":
    main(sys.argv[1:])
