"""What a program settles before it loads any library: where its words go, and memory to begin in.

This module imports the standard library alone, for the others to be loaded in `prepare` and after.
"""

import contextlib
import io
import os
import resource
import signal
import sys
from typing import Any, TextIO

# Mapping the libraries takes 1.8 GiB of addresses on two cores; with less JAX aborts or crashes.
ADDRESS_SPACE = 2 * 2**30


def prepare_streams() -> None:
    """Make the standard streams of this process unable to fail.

    A stream that is closed, or whose reader has gone or whose disk is full, swallows what is
    written: a run does not end because nobody listens.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else files would get these numbers
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, tolerant(number))


def prepare() -> None:
    """`prepare_streams`, and check that the libraries can be loaded.

    Ends the process with exit code 2 and one line if `ulimit -v` is too low for them, or if JAX
    cannot read a variable of its own.
    """
    prepare_streams()
    # NumPy's products are small here, and a second thread that waits for its turn costs more.
    _ = os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _ = signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to be saved yet
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE:
        print(
            f"error: the limit of virtual memory (ulimit -v) is {limit // 2**20} MiB; JAX and the "
            f"other libraries need {ADDRESS_SPACE // 2**20} MiB to start",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        import jax  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ValueError as error:  # of a variable of the environment
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def tolerant(number: int) -> TextIO:
    """A text stream to the file descriptor `number` that drops what cannot be written."""
    terminal = os.isatty(number)
    buffered = io.BufferedWriter(_Tolerant(number, "w", closefd=False))
    return io.TextIOWrapper(
        buffered, errors="backslashreplace", line_buffering=terminal or number == 2
    )


class _Tolerant(io.FileIO):
    """A file whose failing writes count as done; a buffer above it has nothing left at its end."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)
