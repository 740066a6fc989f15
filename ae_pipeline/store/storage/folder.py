"""Where a store's files are, for reading and writing: `Storage`, and a local folder. `url.py` has the other one.

    storage = open_storage("s3://bucket/store")                        # place.py: the kind is decided here, once
    storage.read_range("part-00000-....parquet", start=4, size=1000)
    storage.create("_snapshots/1.json", data)                          # False if there is one
    storage.replace("_manifest.json", data, tag)                       # False if it is not the one with this tag

Every file appears whole or not at all. Links inside a store are not followed.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from ae_pipeline.errors import LinkedStoreError, StoreError, TargetError
from ae_pipeline.files import (
    finished_file,
    is_free,
    locked_folder,
    make_folder,
    refuse_existing,
    rename_folder,
    require_one_file_system,
    sync_folder,
)
from ae_pipeline.store.storage.work_folder import partial_folder

_BLOCK = 8 << 20
# Looks at a file that is replaced again and again while it is read.
_TRIES = 20
# Folders that are gone, or that may not be looked into, hold nothing that could be used.
_UNSEEN = (FileNotFoundError, NotADirectoryError, PermissionError)
# How DVC calls a file in its cache, wherever that is.
_CACHED = re.compile(r"(^|/)[0-9a-f]{2}/[0-9a-f]{30}$")
# How folders inside a store are called.
_FOLDER = re.compile(r"_\w+")
# How `finished_file` calls what it has not finished.
_TEMPORARY = re.compile(r"(_\w+/)?\.[^/]*\.tmp$")


class Storage(Protocol):
    """Files below one place, by name.

    Raises FileNotFoundError for a name that is not there; OSError for the rest if it is a folder, UnreachableError if
    it is a URL: that a network fails says nothing about the files.
    """

    location: str
    """Path or URL, for messages."""
    shared: bool
    """Whether several writers work here at a time, each of which brings its files one by one. Otherwise a writer has
    the place to itself, and brings all that it made in one go."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Read at most `size` bytes from `start`: fewer where the file ends."""

    def names(self) -> list[str]:
        """All files, also in sub-folders (`_codec/codec.json`), sorted; none if the place does not exist.

        Raises LinkedStoreError for a link into DVC's cache.
        """

    def tag(self, name: str) -> str:
        """What tells a file's bytes from those that it had or will have, for `replace`."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name; reading one that is out of reach says why."""
        try:
            self.size(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def holds(self, name: str, data: bytes) -> bool:
        """Whether a file has just these bytes."""
        return self.read_range(name, 0, len(data) + 1) == data

    # Writing.

    def refuse_taken(self, marker: str) -> None:
        """Raise TargetError if there is a store here, by its file `marker`, or none can be made."""

    def locked(self) -> AbstractContextManager[list[str] | None]:
        """Have the place to oneself, with the names of all files; None if it is shared. Raises TargetError if another
        run has it, StoreError for links inside.
        """

    def work_folder(self, work: Path | None, key: str) -> AbstractContextManager[Path]:
        """A folder on this machine where files are made, in `work` if that is given.

        `key` is a digest of what they are made from: for a store in a folder, what an interrupted run with the same key
        has left is in it. Raises TargetError if another run has it, or nothing can be moved from there.
        """

    def fetch(self, name: str, path: Path) -> bool:
        """Bring a file to a local path, out of a folder for good; False if there is none."""

    def create(self, name: str, source: bytes | Path) -> bool:
        """Make a file of bytes or a local file; False, and nothing is changed, if there is one."""

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Replace a file if it is still the one with this tag; False, and nothing is changed, if it is not."""

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""

    def bring(self, folder: Path, names: list[str]) -> None:
        """Move the named files here from a work folder, and remove that; if shared, they have come already."""

    def publish(self, folder: Path, marker: str) -> bool:
        """Make a new store of a work folder, by its file `marker`; False if another writer was faster."""


class LocalStorage(Storage):
    """A folder. One writer at a time has it, by a lock. Its new stores are made beside it, and get its name."""

    shared = False

    def __init__(self, path: Path):
        self.path, self.location = path, str(path)

    def size(self, name: str) -> int:
        return self._file(name).stat().st_size

    def read_range(self, name: str, start: int, size: int) -> bytes:
        with open(self._file(name), "rb") as file:
            file.seek(start)
            return file.read(size)

    def _file(self, name: str) -> Path:
        """A regular file below the folder: a link could lead anywhere, and a pipe would be waited for."""
        path = self.path
        for part in name.split("/"):
            path /= part
            if path.is_symlink():
                refuse_cache_link(path)
                raise OSError("is a link; the files of a store must lie in it")
        if path.exists() and not path.is_file():
            raise OSError("is no regular file")
        return path

    def names(self) -> list[str]:
        # A link may lead in a circle: of that, `Path` makes no error.
        return sorted(name for name, link in self._entries() if link is None or not link.is_dir())

    def own_names(self) -> list[str]:
        """All files, for who is to change some. Raises StoreError if a folder is a link: they are somewhere else."""
        names = []
        for name, link in self._entries():
            if link is not None and _FOLDER.fullmatch(name):
                found = "is a link; the files of a store must lie in it"
                raise StoreError(found, place=self.path / name, advice="put the folder there")
            names.append(name)
        return names

    def _entries(self) -> Iterator[tuple[str, Path | None]]:
        """All files and links below the folder; of a link, its path, too. Quick: little is asked of a million files."""
        folders = [""]
        while folders:
            inside = folders.pop()
            with suppress(*_UNSEEN), os.scandir(self.path / inside) as entries:
                for entry in entries:
                    name = inside + entry.name
                    if entry.is_file(follow_symlinks=False):
                        yield name, None
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif entry.is_symlink():
                        refuse_cache_link(Path(entry))
                        yield name, Path(entry)
                    else:
                        yield name, None

    def tag(self, name: str) -> str:
        # Every file is a new one that is renamed: no digest of 100 MB is needed to tell it from others.
        found = self._file(name).stat()
        return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"

    def refuse_taken(self, marker: str) -> None:
        refuse_existing(self.path)
        for folder in self.path.resolve().parents:
            if LocalStorage(folder).exists(marker):
                raise TargetError(f"{self.path} lies inside the store {folder}; choose a target outside it")

    def temporary(self) -> list[str]:
        """Files that were being written when a writer was cut off; or are, by who has the lock."""
        return [name for name in self.names() if _TEMPORARY.match(name)]

    @contextmanager
    def locked(self) -> Iterator[list[str]]:
        """Lock the folder, and remove temporary files that writers who were cut off have left."""
        with locked_folder(self.path):
            names = self.own_names()
            for name in names:
                if name.endswith(".tmp") and _TEMPORARY.match(name):  # the first is quick with a million names
                    self.remove(name)
            yield names

    @contextmanager
    def work_folder(self, work: Path | None, key: str) -> Iterator[Path]:
        """A folder on the same file system; what is in it when a writer fails is kept if there are parts."""
        make_folder(self.path.parent)
        with locked_folder(partial_folder(self.path, work, key)) as folder:
            try:
                require_one_file_system(folder, self.path.parent)
                yield folder
            except BaseException:
                if not any(folder.glob("part-*")):
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    def fetch(self, name: str, path: Path) -> bool:
        left = self.path / name
        if not left.is_file() or left.is_symlink():
            return False
        os.replace(left, path)
        return True

    def create(self, name: str, source: bytes | Path) -> bool:
        # The lock lets nobody else do so between looking and writing.
        if os.path.lexists(self.path / name):
            return False
        with finished_file(self.path / name) as temporary:
            temporary.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        sync_folder(self.path)  # where its folder is new
        return True

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        if self.tag(name) != tag:
            return False
        with finished_file(self.path / name) as temporary:
            temporary.write_bytes(data)
        return True

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def bring(self, folder: Path, names: list[str]) -> None:
        for inside in {str(PurePosixPath(name).parent) for name in names} - {"."}:
            make_folder(self.path / inside)
        for name in names:
            try:
                os.replace(folder / name, self.path / name)
            except OSError as error:
                raise TargetError(
                    f"cannot move {folder / name} into {self.path}: {error.strerror}; choose a work folder on the same "
                    "file system"
                ) from None
        for inside in sorted({str(PurePosixPath(name).parent) for name in names} - {"."}):
            sync_folder(self.path / inside)
        sync_folder(self.path)
        shutil.rmtree(folder)
        sync_folder(folder.parent)

    def publish(self, folder: Path, marker: str) -> bool:  # noqa: ARG002 (it is in the folder)
        try:
            rename_folder(folder, self.path)
        except TargetError:
            if not is_free(self.path):  # somebody else's store has the name now: this work is of no use
                shutil.rmtree(folder)
            raise
        return True


def refuse_cache_link(path: Path) -> None:
    """Raise LinkedStoreError for a link into DVC's cache, which DVC makes of every file with `cache.type symlink`.

    It is not followed either: where a cache is, a stranger's store could say as well. DVC puts files in its place.
    """
    if path.is_symlink() and _CACHED.search(str(path.readlink())):
        raise LinkedStoreError(
            f"{path} is a link into DVC's cache, and links inside a store are not followed; nothing is damaged: in the "
            "DVC repository run `dvc config cache.type reflink,hardlink,copy`, then `dvc checkout --relink`, which "
            "puts the files themselves there; then run the same command again"
        )


def read_whole(storage: Storage, name: str, *, most: int) -> bytes:
    """A small file. Raises StoreError if it has more than `most` bytes, before it is read, or never its stated size."""
    for _ in range(_TRIES):
        size = _size_at_most(storage, name, most)
        data = storage.read_range(name, 0, size + 1)
        if len(data) == size:  # else another file has taken its place meanwhile
            return data
    found = f"has another size than is said of it: {size:,} bytes were expected, {len(data):,} read last"
    raise StoreError(found, place=place_of(storage, name), advice="read it again when nobody writes to the store")


def copy_file(storage: Storage, name: str, path: Path, *, most: int) -> None:
    """A file to a local path, block by block. Raises StoreError as `read_whole`."""
    size = _size_at_most(storage, name, most)
    with open(path, "wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(storage.read_range(name, start, min(_BLOCK, size - start)))


def _size_at_most(storage: Storage, name: str, most: int) -> int:
    found = storage.size(name)
    if found > most:
        where = place_of(storage, name)
        raise StoreError(f"has {found} bytes, expected at most {most}", place=where, advice="restore the store")
    return found


def place_of(storage: Storage, name: str) -> str:
    """A file's path or URL, for messages."""
    separator = os.sep if isinstance(storage, LocalStorage) else "/"
    return f"{storage.location}{separator}{name}"
