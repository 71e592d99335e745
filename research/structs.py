"""Types that are passed between the rooms: data sets, batches, states, metrics, errors.

Shape letters: N samples, B batch, T steps of an epoch, E epochs, S seeds, L layers, H W C image,
K classes.
"""

from typing import Any

import flax.struct
import jax
import numpy as np
from numpy.typing import ArrayLike

Array = jax.Array | np.ndarray
PyTree = Any
Config = Any  # ConfigDict, whose own annotation makes every attribute a union of all types


def printable(text: str) -> str:
    """`text` in one line that shows what it holds: other characters become escapes, as in Python.

    Names of files and labels may hold line feeds and what a terminal obeys.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class UserError(Exception):
    """A mistake or a state of the machine that the person at the keyboard can mend.

    The doors print its text as one message and exit; nobody has to read a stack trace.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def one_line(error: BaseException) -> str:
    """The first line of what an error says, at most 200 characters; its type if it says nothing.

    Some libraries put a stack trace into their messages, after the first line.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def check_classes(values: ArrayLike, name: str, classes: int) -> np.ndarray:
    """`values`, numbers of classes in 0..classes-1, as an int32 array of their shape.

    name: of the argument, for the message.
    Raises ValueError for another type, such as one-hot or real numbers, and for another number.
    """
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"expected {name} to be integers, got {array.dtype} {list(array.shape)}")
    if array.size and not 0 <= array.min() <= array.max() < classes:
        raise ValueError(f"expected {name} 0..{classes - 1}, got {array.min()}..{array.max()}")
    return array.astype(np.int32)


@flax.struct.dataclass
class Dataset:
    """Labelled images.

    images: [N, H, W, C] uint8, 0..255, or a `data.lazy_images.LazyImages` that reads them in parts.
    labels: [N] int32, 0..K-1.
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
class BestState:
    """The best epoch so far, of a training that stops early or keeps its best net.

    loss: [] float32, the mean test loss after it, infinite at first.  epoch: [] int32, 0 at first.
    params: the parameters after it; an empty tree if only the epoch is of interest.
    """

    loss: Array
    epoch: Array
    params: PyTree


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; arrays only.

    step: [] int32, optimiser updates done.  params, opt_state: trees of float32.
    """

    step: Array
    params: PyTree
    opt_state: PyTree


@flax.struct.dataclass
class EarlyStoppingState(TrainState):
    """The state of a training that stops early or keeps its best net.

    kept: its best epoch; checkpoints store it under this name.
    """

    kept: BestState


@flax.struct.dataclass
class Metrics:
    """Sums over the examples counted so far; divided only when printed.

    loss_sum: [] float32, nats.  correct, count: [] int32.
    """

    loss_sum: Array
    correct: Array
    count: Array
