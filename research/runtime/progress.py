"""Progress of long work, for the person who waits: a bar in a terminal, plain lines in a log.

Everything goes to standard error, and only from the first process: standard output is kept for
results.  Use it as tqdm itself:

    for photo in progress.bar(photos, "cutting out faces", unit="photographs"):
        ...

    with progress.bar(None, "attack", total=len(todo), unit="images") as bar:
        for batch in batches:
            ...
            bar.update(len(batch))
            progress.say(f"{name}: ...")  # a whole line, above the bar

Work that is over in less than `LOG_EVERY_S` leaves nothing in a log.  A bar disappears when it is
done; what came of the work is told with `say`.
"""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from research.runtime import distributed
from research.structs import printable

T = TypeVar("T")

LOG_EVERY_S = 10.0


def bar(
    items: Iterable[T] | None,
    what: str,
    *,
    unit: str,
    total: int | None = None,
    done: int = 0,
) -> "tqdm[T]":
    """A bar over `items`, or over `total` units that `update(n)` counts; a context manager.

    what: the work, in words.  unit: what is counted, in the plural.  total: needed where `items` is
    None or has no length.  done: how many units were done before, as when work goes on after a
    stop; the time that is left is reckoned without them.
    """
    if total is None:
        total = len(items)  # pyright: ignore[reportArgumentType]
    terminal = sys.stderr.isatty()
    return (_Bar if terminal else _LogLines)(
        items,
        desc=printable(what),
        unit=f" {unit}",
        total=total,
        initial=done,
        file=sys.stderr,
        disable=not distributed.is_first(),
        leave=False,
        dynamic_ncols=True,
        mininterval=0.1 if terminal else LOG_EVERY_S,
        delay=0.0 if terminal else LOG_EVERY_S,
        miniters=1,
        bar_format=None if terminal else "{desc}: {n:,} of {total:,}{unit}, about {remaining} left",
    )


def say(line: str) -> None:
    """Write a line to standard error, above the bars of a terminal; only from the first process."""
    if not distributed.is_first():
        return
    line = printable(line)
    if sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


class _Bar(tqdm):
    """A bar that starts no thread: tqdm's own watches for bars whose updates have become rare."""

    monitor_interval = 0


class _LogLines(_Bar):
    """A bar whose every state is a line of its own, for a file cannot be overwritten."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # else it is the empty text that clears a bar
            print(self, file=sys.stderr, flush=True)
