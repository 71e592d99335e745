"""Gradients of a fully connected net at initialisation, predicted from its inputs and its init.

No parameter is fitted: the kernels of a batch of real images go through the layers (Poole et al.
2016, Schoenholz et al. 2017), the errors of the softmax come back, and the weight gradient of
layer l has the mean square sum_ab Q[l-1]_ab G[l]_ab.  A net of finite width n scatters about that:
each layer's empirical kernels deviate from their mean by O(1/sqrt(n)), independently, and the
deviation is passed on to first order.  The logarithm of a gradient is then nearly normal, and the
median of its size lies below the mean (Hanin & Nica 2018 for one input of a ReLU net).

Shapes: B images, L hidden layers, T targets (each gradient and each signal of L + 1 layers).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from research.theory import gaussian
from research.theory.gaussian import Function, Pairs

IMAGES = 64  # that a batch is represented by at most
_OUTPUT_DRAWS = 2000
_UNIT_DRAWS = 4000  # over the hidden layers
_MAXIMUM_DRAWS = 60
_TARGETS = 16  # whose sensitivities are held at once


class Net(NamedTuple):
    """A net before its first step: what the theory has to know of it.

    widths: units [L + 2] of the input, the hidden layers and the output.
    variances: [L + 1] of the kernel entries of each layer; biases are zero, or what `centre` says.
    orthogonal: whether the square kernels are orthogonal and not independent entries.
    centre: what biases take off each activation: b = -centre * (column sums of the kernel), in all
    layers but the first; with a branch also its part of each that was added.
    branch: each hidden layer but the first adds branch * f(u) to its input; 0 for a plain net.
    """

    function: Function
    widths: tuple[int, ...]
    variances: tuple[float, ...]
    orthogonal: bool = False
    centre: float = 0.0
    branch: float = 0.0


def normalised(net: Net, images: np.ndarray, squares: np.ndarray) -> Net:
    """The net with the variances that give the pre-activations of each layer a mean square.

    images: [B, inputs] float.  squares: [L + 1], the mean square over images and units.
    """
    moving = np.mean(np.asarray(images, np.float64) ** 2, axis=1)
    mean, variances = np.zeros(len(moving)), list[float]()
    for i, square in enumerate(squares):
        variances.append(square / (net.widths[i] * moving.mean()))
        q = square * moving / moving.mean()
        value, ours = (
            gaussian.expectation(net.function, lambda f, p=p: (f - net.centre) ** p, q, order=0)
            for p in (2, 1)
        )
        if net.branch and i:
            moving = moving + net.branch**2 * value + 2 * net.branch * mean * ours
            mean = mean + net.branch * ours
        else:
            moving, mean = value, ours
    return net._replace(variances=tuple(variances))


class Kernels(NamedTuple):
    """Of every layer, [B, B] float64 each; lists of L or, with the output, L + 1.

    preactivation: [L + 1] of u.  inputs: [L + 1] E h_a h_b of what each layer multiplies.
    pairs: [L] of the activations, pairs of their slopes, and their means.
    output: of the errors e = softmax z - y: mean over classes of E e_a e_b, times `weights`.
    arriving: [L] E g_a g_b of g = dL/dh.  signal: [L + 1] the same of dL/du.
    errors: [draws, classes, B] of e.
    weights: what a pair of images counts in the mean over batches of the loss's mean, squared.
    """

    preactivation: list[np.ndarray]
    inputs: list[np.ndarray]
    pairs: list[tuple[Pairs, Pairs, np.ndarray]]
    output: Pairs
    arriving: list[np.ndarray]
    signal: list[np.ndarray]
    errors: np.ndarray
    weights: np.ndarray


def propagate(net: Net, images: np.ndarray, labels: np.ndarray, batch_size: int) -> Kernels:
    """Kernels of the net over `images`, forward and back, in the limit of infinite width.

    images: [B, inputs] float.  labels: [B] int.  batch_size: of the gradient; it may differ from B,
    which then stands for it: its mean over all such batches that could be drawn from the images.
    """
    x = np.asarray(images, np.float64)
    depth = len(net.widths) - 2
    scales = [net.widths[i] * variance for i, variance in enumerate(net.variances)]
    skip = 1.0 if net.branch else 0.0
    moving, mean = x @ x.T / net.widths[0], np.zeros(len(x))  # of what is propagated, less centre
    inputs, preactivation, pairs = [moving], list[np.ndarray](), []
    for i in range(depth):
        preactivation.append(scales[i] * moving)
        pairs.append(gaussian.pairs(net.function, preactivation[i], centre=net.centre))
        (value, _, _), _, ours = pairs[i]
        if skip and i:
            cross = np.outer(mean, ours)
            moving = moving + net.branch**2 * value + net.branch * (cross + cross.T)
            mean = mean + net.branch * ours
        else:
            moving, mean = value, ours
        centre = net.centre * (1 + net.branch * i)
        inputs.append(moving + centre * (mean[:, None] + mean) + centre**2)
    preactivation.append(scales[depth] * moving)
    output, aligned, errors = _softmax(preactivation[depth], labels, net.widths[-1])
    weights = _batch_weights(len(x), batch_size)
    output, aligned = Pairs(*(weights * part for part in output)), weights * aligned
    arriving: list[np.ndarray] = [np.empty(0)] * depth
    signal: list[np.ndarray] = [*arriving, output.value]
    # The kernel of the output made z before it carries e back, so that the two are not independent:
    # E w_i w_j e_a e_b has, by Stein's lemma, a second term that is smaller by 1 / width only.
    back = net.widths[-1] * net.variances[depth] * (output.value + aligned / net.widths[-2])
    for i in reversed(range(depth)):
        arriving[i] = back
        scale = net.branch**2 if skip and i else 1.0
        signal[i] = scale * pairs[i][1].value * back
        back = (skip if i else 0.0) * back + net.widths[i + 1] * net.variances[i] * signal[i]
    return Kernels(preactivation, inputs, pairs, output, arriving, signal, errors, weights)


class Sensitivities(NamedTuple):
    """d ln t / d kernel of each of T targets t, [T, B, B] each; lists as in `Kernels`.

    inputs: [L + 1] with respect to E h_a h_b of the images and the activations.
    preactivation: [L + 1].  signal: [L] with respect to E d_a d_b of d = dL/du.  arriving: [L].
    output: with respect to E e_a e_b.
    plain: [L, T, B] with respect to the mean activation, where biases hold a centre.
    """

    inputs: list[np.ndarray]
    preactivation: list[np.ndarray]
    signal: list[np.ndarray]
    arriving: list[np.ndarray]
    output: np.ndarray
    plain: list[np.ndarray]


def sensitivities(net: Net, kernels: Kernels, targets: Sequence[int]) -> Sensitivities:
    """How each target depends on each kernel, by the chain rule, of a net without a branch.

    targets: numbers [T], those below L + 1 of the mean square of dL/dW of a layer, L + 1 and more
    of dL/du of the layers.
    """
    depth, size = len(kernels.pairs), len(kernels.weights)
    layers = depth + 1
    rows = {target: row for row, target in enumerate(targets)}
    gradient = [np.sum(q * g) for q, g in zip(kernels.inputs, kernels.signal, strict=True)]

    def own(layer: int) -> np.ndarray:
        """d ln t / d signal of the two targets of a layer themselves."""
        bars = np.zeros((len(rows), size, size))
        if layer in rows:
            bars[rows[layer]] = kernels.inputs[layer] / gradient[layer]
        if layers + layer in rows:
            bars[rows[layers + layer]] = np.eye(size) / np.trace(kernels.signal[layer])
        return bars

    signal, arriving = list[np.ndarray](), list[np.ndarray]()
    for i in range(depth):
        bar = own(i)
        if i:
            bar += net.widths[i + 1] * net.variances[i] * arriving[i - 1]
        signal.append(bar)
        arriving.append(kernels.pairs[i][1].value * bar)
    output = own(depth) + net.widths[-1] * net.variances[depth] * arriving[-1]

    preactivation: list[np.ndarray] = [np.empty(0)] * layers
    inputs: list[np.ndarray] = [np.empty(0)] * layers
    plain: list[np.ndarray] = [np.empty(0)] * depth
    preactivation[depth] = _pull(kernels.output, output)
    for i in reversed(range(layers)):
        if i < depth:
            ours, theirs, _ = kernels.pairs[i]
            preactivation[i] = _pull(ours, inputs[i + 1]) + _pull(
                theirs, kernels.arriving[i] * signal[i]
            )
        inputs[i] = net.widths[i] * net.variances[i] * preactivation[i]
        if i in rows:
            inputs[i][rows[i]] += kernels.signal[i] / gradient[i]
        if i:
            plain[i - 1] = np.zeros((len(rows), size))
            if i in rows:
                plain[i - 1][rows[i]] = 2 * net.centre * kernels.signal[i].sum(1) / gradient[i]
    return Sensitivities(inputs, preactivation, signal, arriving, output, plain)


def variances(net: Net, kernels: Kernels, rng: np.random.Generator) -> np.ndarray:
    """Var ln T [2 (L + 1)] over nets of finite width, to first order in 1 / width."""
    depth, size = len(kernels.pairs), len(kernels.weights)
    layers = depth + 1
    draws = max(64, _UNIT_DRAWS // depth)
    samples: list[tuple[np.ndarray, ...]] = []
    for i in range(depth):
        u = _sample(kernels.preactivation[i], draws, rng)
        g = _sample(kernels.arriving[i], draws, rng)
        value, slope = gaussian.derivatives(net.function, u, 1)
        samples.append((u, g, value - net.centre, slope * g))
    total = np.zeros(2 * layers)
    # A block of targets at a time: [T, B, B] of every layer and all targets at once would be half a
    # gigabyte at 40 layers.
    for block in np.array_split(np.arange(2 * layers), -(-2 * layers // _TARGETS)):
        bars = sensitivities(net, kernels, block.tolist())
        for i, (u, g, h, d) in enumerate(samples):
            units = _quadratic(bars.inputs[i + 1], h) + _quadratic(bars.signal[i], d)
            units += bars.plain[i] @ h.T
            if net.orthogonal and i and net.widths[i] == net.widths[i + 1]:
                # A rotation keeps sum u_a u_b as it is: what is linear in it does not scatter.
                units -= _quadratic(bars.preactivation[i], u)
            if net.orthogonal and i + 1 < depth and net.widths[i + 1] == net.widths[i + 2]:
                units -= _quadratic(bars.arriving[i], g)
            total[block] += units.var(axis=1) / net.widths[i + 1]
        e = kernels.errors.reshape(-1, size)
        classes = _quadratic(bars.output * kernels.weights, e)
        total[block] += classes.reshape(len(block), -1, net.widths[-1]).mean(axis=2).var(axis=1)
    return total


def maxima(
    net: Net, kernels: Kernels, images: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Median [L + 1] over nets of max / rms of the entries of dL/dW, and of dL/du.

    Of sampled activations and signals, since an extreme value of independent entries is far off: a
    gradient summed over correlated images is nearly of rank one.
    """
    layers = len(net.widths) - 1
    ratios = np.empty((2, layers, _MAXIMUM_DRAWS))

    def sample(kernel: np.ndarray, units: int) -> np.ndarray:
        """[draws, units, B] with the covariance `kernel` in B."""
        drawn = _sample(kernel, _MAXIMUM_DRAWS * units, rng)
        return drawn.reshape(_MAXIMUM_DRAWS, units, len(kernel))

    inputs = np.asarray(images, np.float64).T[None]
    for i in range(layers):
        units = net.widths[i + 1]
        if i + 1 < layers:
            value, slope = gaussian.derivatives(
                net.function, sample(kernels.preactivation[i], units), 1
            )
            d = slope * sample(kernels.arriving[i], units)
        else:
            value, d = np.empty(0), kernels.errors[:_MAXIMUM_DRAWS]
        for row, entries in enumerate((inputs @ np.swapaxes(d, 1, 2), d)):
            largest = np.abs(entries).max(axis=(1, 2))
            ratios[row, i] = largest / np.sqrt(np.mean(entries**2, axis=(1, 2)))
        if i + 1 < layers:
            # The sum over many layers that a branch adds to is nearly normal.
            stream = sample(kernels.inputs[i + 1], units) if net.branch and i else value
            inputs = stream
    gradient, signal = np.median(ratios, axis=2)
    return gradient, signal


