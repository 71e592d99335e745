"""Names for the things that travel between the floors of the house.

Shape letters: N samples, B batch, T steps of an epoch, E epochs, S seeds, L layers, H W C image,
K classes.
"""

from typing import Any

import flax.struct
import jax
import numpy as np

Array = jax.Array | np.ndarray
PyTree = Any
Config = Any  # ConfigDict, whose own annotation makes every attribute a union of all types


class UserError(Exception):
    """A mistake or a state of the machine that the person at the keyboard can mend.

    The doors print its text as one message and exit; nobody has to read a stack trace.
    """


@flax.struct.dataclass
class Dataset:
    """Labelled images, resident in memory.

    images: [N, H, W, C] uint8, 0..255.  labels: [N] int32, 0..K-1.
    """

    images: Array
    labels: Array


@flax.struct.dataclass
class Batch:
    """The part of a `Dataset` that one step sees.

    images: [B, H, W, C] uint8.  labels: [B] int32.
    mask: [B] bool, False where the last batch of an epoch is filled up.
    """

    images: Array
    labels: Array
    mask: Array


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; arrays only.

    step: [] int32, optimiser updates done.  params, opt_state: trees of float32.
    """

    step: Array
    params: PyTree
    opt_state: PyTree


@flax.struct.dataclass
class Metrics:
    """Sums over the examples counted so far; divided only when printed.

    loss_sum: [] float32, nats.  correct, count: [] int32.
    """

    loss_sum: Array
    correct: Array
    count: Array
