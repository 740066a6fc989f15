"""Source `files`: a person's own files as they are: pictures, Parquet, NumPy's arrays.

    source: {name: files, files: {path: photos, kind: image, label: folder}}

A kind (kinds/) says what a record is and makes its row. `fetch` checks all records and writes the rows to raw/, beside
`files.parquet`, which names every file that was read with its size and SHA-256, and `left_out.parquet`, which names
every record that was left out. Memory does not grow with the number of records, but for their files' names.
"""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.data.parquet.writer import RowGroupWriter
from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.errors import DataError, named, warn
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.base import Kind, Row
from ae_pipeline.sources.base import Source
from ae_pipeline.sources.own_files.arrays import Arrays
from ae_pipeline.sources.own_files.columns import Kept
from ae_pipeline.sources.own_files.drawing import Drawing
from ae_pipeline.sources.own_files.listing import ARRAY, SINGLE, FoundFile, Listing, list_files
from ae_pipeline.sources.own_files.records import Reader, Records, SingleFiles, Tables
from ae_pipeline.sources.own_files.splits import SPLITS, SplitWriter, read_split, refuse_repeated_ids

_FILES = pa.schema(
    {"source_file": pa.string(), "bytes": pa.int64(), "sha256": pa.string(), "records": pa.int64(), "read": pa.int64()}
)
_LEFT_OUT = pa.schema({"record": pa.string(), "reason": pa.string()})
_GROUP_ROWS = 10_000
_NAMED = 5
# Rows are gathered up to this size before they are written: many small ones, or a single picture.
_PIECE_BYTES = 32 << 20


