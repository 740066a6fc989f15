"""A part in pieces, each with a digest: what a reader takes from the middle of a file is checked like the whole.

Parquet's page checksums do not cover page headers and the footer, and a SHA-256 of the file needs all of it. So the
manifest lists a digest for every column chunk and for the footer; cuts follow the file's own order and leave no gap.

    file = VerifiedFile(storage, part)
    pq.ParquetFile(file, metadata=file.metadata())      # reads the footer, later the chunks that are asked for
"""

import errno
import hashlib
import io
from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ae_pipeline.data.parquet.limits import (
    MOST_ROW_GROUP_BYTES,
    chunk_range,
    chunk_size,
    read_footer,
    too_large,
)
from ae_pipeline.store.format.entries import MOST_ROW_GROUP_ROWS
from ae_pipeline.store.storage.folder import Storage

NOT_THE_FILE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of reading that say nothing about a file: permission, too many open files, memory."""
_MAGIC = b"PAR1"
_DIGITS = 32
_BLOCK = 8 << 20
# What compression may add where it finds nothing, and headers of pages.
_FRAMES = 16 << 20


class Listed(Protocol):
    """What is known of a Parquet file before it is read: a part, or a segment of a manifest."""

    @property
    def name(self) -> str:
        """Its name in the store."""

    @property
    def rows(self) -> int:
        """Rows of the file."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def sha256(self) -> str:
        """Digest of all of it."""

    @property
    def pieces(self) -> list[str] | None:
        """Its pieces (`cut`); None in format 1."""


class DamagedError(ValueError):
    """Bytes of a part that are not the ones that were written. It says what was found; the reader names the file."""


def cut(path: Path, whole: "hashlib._Hash | None" = None, most: int | None = None) -> list[str]:
    """The pieces of a Parquet file in its order, as the manifest lists them: `<bytes>:<digest>`.

    One for each column chunk (the first one with the magic number before it), and one for the footer. `whole` is given
    all bytes on the way. Raises ValueError for a row group of more than `most` bytes (None: those of a part), which
    readers would refuse.
    """
    most = most or MOST_ROW_GROUP_BYTES
    whole = whole or hashlib.sha256()
    metadata = read_footer(path)
    chunks = [(group, column) for group in range(metadata.num_row_groups) for column in range(metadata.num_columns)]
    sizes: Counter[int] = Counter()
    pieces = []
    with open(path, "rb") as file:
        for group, column in chunks:
            start, end = chunk_range(metadata, group, column)
            data = file.read(end - file.tell())
            whole.update(data)
            pieces.append(f"{len(data)}:{digest(data)}")
            sizes[group] += chunk_size(data[start - end :], metadata, group, column)
            if sizes[group] > most:
                raise too_large(sizes[group], group, most)
        footer = file.read()
        whole.update(footer)
    return [*pieces, f"{len(footer)}:{digest(footer)}"]


