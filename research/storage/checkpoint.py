"""Checkpoints: Orbax, with the records of the epochs done and a SHA-256 of every array.

state      the arrays of a training                                          as Orbax has them
records    the files of the run that grow, as they are after this epoch      {name: its bytes}
digest     a SHA-256 of every array of the other two, which run and epoch    JSON

Orbax writes atomically but does not notice a flipped bit in an array. The digests are compared when
a checkpoint is read, and so are the epoch, by which it is named, and the run: a checkpoint that is
damaged, or a copy of another, is passed over for the one before it.

A state is whole and the same in every process of a run, so that any number of processes can go on
with it. Orbax writes NumPy arrays from the first process only; its manager runs there only as well,
because the processes of a shared manager wait for one another, also for one that could not write.

`Checkpoints` writes, for the one run that holds the work directory. `restore_newest` reads, of any
run at any time, also of one that is being trained: it lists the directory by itself and changes
nothing in it, whereas a manager of Orbax removes what is not finished. Every process reads a state
and compares the digests, and all agree which one to use.

On a disk a state is the directory that Orbax writes. In an object store (`runtime.files`) it is one
object, `<epoch>.tar.gz`, of that directory, which appears and disappears as a whole. Orbax by
itself can write to gs://, with another package and a marker file for a complete directory, but not
to s3://.
"""

import contextlib
import gzip
import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from research.runtime import distributed, files
from research.structs import PyTree, UserError, one_line

_TRASH = "trash"
_MOST_CHANGES = 50  # of a directory while a state in it is read
_PACKED = ".tar.gz"  # its checksum shows damage before Orbax meets it


def by_itself() -> ocp.options.MultiprocessingOptions:
    """Options of Orbax for this process by itself, without waiting for the others of its run."""
    if distributed.is_single():
        return ocp.options.MultiprocessingOptions()
    own = distributed.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def digests(tree: PyTree) -> dict[str, str]:
    """{path of leaf: SHA-256 over its type, shape and bytes}."""
    result: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
        result[jax.tree_util.keystr(path)] = digest.hexdigest()
    return result


