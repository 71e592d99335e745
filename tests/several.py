"""Several local processes of one program, on the loopback."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENVIRONMENT = {"NPROC": "16", "JAX_PLATFORMS": "cpu"}  # see tests/conftest.py


@dataclasses.dataclass(frozen=True)
class Ended:
    """One process at its end. seconds: from the start of all to the end of this one."""

    code: int
    out: str
    err: str
    seconds: float


def free_address():
    """An address on the loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def flags(address, count, number):
    """The flags of `research.main` for one of several processes."""
    return (f"--coordinator={address}", f"--processes={count}", f"--process={number}")


class Several:
    """`count` processes of a python command, ended with the `with` block.

    words: of the command after the interpreter, as ("-m", "research.main", ...), or a function
    from the number of the process to them.  The flags of `flags` come last.
    """

    def __init__(self, count, words, **environment):
        address, self.began = free_address(), time.monotonic()
        self._said, self.processes = tempfile.TemporaryDirectory(), []
        for number in range(count):
            own = words(number) if callable(words) else words
            command = [sys.executable, *map(str, own), *flags(address, count, number)]
            with (
                self._file("out", number).open("w") as out,
                self._file("err", number).open("w") as err,
            ):
                everything = os.environ | ENVIRONMENT | environment
                process = subprocess.Popen(command, stdout=out, stderr=err, env=everything)
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            _ = process.wait()
        self._said.cleanup()

    def seconds(self):
        """Since the start of all."""
        return time.monotonic() - self.began

    def send(self, number, signum=signal.SIGKILL):
        """Send a signal to one process."""
        self.processes[number].send_signal(signum)

    def running(self):
        """Whether all processes are running."""
        return all(process.poll() is None for process in self.processes)

    def said(self, number):
        """What a process has written to standard error so far."""
        return self._text("err", number)

    def wait_until(self, reached, seconds=120):
        """Wait until `reached()`, or one of the processes has ended."""
        deadline = time.monotonic() + seconds
        while not reached() and self.running():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.01)

    def finish(self, seconds=120):
        """Wait for the end of all processes: [Ended]; fails after so many seconds."""
        deadline, found = time.monotonic() + seconds, {}
        while len(found) < len(self.processes):
            for number, process in enumerate(self.processes):
                if number not in found and process.poll() is not None:
                    found[number] = self.seconds()
            assert time.monotonic() < deadline, [self.said(n) for n in range(len(self.processes))]
            time.sleep(0.01)
        return [
            Ended(process.returncode, self._text("out", n), self._text("err", n), found[n])
            for n, process in enumerate(self.processes)
        ]

    def _file(self, kind, number):
        return Path(self._said.name) / f"{kind}-{number}"

    def _text(self, kind, number):
        return self._file(kind, number).read_text()


def run(count, words, seconds=120, **environment):
    """Run a command in several processes to the end: [Ended], by number."""
    with Several(count, words, **environment) as several:
        return several.finish(seconds)