def predict(
    net: Net, images: np.ndarray, labels: np.ndarray, batch_size: int
) -> dict[str, np.ndarray]:
    """The size of the gradients of every layer before the first step, over nets of this init.

    images: [B, inputs] float as the net sees them.  labels: [B] int.  batch_size: see `propagate`.
    Of X in kernel_rms and signal_rms (rms of the entries of dL/dW, and of dL/du over the images
    and units of a batch), and kernel_abs and signal_abs (their largest magnitudes), [L + 1] each:
    X_mean, the root of the mean square over nets (rms only); X_median; X_sd, the standard deviation
    of ln X.  Medians and deviations are NaN for a net with a branch, of which only means are known.
    Further q [L + 1], the mean variance of the pre-activations; c [L + 1], their mean correlation
    between two images; chi [L], the factor that a hidden layer as wide as the last one puts on the
    mean square of the signal.
    """
    rng = np.random.default_rng(0)
    kernels = propagate(net, images, labels, batch_size)
    layers, size = len(net.widths) - 1, len(images)
    gradient = [np.sum(q * g) for q, g in zip(kernels.inputs, kernels.signal, strict=True)]
    means = np.sqrt([*gradient, *(np.trace(g) / batch_size for g in kernels.signal)])
    variance = np.full(2 * layers, np.nan) if net.branch else variances(net, kernels, rng)
    ratios = maxima(net, kernels, images, rng)
    prediction: dict[str, np.ndarray] = {}
    for name, of, ratio in (
        ("kernel", slice(0, layers), ratios[0]),
        ("signal", slice(layers, None), ratios[1]),
    ):
        median = means[of] * np.exp(-variance[of] / 4)
        prediction[f"{name}_rms_mean"] = means[of]
        prediction[f"{name}_rms_median"] = median
        prediction[f"{name}_abs_median"] = median * ratio
        prediction[f"{name}_rms_sd"] = np.sqrt(variance[of]) / 2
        prediction[f"{name}_abs_sd"] = np.sqrt(variance[of]) / 2
    q = np.array([np.diag(kernel).mean() for kernel in kernels.preactivation])
    apart = ~np.eye(size, dtype=bool)
    correlations: list[float] = []
    for kernel in kernels.preactivation:
        root = np.sqrt(np.diag(kernel))
        correlations.append((kernel / np.outer(root, root))[apart].mean() if size > 1 else 1.0)
    slopes = np.array([np.diag(theirs.value).mean() for _, theirs, _ in kernels.pairs])
    chi = net.widths[-2] * net.variances[min(1, layers - 2)] * slopes
    return {**prediction, "q": q, "c": np.array(correlations), "chi": chi}