class Checkpoints:
    """Writes the newest states of one run, in `directory`, numbered by epoch.

    run: what tells the run from others, JSON-able.  keep: how many.  Saving goes on in the
    background, except to an object store; leaving the `with` block waits for it.  All methods are
    collective.  For the process that holds the lock of the work directory
    (`run_directory.locked`): what an earlier one left unfinished is removed.
    """

    def __init__(self, directory: Path, run: Mapping[str, Any], *, keep: int = 3) -> None:
        self._run, self._keep = run, keep
        self._store = directory if files.stored(directory) else None
        self._here = tempfile.TemporaryDirectory() if self._store else None
        self._directory = Path(self._here.name if self._here else directory.absolute())
        self._shown = directory
        self._manager: ocp.CheckpointManager | None = None
        _ = jax.devices()  # waits for all processes at its first call, and `_open` runs in one
        distributed.broadcast_from_first(self._open)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        def close() -> None:
            try:
                self._writer.close()
                files.sync_folder(self._directory)
            except Exception as failure:
                raise self._cannot_write(failure) from failure

        try:
            if error is None:
                distributed.broadcast_from_first(close)
            elif distributed.is_first():  # the others may have failed as well, or be far behind
                with contextlib.suppress(UserError):
                    close()
        finally:
            if self._here:
                self._here.cleanup()

    def save(self, epoch: int, state: PyTree, records: Mapping[str, bytes]) -> None:
        """Save the arrays of `state` as those of `epoch`, in place of an earlier save.

        state: whole and the same in every process.  records: {name: content} of the files that hold
        what is known of the epochs up to this one, of the first process.  Raises UserError, in
        every process, if the disk or the object store refuses, now or for the state saved before.
        """
        distributed.broadcast_from_first(lambda: self._save(epoch, state, records))

    def _open(self) -> None:
        files.check_held(self._shown)
        # A state is renamed into the trash before it is deleted, since a kill in the middle of
        # deleting would leave a half that is still listed; Orbax never empties the trash.
        shutil.rmtree(self._directory / _TRASH, ignore_errors=True)
        files.make_folder(self._directory)
        options = ocp.CheckpointManagerOptions(
            create=False,
            todelete_subdir=_TRASH,
            cleanup_tmp_directories=True,
            preservation_policy=checkpoint_managers.LatestN(self._keep),
            enable_async_checkpointing=True,
            multiprocessing_options=by_itself(),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    @property
    def _writer(self) -> ocp.CheckpointManager:
        assert self._manager is not None, "only the first process writes"
        return self._manager

    def _save(self, epoch: int, state: PyTree, records: Mapping[str, bytes]) -> None:
        state = jax.tree.map(np.asarray, state)
        arrays = {name: np.frombuffer(content, np.uint8) for name, content in records.items()}
        sums = {"state": digests(state), "records": digests(arrays)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            records=ocp.args.StandardSave(arrays),
            digest=ocp.args.JsonSave({**sums, "run": {**self._run, "epoch": epoch}}),
        )
        files.check_held(self._shown)
        try:
            # A later epoch can only be one that was passed over as damaged, or was cut back.
            for later in [step for step in self._writer.all_steps() if step >= epoch]:
                self._writer.delete(later)
                # Its number will be trashed once more, and Orbax does not overwrite what is there.
                shutil.rmtree(self._directory / _TRASH / str(later), ignore_errors=True)
            saved = self._writer.save(epoch, args=items, force=True)
            if saved and self._store is not None:
                self._publish(self._store, epoch)
        except Exception as failure:
            raise self._cannot_write(failure) from failure
        if not saved:
            raise UserError(f"{self._shown}: Orbax did not save epoch {epoch}")

    def _publish(self, store: Path, epoch: int) -> None:
        """Put the state of `epoch` into the object store, and delete there what is not kept."""
        self._writer.wait_until_finished()
        before = [epoch for epoch, *_ in _steps(store)]
        for later in [number for number in before if number > epoch]:
            files.remove(store / f"{later}{_PACKED}")
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as packed:
            packed.add(self._directory / str(epoch), arcname=str(epoch))
        packed_up = gzip.compress(content.getvalue(), compresslevel=1, mtime=0)
        files.replace(store / f"{epoch}{_PACKED}", packed_up)
        earlier = [number for number in before if number < epoch]
        for number in earlier[self._keep - 1 :]:
            files.remove(store / f"{number}{_PACKED}")

    def _cannot_write(self, failure: Exception) -> UserError:
        free = shutil.disk_usage(self._directory).free
        left = "" if self._store else f" ({free / 2**20:.0f} MiB free)"
        return UserError(f"cannot write a checkpoint to {self._shown}{left}: {one_line(failure)}")


class Restored(NamedTuple):
    """A checkpoint: its epoch, the state as NumPy arrays, and {name: content} of the records."""

    epoch: int
    state: PyTree
    records: dict[str, bytes]


def restore_newest(
    directory: Path, run: Mapping[str, Any], template: PyTree, *, say: Callable[[str], None]
) -> Restored | None:
    """The newest checkpoint in `directory` that is whole and of its epoch and of this run.

    None if there is none at all.  Nothing is written.  A checkpoint that its training removes or
    replaces while it is read is not damaged: the directory is listed again.  Collective.

    run: as `Checkpoints` had it.  template: tree of arrays or ShapeDtypeStruct.  say: prints a
    line, for every checkpoint passed over with the reason.
    Raises UserError when there are checkpoints but none can be used, and when they change faster
    than they can be read.
    """
    passed_over: list[list[int]] = []
    changes = 0
    while True:
        steps = distributed.broadcast_from_first(lambda: _steps(directory))
        step = next((each for each in steps if each not in passed_over), None)
        if step is None:
            break
        restored, fault, epoch = None, "", step[0]
        try:
            restored = _restore(directory, run, epoch, template)
        except Exception as failure:  # Orbax has no common class for what damage raises
            fault = one_line(failure)
        if distributed.max_over_processes(1 if fault else 0):
            if step not in distributed.broadcast_from_first(lambda: _steps(directory)):
                changes += 1
                if changes == _MOST_CHANGES:
                    raise UserError(
                        f"{directory}: its training replaces the states faster than they can be "
                        f"read ({changes} attempts); try again when it is done"
                    )
                continue
            reason = fault or "another process cannot read it"
            say(f"checkpoint {epoch} in {directory} is damaged, trying the one before it: {reason}")
            passed_over.append(step)
        else:
            return restored
    if steps:
        epochs = [epoch for epoch, *_ in steps]
        raise UserError(
            f"{directory}: none of the checkpoints {epochs} can be used; nothing was changed: put "
            "back a copy of one if there is, or give another --workdir to start from the beginning"
        )
    return None


def _steps(directory: Path) -> list[list[int]]:
    """[epoch, inode, time of change] of every whole state in `directory`, the newest epoch first.

    The last two tell it from a later state of the same epoch; 0 in a store.
    """
    steps: list[list[int]] = []
    if files.stored(directory):  # an object appears and is replaced as a whole
        names = [path.name for path in directory.iterdir()] if directory.exists() else []
        stems = [name.removesuffix(_PACKED) for name in names if name.endswith(_PACKED)]
        steps = [[int(stem), 0, 0] for stem in stems if stem.isdecimal()]
    elif directory.is_dir():  # Orbax renames a directory to its number when all is in it
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # removed since the listing
                if path.name.isdecimal():
                    status = path.stat()
                    steps.append([int(path.name), status.st_ino, status.st_mtime_ns])
    return sorted(steps, reverse=True)


def _restore(directory: Path, run: Mapping[str, Any], epoch: int, template: PyTree) -> Restored:
    """The checkpoint of an epoch.  Raises whatever damage makes Orbax raise."""
    if not files.stored(directory):
        return _read(directory.absolute() / str(epoch), run, epoch, template)
    packed_up = (directory / f"{epoch}{_PACKED}").read_bytes()
    content = io.BytesIO(gzip.decompress(packed_up))
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=content) as packed:
            packed.extractall(folder, filter="data")
        return _read(Path(folder) / str(epoch), run, epoch, template)


