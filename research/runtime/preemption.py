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
PATIENCE = 5.0  # seconds for the main thread to stop by itself; containers give 10
TOGETHER = 1.0  # seconds within which two signals are one wish: some launchers send both

_state = {
    "received": 0,  # the first signal
    "deferred": False,
    "unsaved": False,
    "stopping": False,  # `Stopped` has been raised
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
    """Let SIGTERM and SIGINT stop the process, at once or, inside `deferred`, where it can.

    No exception is raised where a signal arrives: inside a library it could be lost or become
    another error, and a call such as compiling may last for minutes in which no handler runs. A
    thread ends the process instead, with 128 + the signal's number: at once where nothing is
    deferred, `PATIENCE` seconds after the signal inside `deferred` unless there is something to
    save, and at a second signal.  hint: what its line says besides the signal.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if before >= 0:
        os.close(before)  # the thread of an earlier call ends
    for signum in SIGNALS:
        _ = signal.signal(signum, _handle)
    threading.Thread(target=_watch, args=(reader, hint), daemon=True).start()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal raises nothing by itself: `raise_if_requested` does, and the end.

    Collective at its end, see `raise_if_requested`.  May be nested.
    """
    before = _state["deferred"], _state["unsaved"]
    _state["deferred"] = True
    try:
        yield
        raise_if_requested()
    finally:
        _state["deferred"], _state["unsaved"] = before


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
            again = bool(received) and now - began > TOGETHER
            if not received:
                received, began, waiting_since = number[0], now, now
        if busy := _state["unsaved"] or _state["stopping"]:
            waiting_since = now
        patience = PATIENCE if _state["deferred"] else 0
        if again or (received and not busy and now - waiting_since >= patience):
            line = f"{Stopped(received)}; {hint}".removesuffix("; ")
            options = {"file": sys.stderr, "flush": True}
            words = threading.Thread(target=print, args=(line,), kwargs=options, daemon=True)
            words.start()
            words.join(1)  # nobody may be reading
            os._exit(128 + received)
    os.close(reader)
