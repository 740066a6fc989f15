"""Where a store's files are, for reading: a local folder, or any fsspec URL. Links inside a store are not followed.

    storage = open_storage("s3://bucket/store")
    storage.read_range("part-00000-....parquet", start=4, size=1000)

How a local store is written is in `files.py` and `encoding.py`, one at a URL in `remote.py`.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import fsspec

from ae_pipeline.errors import (
    ConfigError,
    LinkedStoreError,
    PipelineError,
    StoreError,
    UnreachableError,
    first_line,
    without_secrets,
)

_BLOCK = 8 << 20
# How DVC calls a file in its cache, wherever that is.
_CACHED = re.compile(r"(^|/)[0-9a-f]{2}/[0-9a-f]{30}$")


class Storage(Protocol):
    """Files below one place, by name.

    Raises FileNotFoundError for a name that is not there; OSError for the rest if it is a folder, UnreachableError if
    it is a URL: that a network fails says nothing about the files.
    """

    @property
    def location(self) -> str:
        """Path or URL, for messages."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file."""
        ...

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`: fewer where the file ends."""
        ...

    def names(self) -> list[str]:
        """All files, also in sub-folders (`_codec/codec.json`), sorted; none if the place does not exist."""
        ...


class LocalStorage:
    """A folder."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.path)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._file(name).stat().st_size

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`."""
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
        """All files, sorted."""
        return sorted(name for name, entry in self._entries() if not entry.is_dir())

    def links(self) -> list[str]:
        """All that are links, files and folders, sorted."""
        return sorted(name for name, entry in self._entries() if entry.is_symlink())

    def _entries(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        """All that is in the folder and the folders in it; links are not followed. Asks the disk for lists alone."""
        folders = [""]
        while folders:
            inside = folders.pop()
            with (
                suppress(FileNotFoundError, NotADirectoryError, PermissionError),
                os.scandir(self.path / inside) as entries,
            ):
                for entry in entries:
                    yield inside + entry.name, entry
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{inside}{entry.name}/")


class RemoteStorage:
    """Any fsspec URL. Nothing is cached: what others have written since is seen."""

    def __init__(self, url: str):
        self.location = without_secrets(url).rstrip("/")
        try:
            self.files, base = fsspec.core.url_to_fs(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{self.location} cannot be opened: {first_line(error)}; install what this kind of URL needs "
                "(for s3: pip install 'ae-pipeline[s3]'), or give a folder"
            ) from None
        self.base = str(base).rstrip("/")

    def path(self, name: str) -> str:
        """What the file system calls a file."""
        return f"{self.base}/{name}"

    def size(self, name: str) -> int:
        """Bytes of a file."""
        found = self.info(name)["size"]
        if found is None:
            raise UnreachableError(f"{place_of(self, name)}: its server does not say how large it is; copy the store")
        return int(found)

    def info(self, name: str) -> dict[str, Any]:
        """What the file system knows of a file: `size`, and of an object in S3 also its `ETag`."""
        with self.reaching():
            self.files.invalidate_cache()
            found = self.files.info(self.path(name))
        if found.get("type") != "file":  # object stores take the start of other names for a folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place_of(self, name))
        return dict(found)

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`."""
        if not size:
            return b""
        try:
            with self.reaching():
                return bytes(self.files.cat_file(self.path(name), start=start, end=start + size))
        except UnreachableError:
            if self.size(name) <= start:  # S3 refuses a range that begins where the file ends
                return b""
            raise

    def names(self) -> list[str]:
        """All files, sorted."""
        with self.reaching():
            self.files.invalidate_cache()
            return sorted(str(path).removeprefix(self.base).lstrip("/") for path in self.files.find(self.base))

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Errors of whatever library is behind the URL, as those that callers know."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, PipelineError):
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from None
        except Exception as error:  # each kind of storage has errors of its own
            kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
            raise UnreachableError(
                f"{self.location} cannot be reached: {kind}{first_line(error)}; check its address, the network, your "
                "credentials and what they permit"
            ) from error


def open_storage(place: "Path | str | Storage") -> Storage:
    """The storage behind a path or URL."""
    if isinstance(place, Path) or (isinstance(place, str) and not is_url(place)):
        return LocalStorage(Path(place))
    return RemoteStorage(place) if isinstance(place, str) else place


def as_place(place: Path | str) -> Path | str:
    """Where a store is to be written: a folder, or as text a URL such as s3://bucket/store."""
    if isinstance(place, str) and place.startswith("file://"):
        return Path(place.removeprefix("file://"))
    return place if isinstance(place, Path) or is_url(place) else Path(place)


def is_url(place: Any) -> bool:
    """Whether a place is an fsspec URL, not a path."""
    return "://" in str(place) or "::" in str(place)


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
    """A small file. Raises StoreError if it has more than `most` bytes, before it is read."""
    return storage.read_range(name, 0, _size_at_most(storage, name, most))


def copy_file(storage: Storage, name: str, path: Path, *, most: int) -> None:
    """A file to a local path, block by block. Raises StoreError as `read_whole`."""
    size = _size_at_most(storage, name, most)
    with open(path, "wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(storage.read_range(name, start, min(_BLOCK, size - start)))


def _size_at_most(storage: Storage, name: str, most: int) -> int:
    found = storage.size(name)
    if found > most:
        raise StoreError(f"{place_of(storage, name)} has {found} bytes, expected at most {most}; restore the store")
    return found


def place_of(storage: Storage, name: str) -> str:
    """A file's path or URL, for messages."""
    separator = os.sep if isinstance(storage, LocalStorage) else "/"
    return f"{storage.location}{separator}{name}"
