"""The photographs behind the paths of a command line, and the names of their marked copies.

Folders are searched for pictures, in the order of their names; hidden files and folders are passed
over. A copy keeps its place in the folder that was given and its name, with ".png" behind it if it
is neither a JPEG nor a PNG. Names that are taken get a number: nothing is written twice.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from research.data import image_files
from research.faces.annotations import Problem
from research.runtime import files
from research.structs import UserError

FACES, CONFIG = "faces.jsonl", "config.json"
SUMMARY, VERSIONS = "summary.json", "versions.json"
JPEG_ENDS = (".jpg", ".jpeg")

_LONGEST = 180  # bytes of a name, most file systems take 255; there are endings and numbers to come


class Photograph(NamedTuple):
    """One photograph: its path, and where its copy and its figure go, below the output folder."""

    path: str
    copy: str
    panels: str


def find_photographs(given: Sequence[str], out: Path) -> tuple[list[Photograph], list[Problem]]:
    """The photographs at and below the paths `given`, each once, and the folders without any.

    A file that is named counts as a photograph whatever its ending, and even if it is missing: the
    error comes when it is read.
    Raises UserError if one lies in the folder `out` that the copies go to.
    """
    home = os.path.realpath(out)
    photographs: list[Photograph] = []
    problems: list[Problem] = []
    taken, listed = {FACES, CONFIG, SUMMARY, VERSIONS}, set[str]()
    for argument in given:
        path = os.path.expanduser(argument)
        if _is_within(os.path.realpath(path), home):
            raise UserError(f"{argument} lies in the folder of the copies; give another --out")
        if not os.path.isdir(path):
            files, top, base = [path], "", os.path.dirname(path) or "."
        else:
            files, base = list(_search(path, home)), path
            top = _free(os.path.basename(os.path.realpath(path)) or "root", taken)
            if not files:
                ends = ", ".join(image_files.SUFFIXES)
                problems.append(Problem(argument, f"holds no picture ({ends})", "nothing to do"))
        taken.update(_folders(os.path.join(top, os.path.relpath(file, base)) for file in files))
        for file in files:
            if (real := os.path.realpath(file)) in listed:
                continue
            listed.add(real)
            copy = _free(_copy_of(os.path.join(top, os.path.relpath(file, base))), taken)
            panels = _free(os.path.splitext(copy)[0] + "-panels.png", taken)
            photographs.append(Photograph(file, copy, panels))
    return photographs, problems


def open_out(out: Path) -> None:
    """Make the output folder, or take one that is empty or holds earlier results.

    Raises UserError if it holds anything else, which might be overwritten.
    """
    try:
        if out.exists() and not (out / FACES).exists() and any(out.iterdir()):
            raise UserError(
                f"{out}: is not empty and holds no earlier results (no {FACES}); expected a "
                "new or empty folder; give another --out"
            )
        files.make_folder(out)
        (out / SUMMARY).unlink(missing_ok=True)  # written last: its presence means complete results
    except OSError as error:
        raise UserError(f"{out}: cannot be used as --out ({error.strerror})") from None


def _search(folder: str, home: str) -> Iterator[str]:
    """The pictures below a folder, without those in `home`."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(base, name)) != home
        )
        for name in sorted(names):
            path = os.path.join(base, name)
            if not name.startswith(".") and image_files.is_picture(path):
                yield path


def _is_within(path: str, home: str) -> bool:
    return path == home or path.startswith(os.path.join(home, ""))


def _folders(paths: Iterator[str]) -> set[str]:
    """The folders that the copies will lie in, as `_free` keeps names."""
    return {
        parent.as_posix().casefold()
        for path in set(map(os.path.dirname, paths))
        for parent in (Path(path), *Path(path).parents)
    }


def _copy_of(path: str) -> str:
    stem, end = os.path.splitext(path)
    folder, name = os.path.split(stem)
    stem = os.path.join(folder, os.fsdecode(os.fsencode(name)[:_LONGEST]))
    return stem + end if end.lower() in (*JPEG_ENDS, ".png") else f"{stem}{end[:8]}.png"


def _free(preferred: str, taken: set[str]) -> str:
    """The name, or the first with a number that is not taken; some disks do not mind capitals."""
    stem, end = os.path.splitext(preferred)
    names = itertools.chain([preferred], (f"{stem}-{n}{end}" for n in itertools.count(2)))
    name = next(name for name in names if Path(name).as_posix().casefold() not in taken)
    taken.add(Path(name).as_posix().casefold())
    return name
