"""SIGTERM and SIGINT: finish the epoch, save the state, and exit with 128 + the signal's number."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from research.runtime import distributed

AGAIN = 0.05  # seconds after which a `Stopped` that was lost is raised once more

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
    """Turn SIGTERM and SIGINT into `Stopped`; a second signal ends the process at once.

    What a handler raises is lost, but for a call of `sys.unraisablehook`, while the interpreter
    runs a callback of its own: of the garbage collector, a weak reference, a finaliser. `Stopped`
    is raised again then until it is not lost, by SIGALRM.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        _ = signal.signal(signum, _handle)
    _ = signal.signal(signal.SIGALRM, lambda signum, frame: _stop())
    sys.unraisablehook = _raise_later


def requested() -> int:
    """The signal that has arrived in this process, also where no `Stopped` came of it; or 0."""
    return _state["received"]


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
    _stop()


def _stop() -> None:
    # A launcher signals one process after the other: this one may be on its way out already.
    if not _state["deferred"] and not _state["stopping"]:
        raise Stopped(_state["received"])


def _raise_later(unraisable: "sys.UnraisableHookArgs") -> None:
    if issubclass(unraisable.exc_type, Stopped):
        _ = signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(unraisable)
