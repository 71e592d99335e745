"""Traces of what the devices did during some steps, by `jax.profiler`.

The trace lies in `profile` of the work directory: for TensorBoard with its profile plugin
(`tensorboard --logdir=...`), and as perfetto_trace.json.gz for https://ui.perfetto.dev. Of several
processes the first one writes its own.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax

from research.runtime import distributed, files

_state = {"steps": 0}


def install(steps: int) -> None:
    """Request a trace of `steps` steps of the next training, or of one call of an attack."""
    _state["steps"] = steps


def steps() -> int:
    """Number of steps still to be traced; 0 for none."""
    return _state["steps"]


class Trace:
    """Trace of the second piece of a training, since the first one includes compiling.

    workdir: of the run.  `between` is called after each piece.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._open: ExitStack | None = None

    def between(self) -> str:
        """Start tracing after the first piece, end after the second; returns the line to print."""
        if self._open:
            self._open.close()
            self._open = None
            return f"profile: {_folder(self._workdir)}"
        if steps():
            self._open = ExitStack()
            self._open.enter_context(_tracing(self._workdir))
        return ""


@contextmanager
def one_call(workdir: Path) -> Iterator[None]:
    """Trace the body, if a trace is requested."""
    if not steps():
        yield
        return
    with _tracing(workdir):
        yield


def _folder(workdir: Path) -> Path:
    return workdir / "profile"


@contextmanager
def _tracing(workdir: Path) -> Iterator[None]:
    install(0)
    if not distributed.is_first():
        yield
        return
    with tempfile.TemporaryDirectory() as local:
        with jax.profiler.trace(local, create_perfetto_trace=True):
            yield
        files.copy_tree(Path(local), _folder(workdir))
