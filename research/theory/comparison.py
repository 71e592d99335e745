"""Prediction beside measurement, of one net before its first step, in numbers and in a sentence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

TOLERANCE = 1.25  # a factor between measured and predicted median that counts as explained
ERRORS = 2.0  # standard errors of the measured median that chance may take it off


class Comparison(NamedTuple):
    """Medians over seeds, before the first step.

    predicted_rate, measured_rate: the factor by which the rms of the signal changes from one hidden
    layer to the one before; 1 of a single hidden layer.
    ratio: [L + 1] measured over predicted rms of dL/dW.
    off: [L + 1] bool, further from 1 than TOLERANCE.
    failed: [L + 1] bool, and further than so few seeds can be off by chance: theory is wrong there.
    """

    predicted_rate: float
    measured_rate: float
    ratio: np.ndarray
    off: np.ndarray
    failed: np.ndarray


def compare(theory: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> Comparison:
    """theory: as `mean_field.predict` gives it.  gradients: {statistic: [E + 1, S, L + 1]}.

    Epoch 0 of the gradients is the net before its first step.  Of a net whose median is unknown the
    mean takes its place, and the scatter of the seeds that of the prediction.
    """

    def central(name: str) -> np.ndarray:
        median = theory[f"{name}_rms_median"]
        return np.where(np.isnan(median), theory[f"{name}_rms_mean"], median)

    sizes = {
        name: np.asarray(gradients[f"{name}_rms_batch"][0], np.float64)
        for name in ("kernel", "signal")
    }
    measured = {name: np.median(values, axis=0) for name, values in sizes.items()}
    predicted_rate, measured_rate = (
        float((signal[0] / signal[-2]) ** (1 / max(len(signal) - 2, 1)))
        for signal in (central("signal"), measured["signal"])
    )
    ratio = measured["kernel"] / central("kernel")
    seeds = len(sizes["kernel"])
    scatter = np.log(sizes["kernel"]).std(axis=0, ddof=1) if seeds > 1 else np.inf
    spread = np.where(np.isnan(theory["kernel_rms_sd"]), scatter, theory["kernel_rms_sd"])
    # A median of many normal values scatters 1.25 times as much as their mean.
    error = (1.25 if seeds > 1 else 1.0) * spread / np.sqrt(seeds)
    distance = np.abs(np.log(ratio))
    off = ~(distance <= np.log(TOLERANCE))
    return Comparison(
        predicted_rate, measured_rate, ratio, off, off & ~(distance <= ERRORS * error)
    )


def sentence(theory: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> str:
    """What initialisation alone says of the gradients of a net, and where it fails."""
    predicted, measured, ratio, off, failed = compare(theory, gradients)
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
    if failed.any():
        return (
            f"{fate}, {rates}, but {size}: the theory of wide nets fails in {failed.sum()} of "
            f"{len(ratio)} layers ({ranges(failed)})"
        )
    if off.any():
        seeds = gradients["kernel_rms_batch"].shape[1]
        seeds = "a single seed scatters" if seeds == 1 else f"{seeds} seeds scatter"
        return f"{fate}, {rates}; {size}, and {seeds} that far: more seeds would tell"
    return f"{fate}, {rates}: init explains it ({size}, the layer farthest off)"


def ranges(layers: np.ndarray) -> str:
    """ "1-4, 9" of the layers [L + 1] bool that are set, counted from 1."""
    numbers = np.flatnonzero(layers) + 1
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
