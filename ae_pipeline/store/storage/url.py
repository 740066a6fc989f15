"""Writing at an fsspec URL: files that are made only where there is none, and one that is replaced only if it is still
the one that was read. `remote.py` makes stores of these.

    files = RemoteFiles("s3://bucket/store")
    files.create("_codec/codec.json", data)                           # False if there is one
    tag = files.tag("_manifest.json")
    files.commit("_manifest.json", new, replacing=tag)                # False if somebody else was faster

The server decides, in one request (S3: PutObject with If-None-Match or If-Match), so there is no moment between looking
and writing. Every file appears whole or not at all; an upload in several requests appears with the last one.
"""

import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ae_pipeline.errors import TargetError, UnreachableError, first_line
from ae_pipeline.files import finished_file
from ae_pipeline.store.storage.folder import RemoteStorage

# File systems whose `mode="create"` is one request that the server refuses if the file exists. fsspec's own way of
# doing it, which others inherit, looks first and writes then: two writers can both get through.
_CREATING = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}
_TAGGED = {"s3", "s3a"}
_REFUSALS = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_UPLOAD_BYTES = 16 << 20
_UPLOADS = 4
_MOST_UPLOADS = 9_000  # S3 takes 10,000 for one file
_BLOCK = 8 << 20
_WRITER = "ae-pipeline-writer"


class RemoteFiles(RemoteStorage):
    """Files at a URL that can be written. Raises TargetError if its kind of storage cannot do it safely."""

    def __init__(self, url: str):
        super().__init__(url)
        protocols = self.files.protocol
        self._protocols = {protocols} if isinstance(protocols, str) else set(protocols)
        if not self._protocols & _CREATING:
            raise TargetError(
                f"{self.location}: this kind of URL cannot make a file only where there is none, so two writers could "
                "spoil one store; write to s3://, gs:// or az://, or to a folder that you then copy"
            )

    def refuse_unreplaceable(self) -> None:
        """Raise TargetError unless files can be replaced on condition (`commit` with a tag)."""
        if not self._protocols & _TAGGED:
            raise TargetError(
                f"{self.location}: an append must replace the manifest only if nobody else has, and this kind of URL "
                "cannot; appending works in folders and at s3://, here encode into a new store instead"
            )

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        try:
            self.info(name)
        except FileNotFoundError:
            return False
        return True

    def holds(self, name: str, data: bytes) -> bool:
        """Whether a file has just these bytes."""
        return self.read_range(name, 0, len(data) + 1) == data

    def tag(self, name: str) -> str:
        """Of a file's bytes as they are now, for `commit`."""
        return str(self.info(name)["ETag"])

    def fetch(self, name: str, path: Path) -> bool:
        """Copy a file to a local path, which takes its name when whole; False if there is none."""
        try:
            size = self.size(name)
        except FileNotFoundError:
            return False
        with finished_file(path) as temporary, open(temporary, "wb") as file:
            for start in range(0, size, _BLOCK):
                file.write(self.read_range(name, start, min(_BLOCK, size - start)))
        return True

    def create(self, name: str, data: bytes) -> bool:
        """Make a small file; False, and nothing is changed, if there is one."""
        return self._accepted(lambda: self.files.pipe_file(self.path(name), data, mode="create"))

    def upload(self, name: str, path: Path) -> bool:
        """The same with a local file of any size."""
        options: dict[str, Any] = {}
        if self._protocols & _TAGGED:  # otherwise it would hold 500 MB in memory
            size = max(_UPLOAD_BYTES, -(-path.stat().st_size // _MOST_UPLOADS))
            options = {"chunksize": size, "max_concurrency": _UPLOADS}
        return self._accepted(lambda: self.files.put_file(str(path), self.path(name), mode="create", **options))

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Replace a small file if it is still the one with this tag; False, and nothing is changed, if it is not."""
        return self._put(name, data, IfMatch=tag)

    def commit(self, name: str, data: bytes, *, replacing: str | None) -> bool:
        """Make a file, or replace the one with this tag; False, and nothing is changed, if somebody else was faster.

        If the answer is lost on the way, the file itself tells whose it is.
        """
        if not self._protocols & _TAGGED:
            return self.create(name, data)
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": replacing}
        writer = uuid.uuid4().hex
        try:
            # A put whose answer was lost is sent again by the library, and then refused because of itself.
            return self._put(name, data, Metadata={_WRITER: writer}, **condition) or self._is_of(name, writer)
        except UnreachableError:
            if self._is_of(name, writer):
                return True
            raise

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with self.reaching(), suppress(FileNotFoundError):
            self.files.rm_file(self.path(name))

    def _put(self, name: str, data: bytes, **options: Any) -> bool:
        bucket, key, _ = self.files.split_path(self.path(name))
        return self._accepted(lambda: self.files.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **options))

    def _is_of(self, name: str, writer: str) -> bool:
        with self.reaching():
            self.files.invalidate_cache()
            try:
                return bool(self.files.metadata(self.path(name)).get(_WRITER) == writer)
            except FileNotFoundError:
                return False

    def _accepted(self, put: Callable[[], Any]) -> bool:
        """Whether the server took a conditional put. Raises TargetError if the place does not exist."""
        with self.reaching():
            try:
                put()
            except OSError as error:
                code = _code_of(error)
                if isinstance(error, FileExistsError) or code in {*_REFUSALS, "NoSuchKey"}:
                    return False
                if isinstance(error, FileNotFoundError):
                    raise TargetError(
                        f"cannot write to {self.location}: {first_line(error)}; make the bucket first, or choose "
                        "another target"
                    ) from None
                raise
        return True


def _code_of(error: OSError) -> str:
    """S3's own name for an error, which s3fs keeps as its cause; empty for other storage."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