def _read(folder: Path, run: Mapping[str, Any], epoch: int, template: PyTree) -> Restored:
    """The checkpoint in a directory that Orbax has written.

    Raises ValueError for another run or epoch, and for a digest that differs.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), template)
    items = ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract),
        records=ocp.args.StandardRestore(),
        digest=ocp.args.JsonRestore(),
    )
    if not (folder / "records").exists():
        raise ValueError("it holds no records of the epochs done, as those of earlier versions")
    handler = ocp.CompositeCheckpointHandler()
    with ocp.Checkpointer(handler, multiprocessing_options=by_itself()) as reader:
        restored = reader.restore(folder, args=items)
    sums = restored["digest"]
    own, wanted = sums.get("run", {}), {**run, "epoch": epoch}
    if differing := sorted(key for key in wanted if own.get(key) != wanted[key]):
        raise ValueError(f"it is of another run or epoch, by its {differing[0]}")
    state, contents = (jax.tree.map(np.asarray, restored[item]) for item in ("state", "records"))
    for item, tree in (("state", state), ("records", contents)):
        actual, saved = digests(tree), sums.get(item, {})
        for name in sorted(actual.keys() | saved.keys()):
            if actual.get(name) != saved.get(name):
                raise ValueError(f"the digest of {name} differs")
    return Restored(epoch, state, {name: each.tobytes() for name, each in contents.items()})
