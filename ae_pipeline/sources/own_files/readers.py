"""Which reader reads a person's files, and whether they stay as they are meanwhile."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind
from ae_pipeline.sources.own_files.arrays import Arrays
from ae_pipeline.sources.own_files.columns import Wanted
from ae_pipeline.sources.own_files.listing import ARRAY, TABLE, Listing
from ae_pipeline.sources.own_files.records import Reader, SingleFiles, Tables


def open_reader(listing: Listing, kind: Kind, column: Wanted, work: Path) -> Reader:
    """The reader for the sort of files that was found; `work` is a folder for what is unpacked."""
    if listing.sort == TABLE:
        return Tables(listing.files, kind, column)
    if column is not None and not isinstance(column, str):
        what = f"{listing.files[0].path} is no table, found source.files.column: [{', '.join(column)}]"
        raise DataError(what, advice="name Parquet files with these columns, or set it to null")
    if listing.sort == ARRAY:
        return Arrays(listing.files, kind, column, work)
    if column is not None:
        what = f"{listing.files[0].path} has no columns, found source.files.column: {column}"
        raise DataError(what, advice="set it to null")
    return SingleFiles(listing.files, kind)


@contextmanager
def unchanged(path: Path) -> Iterator[tuple[int, str]]:
    """Size and SHA-256 (hex) of a file that is read in the block. Raises DataError if somebody changes it meanwhile."""
    try:
        before = path.stat()
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", place=path, advice="give permission, or remove it"
        ) from None
    try:
        yield before.st_size, digest
    finally:
        refuse_changed(path, state_of(before))


def refuse_changed(path: Path, before: tuple[int, ...]) -> None:
    """Raise DataError unless a file is in the same state as before."""
    if not path.exists() or before != state_of(path.stat()):
        raise DataError("changed while it was read", place=path, advice="run again when nobody writes to it")


def state_of(found: os.stat_result) -> tuple[int, ...]:
    """What tells that a file was written to, or replaced."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
