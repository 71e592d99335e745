"""A machine that is taken away: finish the epoch, save, and leave with the signal's exit code."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_state = {"deferred": False, "received": 0}


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived; whatever had to be saved is saved.

    Not an Exception, so that nobody who expects a failure takes it for one.
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
    """Raise `Stopped` if a signal has arrived: call where everything is saved."""
    if _state["received"]:
        raise Stopped(_state["received"])


def _handle(signum: int, frame: FrameType | None) -> None:
    del frame
    _state["received"] = signum
    for each in (signal.SIGTERM, signal.SIGINT):
        _ = signal.signal(each, signal.SIG_DFL)
    if not _state["deferred"]:
        raise Stopped(signum)
