"""Prediction beside measurement, of one net before its first step, in numbers and in a sentence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

TOLERANCE = 1.25  # a factor between measured and predicted median that counts as explained


class Comparison(NamedTuple):
    """Medians over seeds, before the first step.

    predicted_rate, measured_rate: the factor by which the rms of the signal changes from one hidden
    layer to the one before; 1 of a single hidden layer.
    ratio: [L + 1] measured over predicted rms of dL/dW.
    explained: whether the ratio of each layer is within TOLERANCE of 1, and three times the
    standard error of a median of so many seeds.
    """

    predicted_rate: float
    measured_rate: float
    ratio: np.ndarray
    explained: bool


def compare(theory: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> Comparison:
    """theory: as `mean_field.predict` gives it.  gradients: {statistic: [E + 1, S, L + 1]}.

    Epoch 0 of the gradients is the net before its first step.  Of a net whose median is unknown the
    mean takes its place.
    """

    def central(name: str) -> np.ndarray:
        median = theory[f"{name}_rms_median"]
        return np.where(np.isnan(median), theory[f"{name}_rms_mean"], median)

    measured = {
        name: np.median(np.asarray(gradients[f"{name}_rms_batch"][0], np.float64), axis=0)
        for name in ("kernel", "signal")
    }
    predicted_rate, measured_rate = (
        float((signal[0] / signal[-2]) ** (1 / max(len(signal) - 2, 1)))
        for signal in (central("signal"), measured["signal"])
    )
    ratio = measured["kernel"] / central("kernel")
    seeds = gradients["kernel_rms_batch"].shape[1]
    error = 1.25 * np.nan_to_num(theory["kernel_rms_sd"]) / np.sqrt(seeds)
    explained = np.abs(np.log(ratio)) <= np.log(TOLERANCE) + 3 * error
    return Comparison(predicted_rate, measured_rate, ratio, bool(np.all(explained)))


def sentence(theory: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> str:
    """What initialisation alone says of the gradients of a net, and where it fails."""
    predicted, measured, ratio, explained = compare(theory, gradients)
    if len(ratio) == 2:
        fate = "the net has one hidden layer"
    elif abs(measured - 1) < 0.01:
        fate = "the signal keeps its size"
    else:
        word = "halves" if measured < 1 else "doubles"
        layers = np.log(2) / abs(np.log(measured))
        fate = f"on its way back the signal {word} every {layers:.2g} layers"
    rates = f"by a factor {measured:.3g} a layer, predicted {predicted:.3g}"
    worst = int(np.argmax(np.abs(np.log(ratio))))
    layer = "the output layer" if worst == len(ratio) - 1 else f"layer {worst + 1}"
    size = f"the median weight gradient is {ratio[worst]:.2f} times the predicted one in {layer}"
    if explained:
        return f"{fate}, {rates}: init explains it ({size}, the layer farthest off)"
    return f"{fate}, {rates}, but {size}: there the theory of wide nets fails"
