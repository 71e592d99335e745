"""SIGTERM and SIGINT: finish the epoch, save the state, and exit with 128 + the signal's number."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from research.runtime import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN = 0.05  # seconds after which a `Stopped` that was lost is raised once more
PATIENCE = 5.0  # seconds for the main thread to stop by itself; containers give 10
TOGETHER = 1.0  # seconds within which two signals are one wish: some launchers send both

_state = {
    "received": 0,  # the first signal
    "deferred": False,
    "unsaved": False,
    "raised": False,  # by the handler of the signal
    "stopping": False,  # by `raise_if_requested`
}


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived; whatever had to be saved is saved.

    Not an Exception, so that code that catches failures does not catch it.
    exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def install(hint: str = "") -> None:
    """Turn SIGTERM and SIGINT into `Stopped`; a second signal ends the process at once.

    What a handler raises is lost, but for a call of `sys.unraisablehook`, while the interpreter
    runs a callback of its own: of the garbage collector, a weak reference, a finaliser. `Stopped`
    is raised again then until it is not lost, by SIGALRM.

    A call of a library, such as compiling, may last for minutes in which no handler runs. Unless
    there is something to save, a thread ends the process `PATIENCE` seconds after the signal even
    so, with the same exit code.  hint: what its line says besides the signal.
    """
    for signum in SIGNALS:
        _ = signal.signal(signum, _handle)
    _ = signal.signal(signal.SIGALRM, lambda signum, frame: _stop())
    sys.unraisablehook = _raise_later
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before >= 0:
        os.close(before)  # the thread of an earlier call ends
    threading.Thread(target=_watch, args=(reader, hint), daemon=True).start()


def requested() -> int:
    """The signal that has arrived in this process, also where no `Stopped` came of it; or 0."""
    return _state["received"]


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal raises nothing by itself: `raise_if_requested` does, and the end.

    Collective at its end, see `raise_if_requested`.  May be nested.
    """
    before = _state["deferred"], _state["unsaved"]
    _state["deferred"] = True
    try:
        yield
    finally:
        _state["deferred"], _state["unsaved"] = before
    raise_if_requested()


def mark_unsaved() -> None:
    """Say that there are results from now on, to the end of `deferred`, for which a stop waits."""
    _state["unsaved"] = _state["deferred"]


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
    _state["received"] = _state["received"] or signum
    if not _state["raised"]:
        _stop()


def _stop() -> None:
    # A launcher signals one process after the other: this one may be on its way out already.
    if not _state["deferred"] and not _state["stopping"]:
        _state["raised"] = True
        raise Stopped(_state["received"])


def _raise_later(unraisable: "sys.UnraisableHookArgs") -> None:
    if issubclass(unraisable.exc_type, Stopped):
        _ = signal.setitimer(signal.ITIMER_REAL, AGAIN)
    # In a thread that is not Python's, TensorStore loses what it cannot hand to an event loop that
    # an error has closed; that error itself is raised in the main thread.
    elif threading.get_ident() == threading.main_thread().ident:
        sys.__unraisablehook__(unraisable)


def _watch(reader: int, hint: str) -> None:
    """End the process after a signal where its main thread does not.

    reader: a pipe with the number of every signal that arrives; it is closed at its other end where
    another call of `install` takes the place of this one.
    """
    received, began, waiting_since = 0, 0.0, 0.0
    while True:
        again, arrived = False, select.select([reader], [], [], 0.1 if received else None)[0]
        now = time.monotonic()
        if arrived:
            number = os.read(reader, 1)
            if not number:
                break
            if number[0] in SIGNALS:  # else it is SIGALRM
                again = bool(received) and now - began > TOGETHER
                if not received:
                    received, began, waiting_since = number[0], now, now
        if _state["unsaved"] or _state["stopping"]:
            waiting_since = now
        if again or (received and now - waiting_since > PATIENCE):
            line = f"{Stopped(received)}; {hint}".removesuffix("; ")
            options = {"file": sys.stderr, "flush": True}
            words = threading.Thread(target=print, args=(line,), kwargs=options, daemon=True)
            words.start()
            words.join(1)  # nobody may be reading
            os._exit(128 + received)
    os.close(reader)
