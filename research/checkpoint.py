"""States on disk that can be trusted: Orbax, with a digest of every array.

Orbax writes atomically but does not notice a flipped bit in an array. Here the SHA-256 of every
leaf is saved with the state and compared when it is read; a checkpoint that fails is passed over
for the one before it.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from research.types import PyTree, UserError

_TRASH = "trash"


def digests(tree: PyTree) -> dict[str, str]:
    """{path of leaf: SHA-256 over its type, shape and bytes}."""
    found: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
        found[jax.tree_util.keystr(path)] = digest.hexdigest()
    return found


class Checkpoints:
    """The newest states of one run, in `directory`, numbered by epoch.

    Saving goes on in the background; leaving the `with` block waits for it.
    """

    def __init__(self, directory: Path, *, keep: int = 3) -> None:
        # A state is renamed into the trash before it is deleted, since a kill in the middle of
        # deleting would leave a half that is still listed; Orbax never empties the trash.
        shutil.rmtree(directory / _TRASH, ignore_errors=True)
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            todelete_subdir=_TRASH,
            cleanup_tmp_directories=True,
            preservation_policy=checkpoint_managers.LatestN(keep),
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._manager.close()
        except Exception as failure:
            if error is None:
                raise self._cannot_write(failure) from failure

    def save(self, epoch: int, state: PyTree) -> None:
        """Save the arrays of `state` as those of `epoch`, replacing what stands there.

        Raises UserError if the disk refuses, now or for the state saved before.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), digest=ocp.args.JsonSave(digests(state))
        )
        try:
            # A later epoch can only be one that was passed over as damaged, or was cut back.
            for later in [step for step in self._manager.all_steps() if step >= epoch]:
                self._manager.delete(later)
                # Its number will be trashed once more, and Orbax does not overwrite what is there.
                shutil.rmtree(self._directory / _TRASH / str(later), ignore_errors=True)
            saved = self._manager.save(epoch, args=items, force=True)
        except Exception as failure:
            raise self._cannot_write(failure) from failure
        if not saved:
            raise UserError(f"{self._directory}: Orbax did not save epoch {epoch}")

    def restore_newest(
        self, template: PyTree, *, say: Callable[[str], None], usable: Callable[[int], bool]
    ) -> tuple[int, PyTree] | None:
        """The newest (epoch, state) whose digests hold and that `usable` accepts, else None.

        template: tree of arrays or ShapeDtypeStruct.  Every state passed over is said with the
        reason.  Raises UserError when there are states but none can be used: nothing is deleted.
        """
        epochs = sorted(self._manager.all_steps(), reverse=True)
        for epoch in epochs:
            try:
                state = self._restore(epoch, template)
            except Exception as failure:  # Orbax has no common class for what damage raises
                say(
                    f"checkpoint {epoch} in {self._directory} is damaged, trying the one before "
                    f"it: {_first_line(failure)}"
                )
                continue
            if usable(epoch):
                return epoch, state
            say(
                f"checkpoint {epoch} in {self._directory} is ahead of the records, trying the "
                "one before it"
            )
        if epochs:
            raise UserError(
                f"{self._directory}: none of the checkpoints {epochs} can be used; delete the "
                "work directory to start anew, or give another --workdir"
            )
        return None

    def _restore(self, epoch: int, template: PyTree) -> PyTree:
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), template)
        restored = self._manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), digest=ocp.args.JsonRestore()
            ),
        )
        state = jax.tree.map(np.asarray, restored["state"])
        found, expected = digests(state), restored["digest"]
        wrong = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
        if wrong:
            raise ValueError(f"the digest of {wrong[0]} differs")
        return state

    def _cannot_write(self, failure: Exception) -> UserError:
        free = shutil.disk_usage(self._directory).free
        return UserError(
            f"cannot write a checkpoint to {self._directory} "
            f"({free / 2**20:.0f} MiB free): {_first_line(failure)}"
        )


def _first_line(failure: Exception) -> str:
    """What went wrong, without the stack traces that Orbax puts into its messages."""
    return (str(failure).strip() or repr(failure)).splitlines()[0][:200]