def _batch_weights(images: int, batch_size: int) -> np.ndarray:
    """What each pair of images [B, B] counts in the square of the mean over a batch of them."""
    same = 1 / (batch_size * images)
    apart = (batch_size - 1) / (batch_size * images * (images - 1)) if images > 1 else 0.0
    return np.where(np.eye(images, dtype=bool), same, apart)


def _softmax(
    kernel: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """`Pairs` of e = softmax z - y under z ~ N(0, kernel), the Stein term, and draws of e.

    value: the mean over classes of E e_a e_b.  cross: d value_ab / d K_ab, E tr(J_a J_b) / classes
    with J the Jacobian of the softmax.  bend: with the sum of its second derivatives for f''.
    Stein term [B, B]: sum over classes k, l and images c, d of K_cd E d^2(e_ak e_bl) / dz_ck dz_dl,
    per class.  e: [draws, classes, B].
    """
    rng = np.random.default_rng(0)
    z = _sample(kernel, _OUTPUT_DRAWS * classes, rng).reshape(_OUTPUT_DRAWS, classes, -1)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    e = p - np.eye(classes)[:, np.asarray(labels)]
    bent = 2 * p * (np.sum(p * p, axis=1, keepdims=True) - p)

    def mean(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The mean over draws and classes of left_a right_b: [B, B]."""
        left, right = (x.reshape(-1, x.shape[2]) for x in (left, right))
        return left.T @ right / len(left)

    square = mean(p, p * p)
    products = np.swapaxes(p, 1, 2) @ p  # [draws, B, B]
    squares = np.einsum("dab,dab->ab", products, products) / (len(p) * classes)
    cross = mean(p, p) - square - square.T + squares
    bend, q, trace = mean(bent, e), np.diag(kernel), 1 - np.sum(p * p, axis=1)
    traces = trace.T @ trace / len(trace) / classes
    aligned = q[:, None] * bend + q * bend.T + kernel * (cross + traces)
    return Pairs(mean(e, e), cross, bend), aligned, e


def _pull(pairs: Pairs, bars: np.ndarray) -> np.ndarray:
    """d T / d K from d T / d value, [T, B, B] both, of `pairs` under K."""
    pulled = bars * pairs.cross
    diagonal = np.arange(pulled.shape[1])
    pulled[:, diagonal, diagonal] += np.sum(bars * pairs.bend, axis=2)
    return pulled


def _quadratic(bars: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x^T bar x for every bar [T, B, B] and row of x [S, B]: [T, S]."""
    # One target at a time: the products of all of them would take a gigabyte at 40 layers.
    return np.stack([np.einsum("sb,sb->s", x @ bar, x) for bar in bars])


def _sample(kernel: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, B] draws of N(0, kernel); a kernel that is not positive loses what is negative."""
    ridge = 1e-9 * np.mean(np.diag(kernel)) * np.eye(len(kernel))
    try:
        root = np.linalg.cholesky(kernel + ridge)
    except np.linalg.LinAlgError:  # of a batch that is larger than its images
        values, vectors = np.linalg.eigh(kernel)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
    return rng.standard_normal((count, len(kernel))) @ root.T
