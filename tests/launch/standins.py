"""Programs that only write down how they were called, to be found before the real ones."""

import os
import subprocess

RECORD = """#!/usr/bin/env bash
printf '%s\\0' "${0##*/}" "$@" >"$CALLS/$(date +%s%N)-$$"
"""


class StandIns:
    """A directory of them, first on the PATH of what `run` runs."""

    def __init__(self, folder, **bodies):
        """bodies: name of a program -> what it does after it has written down its call (bash)."""
        self.folder, self.calls_in = folder / "programs", folder / "calls"
        for each in (self.folder, self.calls_in):
            each.mkdir()
        for name, body in bodies.items():
            path = self.folder / name
            path.write_text(RECORD + body)
            path.chmod(0o755)

    def environment(self, **variables):
        path = f"{self.folder}:{os.environ['PATH']}"
        home = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
        return {"PATH": path, "CALLS": str(self.calls_in), **home, **variables}

    def run(self, *words, cwd=None, **variables):
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment(**variables),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def calls(self, name=None):
        """[program, argument, ...] of every call, in the order of their beginnings."""
        files = sorted(self.calls_in.iterdir(), key=lambda path: path.name)
        found = [path.read_text().split("\0")[:-1] for path in files]
        return [call for call in found if name in (None, call[0])]
