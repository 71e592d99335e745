"""Has TFDS prepared this data set, can it do so now, and is that what was published?

Nothing here imports TFDS before it is needed: a cached data set is read without it, and one that
cannot be had is refused before TFDS is asked for what it would only fail to get after minutes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.data import cache
from research.data.provenance import PUBLISHED, DataError, Loaded, Unavailable, finish

_CACHE = "arrays.npz"
_PROBE_S = 3.0


@dataclass(frozen=True)
class Recipe:
    """How one data set is made by TFDS.

    dataset: its key in `PUBLISHED`.  version: its folder below the TFDS directory.
    url: a file that a download needs.
    check_files: raises DataError unless the directory holds the files it can be made from.
    advice: where to put which files, if there is no network; `{manual}` is TFDS's own folder.
    builder: imports TFDS and returns the class that makes it.
    """

    dataset: str
    version: str
    url: str
    check_files: Callable[[str | Path], Any]
    advice: str
    builder: Callable[[], Any]


def load(
    recipe: Recipe, tfds_dir: str, directory: str, download: bool, say: Callable[[str], None]
) -> Loaded:
    """The cached arrays, else those of the prepared data set, else those that are prepared now.

    tfds_dir: "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    directory: where the published files lie; "" for `downloads/manual` or the network.
    Raises Unavailable if there is no way to have them, DataError if they are not what they
    should be.
    """
    root = Path(tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    root = root.expanduser()
    version = root / recipe.version
    if not os.path.isdir(version):
        _check_obtainable(recipe, root, directory, download)
    source = f"TFDS {recipe.version} in {root.resolve()}"

    def make() -> Loaded:
        return _prepare_and_read(recipe, root, source, directory, say)

    return cache.cached(
        version / _CACHE,
        make,
        dataset=recipe.dataset,
        source=source,
        lock=version.parent / ".lock",
        say=say,
        sha256=PUBLISHED[recipe.dataset].sha256,
    )


def unreachable(url: str) -> str:
    """Why `url` cannot be fetched, in `_PROBE_S` seconds at most; "" if it can."""
    answers: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PROBE_S):
                answers.append("")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)  # urllib wraps the error of the socket
            answers.append(getattr(reason, "strerror", None) or str(reason) or repr(reason))

    # In a thread of its own, since a name server that does not answer ignores the time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_S)
    return answers[0] if answers else f"no answer within {_PROBE_S:g} s"


def _prepare_and_read(
    recipe: Recipe, root: Path, source: str, directory: str, say: Callable[[str], None]
) -> Loaded:
    from research.data import tfds_store

    published = PUBLISHED[recipe.dataset]
    version = root / recipe.version
    if not os.path.isdir(version):
        manual = Path(directory).expanduser() if directory else None
        say(f"preparing {published.name} in {root} (once)")
        tfds_store.prepare(recipe.builder(), root, manual)
    say(f"reading {published.name} back from {version} (once, a few seconds)")
    arrays = tfds_store.read(version, recipe.dataset)
    digest = version / tfds_store.DIGEST
    expected = published.sha256 or (digest.read_text() if os.path.isfile(digest) else "")
    pixels = "published" if expected else "unknown"
    loaded = finish(recipe.dataset, arrays, source, pixels)
    if expected and loaded[2].sha256 != expected:
        raise DataError(
            f"{version} does not hold {published.name} as published (the checksum differs); "
            f"delete this directory and {published.name} will be prepared again"
        )
    return loaded


def _check_obtainable(recipe: Recipe, root: Path, directory: str, download: bool) -> None:
    if directory:
        recipe.check_files(directory)
        return
    manual = root / "downloads" / "manual"
    with contextlib.suppress(DataError):
        recipe.check_files(manual)
        return
    reason = unreachable(recipe.url) if download else "not allowed"
    if reason:
        raise Unavailable(
            f"the full {PUBLISHED[recipe.dataset].name} is not in {root}, and it cannot be "
            f"downloaded ({reason}); {recipe.advice.format(manual=manual)}"
        )
