"""Files of a run that show damage: JSON, JSON lines, arrays, and the list of digests.

*.json       the last entry, "check", is the CRC-32 of what stands before it; written in one move
*.jsonl      so is that of every line, begun with the check of the line before: lines that are
             changed, exchanged or left out show
*.npz        a ZIP file, which has a CRC-32 of every array; written in one move
SHA256SUMS   of a finished run or an export: the digests of its files, as `sha256sum` has them, and
             one of the lines above it; written last

`files.read` reads them all, with the parsers of this module and `files.parse_arrays`. What was
written before there were checks has none and is read as it is.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from research.runtime import files
from research.structs import UserError

T = TypeVar("T")

DIGESTS = "SHA256SUMS"
_CHECK = re.compile(rb',?[ \n]*"check": "([0-9a-f]{8})"\n?\}\n\Z')
_AT_ONCE = 16  # files that are read at a time, which counts in an object store


def with_check(
    content: Mapping[str, Any], before: int = 0, *, indent: int | None = None
) -> tuple[str, int]:
    """(JSON text with its check and a line end, the check).  before: that of the line before."""
    body = json.dumps(dict(content), indent=indent).removesuffix("}").rstrip()
    check = zlib.crc32(body.encode(), before)
    comma = "," if content else ""
    space, end = (" ", "") if indent is None else (f"\n{' ' * indent}", "\n")
    return f'{body}{comma}{space}"check": "{check:08x}"{end}}}\n', check


def lines(rows: Iterable[Mapping[str, Any]], check: int = 0) -> tuple[str, int]:
    """(JSON lines with their checks, the last check), to follow a line whose check is `check`."""
    written: list[str] = []
    for row in rows:
        line, check = with_check(row, check)
        written.append(line)
    return "".join(written), check


def parse_json(content: bytes, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The object that a JSON file holds, without its check.

    Raises ValueError for damage and for a key that is missing.
    """
    value = _checked(content)
    if missing := [key for key in keys if key not in value]:
        raise ValueError(f"lacks {missing[0]!r}")
    return value


def _checked(content: bytes) -> dict[str, Any]:
    match = _CHECK.search(content)
    if match is None:
        value = _object(content)
        if "check" in value:
            raise ValueError("its check is damaged")
        return value
    body = content[: match.start()]
    if zlib.crc32(body) != int(match[1], 16):
        raise ValueError("changed since it was written, its check differs")
    return _object(body + b"}")


def parse_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of JSON lines, without their checks.  Raises ValueError naming a damaged line."""
    if b'"check": ' not in content:
        return [_object(line) for line in content.splitlines()]
    rows = whole_rows(content)
    if None in rows:
        raise ValueError(f"line {rows.index(None) + 1} is not what was written there")
    return [row for row in rows if row is not None]


def whole_rows(content: bytes) -> list[dict[str, Any] | None]:
    """The row of every line, without its check; None if the line is not what was written there."""
    rows: list[dict[str, Any] | None] = []
    before: int | None = 0
    for line in content.splitlines(keepends=True):
        match = _CHECK.search(line)
        check = int(match[1], 16) if match else None
        row = None
        if match and before is not None:
            body = line[: match.start()]
            row = _object(body + b"}") if zlib.crc32(body, before) == check else None
        rows.append(row)
        before = check
    return rows


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"holds {type(value).__name__}, expected an object")
    return value


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """{name: SHA-256} of those files that a folder holds."""

    def entry(name: str) -> tuple[str, str] | None:
        try:
            return name, digest((folder / name).read_bytes())
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(filter(None, pool.map(entry, sorted(names))))


def write_digests(folder: Path, sums: Mapping[str, str]) -> None:
    """Write the list of a folder: {name: SHA-256}."""
    listed = "".join(f"{each}  {name}\n" for name, each in sums.items())
    files.replace(folder / DIGESTS, f"{listed}# {digest(listed.encode())}\n")


def read_digests(folder: Path, *, remedy: str) -> dict[str, str]:
    """{name: digest} of the list of a folder, {} if it has none.

    Raises UserError if the list is damaged.
    """

    def parse(content: bytes) -> dict[str, str]:
        listed, mark, own = content.decode().rpartition("# ")
        if mark and own != f"{digest(listed.encode())}\n":
            raise ValueError("damaged or changed")
        pairs = (line.split("  ", 1) for line in (listed or own).splitlines())
        return {name: each for each, name in pairs}

    path = folder / DIGESTS
    return files.read(path, parse, remedy=remedy) if path.exists() else {}


def read_listed(
    folder: Path,
    name: str,
    digests: Mapping[str, str],
    parse: Callable[[bytes], T],
    *,
    remedy: str,
) -> T:
    """What `parse` makes of a file, which has to be the listed one if `digests` names it.

    Raises UserError naming the file if it is missing, another, or damaged.
    """

    def parse_same(content: bytes) -> T:
        if name in digests and digest(content) != digests[name]:
            raise ValueError(f"damaged or changed, its SHA-256 is not the one in {DIGESTS}")
        return parse(content)

    return files.read(folder / name, parse_same, remedy=remedy)


def faults(folder: Path, *, remedy: str) -> list[str]:
    """A line for every listed file of a folder that is missing or another, [] if all is well.

    A listed list is gone through as well.  remedy: the end of each line.
    """

    def fault_of(name: str) -> list[str]:
        try:
            _ = read_listed(folder, name, listed, len, remedy=remedy)
        except UserError as error:
            return [str(error)]
        return faults((folder / name).parent, remedy=remedy) if name.endswith(f"/{DIGESTS}") else []

    try:
        listed = read_digests(folder, remedy=remedy)
    except UserError as error:
        return [str(error)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [line for lines in pool.map(fault_of, listed) for line in lines]
