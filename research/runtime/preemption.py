"""A machine that is taken away: finish the epoch, save, and leave with the signal's exit code."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from research.runtime import distributed

_state = {"deferred": False, "received": 0, "stopping": False}


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived; whatever had to be saved is saved.

    Not an Exception, so that nobody who expects a failure takes it for one.
    together: whether all processes of the run stop at the same place.
    """

    def __init__(self, signum: int, *, together: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum
        self.together = together


def install() -> None:
    """Turn SIGTERM and SIGINT into `Stopped`; a second signal ends the process at once."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        _ = signal.signal(signum, _handle)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal shows in `raise_if_requested` only, and cuts nothing in the middle.

    Raises `Stopped` at the end for a signal that nobody asked for inside.  May be nested.
    """
    before = _state["deferred"]
    _state["deferred"] = True
    try:
        yield
    finally:
        _state["deferred"] = before
    raise_if_requested()


def raise_if_requested() -> None:
    """Raise `Stopped` if a signal has arrived in any process: call where everything is saved.

    Collective, as the end of `deferred` is: every process has to come to the same places, and all
    of them stop at the same one.
    """
    received = distributed.max_over_processes(_state["received"])
    if received:
        _state["stopping"] = True
        raise Stopped(received, together=not distributed.is_single())


def _handle(signum: int, frame: FrameType | None) -> None:
    del frame
    _state["received"] = signum
    for each in (signal.SIGTERM, signal.SIGINT):
        _ = signal.signal(each, signal.SIG_DFL)
    # A launcher signals one process after the other: this one may be on its way out already.
    if not _state["deferred"] and not _state["stopping"]:
        raise Stopped(signum)
