"""What is settled before libraries are loaded: no test here imports one in its child."""

import os
import subprocess
import sys

import pytest

from research.runtime import startup

PREPARE = "import os, sys; from research.runtime import startup; startup.prepare(); "


def child(code, shell='exec "$@"', **options):
    """shell: the line of `sh` that starts the child, which is "$@"."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", PREPARE + code]
    return subprocess.run(command, timeout=60, **options)


@pytest.mark.parametrize("place", ["full disk", "reader that has gone"])
def test_what_nobody_takes_is_dropped(place):
    if place == "full disk":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, number = os.pipe()
        os.close(reader)
    with startup.tolerant(number) as stream:
        for _ in range(3):
            assert stream.write("word " * 10_000) == 50_000
            stream.flush()
    os.close(number)


def test_what_somebody_takes_arrives_whole():
    reader, number = os.pipe()
    with startup.tolerant(number) as stream:
        _ = stream.write("täglich\n")
    os.close(number)
    with open(reader, encoding="utf-8") as file:
        assert file.read() == "täglich\n"


def test_a_program_whose_reader_has_gone_ends_as_it_would():
    reader, writer = os.pipe()
    os.close(reader)
    done = child("print('a' * 100_000); sys.exit(7)", stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == 7


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path):
    code = f"file = open({str(tmp_path / 'f')!r}, 'w'); os.write(2, b'lost'); print(file.fileno())"
    done = child("print('lost', file=sys.stderr);" + code, 'exec "$@" 2>&-', stdout=subprocess.PIPE)
    assert done.returncode == 0 and int(done.stdout) > 2 and not (tmp_path / "f").read_text()


@pytest.mark.parametrize("door", ["main", "predict", "report"])
def test_too_little_memory_for_the_libraries_is_one_line(door):
    done = subprocess.run(
        ["sh", "-c", 'ulimit -v 524288; exec "$@"', "sh", sys.executable, "-m", f"research.{door}"],
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "(ulimit -v) is 512 MiB" in line and not done.stdout