class Files(Source):
    """See files_options.py for what the options mean."""

    def __init__(
        self,
        *,
        path: str,
        kind: str,
        column: str | None,
        label: str | None,
        test_fraction: float,
        seed: int,
        skip_unreadable: bool,
    ):
        self._path, self._kind, self._column, self._label = path, kind, column, label
        self._fraction, self._seed, self._skip = test_fraction, seed, skip_unreadable

    def announce(self) -> None:
        """Nothing but whether there are files of one sort, and the kind: all else takes reading."""
        list_files(self._path, build_kind(self._kind).suffixes)

    def fetch(self, raw: Path) -> None:
        """Read, check and write all records. Raises DataError that names files, and rows in them."""
        kind = build_kind(self._kind)
        listing = list_files(self._path, kind.suffixes)
        if listing.left_out:
            names = named(listing.left_out, _NAMED)
            warn([f"{self._path}: {len(listing.left_out):,} left out, as no data goes by such names: {names}"])
        with tempfile.TemporaryDirectory(dir=raw) as work:
            reader = _reader(listing, kind, self._column, Path(work))
            with _Sink(raw, self._path, self._skip, Kept(reader.schema, listing.files[0], self._label)) as sink:
                self._read_all(listing, reader, sink)
        sink.refuse_what_was_found()
        if sink.kept.has_ids:
            refuse_repeated_ids(raw, self._path)
        print(sink.describe())

    def _read_all(self, listing: Listing, reader: Reader, sink: "_Sink") -> None:
        from tqdm import tqdm

        for name, error in reader.broken.items():
            sink.leave_out(name, error)
        sink.refuse_unreadable()
        counts = [(file.name, reader.count(file)) for file in listing.files]
        total = sum(count for _, count in counts)
        if total < 2:
            what = f"holds {total} record(s), expected at least 2: one to train and one to test"
            raise DataError(what, place=self._path, advice="name more files in source.files.path")
        drawing = Drawing(counts, self._fraction, self._seed)
        first = 0
        with tqdm(total=total, unit=" records", desc=self._path, disable=None) as bar:
            for file, (_, count) in zip(listing.files, counts, strict=True):
                if file.name in reader.broken:
                    continue
                with _unchanged(file.path) as (size, digest):
                    read = 0
                    for records in reader.read(file):
                        added = sink.add(file, records, first + records.first, drawing)
                        read += added
                        bar.update(added)
                sink.files.append(pa.table([[file.name], [size], [digest], [count], [read]], schema=_FILES))
                first += count

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps; ids are the person's own, or the records' numbers."""
        splits: dict[str, RawSplit] = {}
        first_id = 0
        for split in SPLITS:
            splits[split] = read_split(raw, split, first_id)
            first_id += len(splits[split].pixels)
        return splits


class _Sink:
    """Where records go: both splits, the list of files, the list of what is left out. A context manager."""

    def __init__(self, raw: Path, path: str, skip_unreadable: bool, kept: Kept):
        self.kept = kept
        self._path, self._skip = path, skip_unreadable
        self._sizes = Counter[SampleSpec]()
        self._examples: dict[SampleSpec, str] = {}
        self._unreadable = 0
        self._named: list[str] = []
        self._splits = {split: SplitWriter(raw, split, kept.schema) for split in SPLITS}
        self.files = RowGroupWriter(raw / "files.parquet", _FILES, _GROUP_ROWS)
        self._left_out = RowGroupWriter(raw / "left_out.parquet", _LEFT_OUT, _GROUP_ROWS)

    def __enter__(self) -> "_Sink":
        with ExitStack() as opened:
            for split in self._splits.values():
                opened.enter_context(split)
            for table in (self.files, self._left_out):
                opened.enter_context(table)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def add(self, file: FoundFile, records: Records, first_number: int, drawing: Drawing) -> int:
        """Write the records that can be read, and return how many. `first_number`: of the first one, among all."""
        pending: list[Row] = []
        written = start = size = 0
        for number, row in enumerate(records.rows):
            if isinstance(row, DataError):
                self.leave_out(records.name(number), row)
            else:
                self._count(row, records.name(number))
                size += row.nbytes
            pending.append(row)
            if size >= _PIECE_BYTES:
                written += self._write(file, records, start, pending, first_number, drawing)
                pending, start, size = [], number + 1, 0
        return written + self._write(file, records, start, pending, first_number, drawing)

    def _write(
        self, file: FoundFile, records: Records, start: int, found: list[Row], first_number: int, drawing: Drawing
    ) -> int:
        """Write the rows `found` of the records from number `start` of the block on."""
        rows = [row for row in found if not isinstance(row, DataError)]
        if len(self._sizes) != 1 or not rows:
            return len(rows)
        (spec,) = self._sizes
        readable = np.array([not isinstance(row, DataError) for row in found])
        beside = records.columns.slice(start, len(found))
        columns = self.kept.table(beside, file, first_number + start, len(found)).filter(pa.array(readable))
        drawn = drawing.of(file.name, records.first + start, len(found))[readable]
        values = np.stack(rows)
        for split, chosen in zip(SPLITS, (~drawn, drawn), strict=True):
            if chosen.any():
                self._splits[split].write(spec, values[chosen], columns.filter(pa.array(chosen)))
        return len(rows)

    def leave_out(self, name: str, error: DataError) -> None:
        """Remember a record or a file that cannot be read."""
        self._unreadable += 1
        if len(self._named) < _NAMED:
            self._named.append(str(error))
        self._left_out.append(pa.table([[name], [str(error)]], schema=_LEFT_OUT))

    def _count(self, row: np.ndarray, name: str) -> None:
        try:
            spec = SampleSpec(row.shape, row.dtype.newbyteorder("=").name)
        except DataError as error:
            raise error.with_fields(place=f"{self._path}: {name}:") from None
        self._sizes[spec] += 1
        self._examples.setdefault(spec, name)

    def refuse_unreadable(self) -> None:
        """Raise DataError for records that cannot be read, unless they may be left out."""
        if self._unreadable and not self._skip:
            shown = "; ".join(self._named)
            what = f"{self._path} has {self._unreadable:,} record(s) or file(s) that cannot be read: {shown}"
            more = self._unreadable - len(self._named)
            raise DataError(
                f"{what}{f' (and {more:,} more)' if more else ''}",
                advice="mend or remove them, or set source.files.skip_unreadable to true, which leaves them out",
            )

    def refuse_what_was_found(self) -> None:
        """Raise DataError for records that cannot be read, of several sizes, or too few for two splits."""
        self.refuse_unreadable()
        if len(self._sizes) > 1:
            found = [f"{n:,} of {spec.describe()} ({self._examples[spec]})" for spec, n in self._sizes.most_common()]
            raise DataError(
                f"{self._path} has records of {len(found):,} sizes: {named(found, _NAMED)}",
                advice="expected one: bring them to one size and one number of channels first, or name those of one "
                "size by a glob in source.files.path",
            )
        for split, writer in self._splits.items():
            if not writer.rows:
                what = f"{self._path} leaves no record for the {split} split that can be read"
                raise DataError(what, advice="name more files, or set another source.files.test_fraction or seed")

    def describe(self) -> str:
        """What was read, in words."""
        (spec,) = self._sizes
        rows = {split: writer.rows for split, writer in self._splits.items()}
        found = f"{sum(rows.values()):,} records of {spec.describe()}: {rows['train']:,} train, {rows['test']:,} test"
        if not self._unreadable:
            return found
        return f"{found}; {self._unreadable:,} left out (left_out.parquet): {'; '.join(self._named)}"


def _reader(listing: Listing, kind: Kind, column: str | None, work: Path) -> Reader:
    if listing.sort == SINGLE:
        if column is not None:
            what = f"{listing.files[0].path} has no columns, found source.files.column: {column}"
            raise DataError(what, advice="set it to null")
        return SingleFiles(kind)
    if listing.sort == ARRAY:
        return Arrays(listing.files, kind, column, work)
    return Tables(listing.files, kind, column)


@contextmanager
def _unchanged(path: Path) -> Iterator[tuple[int, str]]:
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
        if not path.exists() or _state(before) != _state(path.stat()):
            raise DataError("changed while it was read", place=path, advice="run again when nobody writes to it")


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


SOURCE = Files
