"""A second implementation of the nets and their gradients, by hand, in float64 NumPy.

The recursion of the report (Exercise 1, Part A, corrected): delta^L = p - t for softmax with
cross-entropy, delta^l = (delta^{l+1} W^T) * f'(z^l), dL/dW^l = (y^{l-1})^T delta^l.
"""

import numpy as np


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


FUNCTIONS = {
    "relu": (lambda v: np.maximum(v, 0), lambda v: (v > 0).astype(float)),
    "tanh": (np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "sigmoid": (sigmoid, lambda v: sigmoid(v) * (1 - sigmoid(v))),
    "lecun": (
        lambda v: 1.7159 * np.tanh(2 * v / 3) + 0.01 * v,
        lambda v: 1.7159 * 2 / 3 * (1 - np.tanh(2 * v / 3) ** 2) + 0.01,
    ),
}


def gradients(params, layers, activation, images, labels):
    """Mean loss, {layer: {kernel, bias}} and {layer: signal [B, out]} of a batch of images."""
    function, derivative = FUNCTIONS[activation]
    flat = np.asarray(images, np.float64).reshape(len(images), -1)
    inputs, preactivations = [flat / 255], []
    for layer in layers:
        kernel, bias = (np.float64(params[layer][k]) for k in ("kernel", "bias"))
        preactivations.append(inputs[-1] @ kernel + bias)
        inputs.append(function(preactivations[-1]))
    logits = preactivations[-1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    labels = np.asarray(labels)
    rows = np.arange(len(labels))
    loss = -np.log(probabilities[rows, labels]).mean()
    delta = probabilities.copy()
    delta[rows, labels] -= 1
    delta /= len(labels)
    grads, signals = {}, {}
    for i in reversed(range(len(layers))):
        signals[layers[i]] = delta
        grads[layers[i]] = {"kernel": inputs[i].T @ delta, "bias": delta.sum(axis=0)}
        if i:
            back = delta @ np.float64(params[layers[i]]["kernel"]).T
            delta = back * derivative(preactivations[i - 1])
    return loss, grads, signals
