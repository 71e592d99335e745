"""An object store on this disk, in place of gs:// and s3://: `install(folder)`.

It has what those have and lacks what they lack: objects that appear whole when they are closed,
buckets that somebody has made, prefixes instead of folders; no appending, no renaming, no lock.
What is above it is the true code, fsspec and `etils.epath` included. What is not tested with it:
networks, credentials, and the packages gcsfs and s3fs themselves.
"""

import io
import os
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import fsspec
from fsspec.implementations.memory import MemoryFile
from fsspec.spec import AbstractFileSystem

from research.runtime import files

FOLDER = "OBJECT_STORE"  # variable of the environment: where the objects lie, one file each
BUCKET = "bucket"


class ObjectStore(AbstractFileSystem):
    """gs:// and s3://: one file on the disk for each object, its name quoted."""

    protocol = ("gs", "gcs", "s3")
    cachable = False

    @property
    def folder(self):
        return Path(os.environ[FOLDER])  # `etils.epath` keeps the first store of a process

    def _objects(self):
        return sorted(unquote(file.name) for file in self.folder.iterdir())

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path)
        found = {}
        for name in self._objects():
            if name == path and path != BUCKET:
                found[name] = {"name": name, "size": self._file(name).stat().st_size}
                found[name]["type"] = "file"
            elif name.startswith(f"{path}/"):
                inner, deeper, _ = name[len(path) + 1 :].partition("/")
                child = f"{path}/{inner}"
                size = 0 if deeper else self._file(child).stat().st_size
                kind = "directory" if deeper else "file"
                found[child] = {"name": child, "size": size, "type": kind}
        if not found and path != BUCKET:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def info(self, path, **_):
        path = self._strip_protocol(path)
        if path != BUCKET and path in self._objects():
            return {"name": path, "size": self._file(path).stat().st_size, "type": "file"}
        if path == BUCKET or any(name.startswith(f"{path}/") for name in self._objects()):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _open(self, path, mode="rb", **_):
        if mode == "rb":
            try:
                return io.BytesIO(self._file(path).read_bytes())
            except FileNotFoundError:
                raise FileNotFoundError(path) from None
        if mode != "wb":
            raise NotImplementedError(f"an object is read or written as a whole, not {mode!r}")
        if path.partition("/")[0] != BUCKET:
            raise FileNotFoundError(f"no bucket {path.partition('/')[0]}")
        return _Upload(self, path)

    def _file(self, path):
        return self.folder / quote(path, safe="")

    def _rm(self, path):
        self._file(path).unlink()

    def rm(self, path, recursive=False, maxdepth=None):
        for each in self.find(path) if recursive else [self._strip_protocol(path)]:
            self._rm(each)

    def mkdir(self, path, **_):
        raise PermissionError(f"nobody has allowed a bucket for {path}")

    makedirs = mkdir

    def cp_file(self, path1, path2, **_):
        raise NotImplementedError("renaming is copying and deleting")


class _Upload(MemoryFile):
    """An object that is there when it is closed."""

    def __init__(self, store, path):
        super().__init__(store, path)
        self._store, self._name, self._sent = store, path, False

    def close(self):
        if not self._sent:
            self._sent = True
            file = self._store._file(self._name)
            temporary = file.with_name(f"~{file.name}")
            temporary.write_bytes(self.getvalue())
            temporary.rename(file)

    def __exit__(self, *_):
        self.close()


def install(folder, monkeypatch):
    """Make a bucket, its objects in `folder`, for gs:// and s3://; returns a directory in it."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv(FOLDER, str(folder))
    register()
    return files.locate(f"s3://{BUCKET}/runs/one")


def register():
    """Let gs:// and s3:// be the objects in the folder that the environment names."""
    for scheme in ObjectStore.protocol:
        fsspec.register_implementation(scheme, ObjectStore, clobber=True)


if __name__ == "__main__":  # python tests/object_store.py --config=...: a run with the stand-in
    register()
    from absl import app

    from research import main

    app.run(main.main, argv=sys.argv, flags_parser=main.parse_flags)
