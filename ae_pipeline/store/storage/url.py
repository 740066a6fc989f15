"""A store's files at a URL: S3, and servers that speak like it.

    files = RemoteStorage("s3://bucket/store")
    files.create("_codec/codec.json", data)                           # False if there is one
    files.replace("_manifest.json", new, files.tag("_manifest.json")) # False if somebody else was faster

The server decides, in one request (PutObject with If-None-Match or If-Match), so there is no moment between looking
and writing. Every file appears whole or not at all; an upload in several requests appears with the last one.
"""

import errno
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ae_pipeline.errors import ConfigError, PipelineError, TargetError, UnreachableError, first_line, without_secrets
from ae_pipeline.files import finished_file, make_folder
from ae_pipeline.store.storage.folder import Storage, copy_file, place_of

_WRITTEN = ("s3", "s3a")
# Tests read from these. Nobody has tried others.
_READ = (*_WRITTEN, "memory", "local")
_REFUSALS = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"}
_UPLOAD_BYTES = 16 << 20
_UPLOADS = 4
_MOST_UPLOADS = 9_000  # S3 takes 10,000 for one file
_WRITER = "ae-pipeline-writer"


class RemoteStorage(Storage):
    """Files at a URL. Nothing is cached: what others have written since is seen."""

    shared = True

    def __init__(self, url: str):
        self.location = without_secrets(url).rstrip("/")
        self._kind = url.partition("::")[0].partition("://")[0]
        if self._kind not in _READ:
            raise ConfigError(
                f"{self.location} cannot be opened: a store is kept in a folder or at s3://, and not at "
                f"{self._kind}://, where nobody has tested it; copy it to one of these, and give that"
            )
        import fsspec

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
        return int(self._info(name)["size"])

    def _info(self, name: str) -> dict[str, Any]:
        """What the file system knows of a file: `size`, and of an object in S3 also its `ETag`."""
        with self._reaching():
            self.files.invalidate_cache()
            found = self.files.info(self.path(name))
        if found.get("type") != "file":  # object stores take the start of other names for a folder
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place_of(self, name))
        return dict(found)

    def read_range(self, name: str, start: int, size: int) -> bytes:
        if not size:
            return b""
        try:
            with self._reaching():
                return bytes(self.files.cat_file(self.path(name), start=start, end=start + size))
        except UnreachableError:
            if self.size(name) <= start:  # S3 refuses a range that begins where the file ends
                return b""
            raise

    def names(self) -> list[str]:
        with self._reaching():
            self.files.invalidate_cache()
            return sorted(str(path).removeprefix(self.base).lstrip("/") for path in self.files.find(self.base))

    def tag(self, name: str) -> str:
        return str(self._info(name)["ETag"])

    def refuse_taken(self, marker: str) -> None:
        with self.locked():
            if self.exists(marker):
                raise TargetError(f"{self.location} exists already; choose another target, or remove it first")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No lock: the server lets one manifest through. Raises TargetError for a kind of URL where it would not."""
        if self._kind not in _WRITTEN:
            raise TargetError(
                f"{self.location}: a store is written into a folder or at s3://, and not at {self._kind}://, where two "
                "writers could spoil it; choose one of these, and copy the store from there"
            )
        yield

    @contextmanager
    def work_folder(self, work: Path | None, key: str) -> Iterator[Path]:  # noqa: ARG002 (names what is left: nothing)
        # A run that is taken up again downloads what was uploaded: nothing needs to stay here.
        if work:
            make_folder(work)
        with tempfile.TemporaryDirectory(prefix="ae-pipeline-", dir=work) as folder:
            yield Path(folder)

    def fetch(self, name: str, path: Path) -> bool:
        """Download a file; the local one takes its name when it is whole."""
        try:
            with finished_file(path) as temporary:
                copy_file(self, name, temporary, most=sys.maxsize)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str, source: bytes | Path) -> bool:
        """Put a file if there is none; a large one in several requests."""
        if isinstance(source, bytes):
            return self._put(name, source, IfNoneMatch="*")
        # Otherwise s3fs would hold 500 MB in memory.
        size = max(_UPLOAD_BYTES, -(-source.stat().st_size // _MOST_UPLOADS))
        options = {"chunksize": size, "max_concurrency": _UPLOADS, "mode": "create"}
        return self._accepted(partial(self.files.put_file, str(source), self.path(name), **options))

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        if self._put(name, data, IfMatch=tag):
            return True
        # Ceph's gateway (16) compares a tag without its quotes with one that has them: nobody was faster there.
        bare = tag.strip('"')
        return bare != tag and self.tag(name) == tag and self._put(name, data, IfMatch=bare)

    def remove(self, name: str) -> None:
        with self._reaching(), suppress(FileNotFoundError):
            self.files.rm_file(self.path(name))

    def bring(self, folder: Path, names: list[str]) -> None:
        pass

    def publish(self, folder: Path, marker: str) -> bool:
        return self.create(marker, (folder / marker).read_bytes())

    def _put(self, name: str, data: bytes, **condition: str) -> bool:
        """Whether the server took a small file. If its answer is lost on the way, the file itself tells whose it is."""
        bucket, key, _ = self.files.split_path(self.path(name))
        writer = uuid.uuid4().hex
        options = {"Bucket": bucket, "Key": key, "Body": data, "Metadata": {_WRITER: writer}, **condition}
        try:
            # A put whose answer was lost is sent again by the library, and then refused because of itself.
            return self._accepted(partial(self.files.call_s3, "put_object", **options)) or self._is_of(name, writer)
        except UnreachableError:
            if self._is_of(name, writer):
                return True
            raise

    def _is_of(self, name: str, writer: str) -> bool:
        with self._reaching():
            self.files.invalidate_cache()
            try:
                return bool(self.files.metadata(self.path(name)).get(_WRITER) == writer)
            except FileNotFoundError:
                return False

    def _accepted(self, put: Callable[[], Any]) -> bool:
        """Whether the server took a conditional put. Raises TargetError if the place does not exist."""
        with self._reaching():
            try:
                put()
            except OSError as error:
                if isinstance(error, FileExistsError) or _code_of(error) in _REFUSALS:
                    return False
                if isinstance(error, FileNotFoundError):
                    raise TargetError(
                        f"cannot write to {self.location}: {first_line(error)}; make the bucket first, or choose "
                        "another target"
                    ) from None
                raise
        return True

    @contextmanager
    def _reaching(self) -> Iterator[None]:
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


def _code_of(error: OSError) -> str:
    """S3's own name for an error, which s3fs keeps as its cause; empty for other storage."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