def digest(data: bytes) -> str:
    """The first 32 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def check_bytes(storage: Storage, part: Listed, copy: BinaryIO | None = None) -> None:
    """Compare all bytes of a part with the manifest, in small blocks; write them to `copy`, too.

    Raises DamagedError, which names every piece that was changed.
    """
    whole = hashlib.sha256()
    changed = []
    start = 0
    for size, wanted in _pieces_of(storage, part) or [(part.bytes, None)]:
        piece = hashlib.sha256()
        for block in range(start, start + size, _BLOCK):
            data = storage.read_range(part.name, block, min(_BLOCK, start + size - block))
            whole.update(data)
            piece.update(data)
            if copy:
                copy.write(data)
        if wanted not in (None, piece.hexdigest()[:_DIGITS]):
            changed.append(f"{start} to {start + size}")
        start += size
    if changed:
        raise DamagedError(f"bytes {', '.join(changed)} were changed")
    if whole.hexdigest() != part.sha256:
        raise DamagedError("its SHA-256 is not the one in the manifest")


def _pieces_of(storage: Storage, part: Listed) -> list[tuple[int, str | None]]:
    """Length and digest of each piece; none in format 1. Raises DamagedError unless they make up the file."""
    found = storage.size(part.name)
    if found != part.bytes:
        raise DamagedError(f"has {found} bytes, the manifest says {part.bytes}")
    pieces: list[tuple[int, str | None]] = [
        (int(size), wanted) for size, wanted in (piece.split(":") for piece in part.pieces or [])
    ]
    if pieces and sum(size for size, _ in pieces) != part.bytes:
        raise DamagedError("its pieces in the manifest do not add up to its size")
    return pieces


class VerifiedFile(io.RawIOBase):
    """A part's bytes, read column chunk by column chunk; what does not match the manifest raises DamagedError, and so
    does a chunk that would take more memory than a part may ask for.

    Without pieces (format 1) the whole file is read once and checked against its SHA-256 before anything is handed out.
    """

    def __init__(self, storage: Storage, part: Listed, most: int | None = None):
        """`most`: bytes that a row group may take in memory (None: those of a part)."""
        self._storage, self._part, self._most = storage, part, most or MOST_ROW_GROUP_BYTES
        self._pieces = _pieces_of(storage, part)
        self._starts = list(accumulate((size for size, _ in self._pieces), initial=0))
        for size, _ in self._pieces:
            self._refuse_large(size)
        if not self._pieces:
            check_bytes(storage, part)
        self._position = 0
        self._last: tuple[int, bytes] = (-1, b"")
        self._metadata: Any = None
        self._places: dict[int, tuple[int, int]] = {}
        self._sizes: dict[int, dict[int, int]] = {}

    def metadata(self) -> Any:
        """The Parquet footer, without a byte of what is before it where there are pieces. From then on, only column
        chunks can be read.
        """
        footer = io.BytesIO(_MAGIC + self._piece(len(self._pieces) - 1)) if self._pieces else self
        metadata = read_footer(footer)
        groups = range(metadata.num_row_groups)
        rows = [metadata.row_group(group).num_rows for group in groups]
        if sum(rows) != self._part.rows or metadata.num_rows != self._part.rows:
            raise DamagedError(f"has {metadata.num_rows} rows, the manifest says {self._part.rows}")
        if not all(0 < count <= MOST_ROW_GROUP_ROWS for count in rows):
            raise DamagedError(f"has row groups of more than {MOST_ROW_GROUP_ROWS} rows, or of none")
        places = [(group, column) for group in groups for column in range(metadata.num_columns)]
        if not self._pieces:
            self._places = {chunk_range(metadata, *place)[0]: place for place in places}
        elif len(places) == len(self._pieces) - 1:
            self._places = {max(start, len(_MAGIC)): place for start, place in zip(self._starts, places, strict=False)}
        if len(self._places) != len(places):
            raise DamagedError(f"has {len(places)} column chunks, expected a piece for each")
        self._metadata = metadata
        return metadata

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def tell(self) -> int:
        """See io.RawIOBase."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.RawIOBase."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._part.bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on; all there are if `size` is negative."""
        start = min(self._position, self._part.bytes)
        end = self._part.bytes if size is None or size < 0 else min(start + size, self._part.bytes)
        self._refuse_large(end - start)
        if self._pieces:
            data = self._verified(start, end)
        else:
            data = self._storage.read_range(self._part.name, start, end - start)
        if self._metadata:
            self._check_size(start, end, data)
        self._position = start + len(data)
        return data

    def _refuse_large(self, size: int) -> None:
        """Raise DamagedError for more bytes than a column chunk or a footer can have, before they are read."""
        most = self._most + _FRAMES
        if size > most:
            raise DamagedError(f"has {size} bytes in one piece, at most {most} are allowed")

    def _check_size(self, start: int, end: int, data: bytes) -> None:
        """Raise DamagedError unless these bytes are one column chunk, of a row group that is not too large."""
        place = self._places.get(start)
        if place is None or chunk_range(self._metadata, *place) != (start, end):
            raise DamagedError(f"bytes {start} to {end} are not a column chunk of its footer")
        group, column = place
        sizes = self._sizes.setdefault(group, {})
        if column not in sizes:
            sizes[column] = chunk_size(data, self._metadata, group, column)
            if sum(sizes.values()) > self._most:
                raise too_large(sum(sizes.values()), group, self._most)

    def _verified(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            number = bisect_right(self._starts, start) - 1
            offset = start - self._starts[number]
            parts.append(self._piece(number)[offset : offset + end - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, number: int) -> bytes:
        if self._last[0] != number:
            size, wanted = self._pieces[number]
            data = self._storage.read_range(self._part.name, self._starts[number], size)
            if digest(data) != wanted:
                start = self._starts[number]
                raise DamagedError(f"bytes {start} to {start + size} were changed")
            self._last = (number, data)
        return self._last[1]
