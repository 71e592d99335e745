"""SIGTERM and SIGINT: finish the epoch, save the state, and exit with 128 + the signal's number."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from research.runtime import distributed

_state = {"deferred": False, "received": 0, "stopping": False}


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived; whatever had to be saved is saved.

    Not an Exception, so that code that catches failures does not catch it.
    exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def install() -> None:
    """Turn SIGTERM and SIGINT into `Stopped`; a second signal ends the process at once."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        _ = signal.signal(signum, _handle)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal raises nothing by itself: `raise_if_requested` does, and the end.

    Collective at its end, see `raise_if_requested`.  May be nested.
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

    Collective: every process has to call it at the same places, and all of them stop at the same
    one.
    """
    received = distributed.max_over_processes(_state["received"])
    if received:
        _state["stopping"] = True
        raise Stopped(received)


def _handle(signum: int, frame: FrameType | None) -> None:
    del frame
    _state["received"] = signum
    for each in (signal.SIGTERM, signal.SIGINT):
        _ = signal.signal(each, signal.SIG_DFL)
    # A launcher signals one process after the other: this one may be on its way out already.
    if not _state["deferred"] and not _state["stopping"]:
        raise Stopped(signum)
