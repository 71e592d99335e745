"""The depth study in Keras on TensorFlow, as its users write it: compile, fit, evaluate."""

import sys
import time
from collections.abc import Sequence

import keras  # pyright: ignore[reportMissingImports] -- in the peers' environment only
import tensorflow  # pyright: ignore[reportMissingImports] -- in the peers' environment only

from benchmarks import contest


class Pace(keras.callbacks.Callback):
    """Waits for its turn before every epoch and reports how long the epoch took."""

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        contest.wait()
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        contest.report(time.perf_counter() - self.began)


def main(argv: Sequence[str]) -> None:
    options = contest.parse(argv, "jit")
    activation, depth = contest.parse_net(options.net)
    train_images, train_labels, test_images, test_labels = contest.read_digits(options.data_dir)
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, activation=activation) for _ in range(depth)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True if options.jit else "auto",
    )
    versions = {"keras": keras.__version__, "tensorflow": tensorflow.__version__}
    callbacks = []
    if options.paced:
        contest.announce(versions=versions)
        callbacks.append(Pace())
    model.fit(
        train_images,
        train_labels,
        batch_size=64,
        epochs=options.epochs,
        shuffle=True,
        verbose=0,
        callbacks=callbacks,
    )
    if not options.paced:
        _, accuracy = model.evaluate(test_images, test_labels, batch_size=1000, verbose=0)
        contest.announce(test_accuracy=accuracy)


if __name__ == "__main__":
    main(sys.argv[1:])
