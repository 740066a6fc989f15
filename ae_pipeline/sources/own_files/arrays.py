"""NumPy's files: .npy with one array, and .npz with one array of records and columns beside it.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Values are read by their place in
the file, never by pickle, and not mapped: a file that somebody cuts short while it is mapped would end the process.
"""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from ae_pipeline.data.sample_schema import schema_difference
from ae_pipeline.errors import DataError, first_line
from ae_pipeline.kinds.base import Kind, Source
from ae_pipeline.kinds.state import Form
from ae_pipeline.sources.own_files.listing import FoundFile
from ae_pipeline.sources.own_files.records import Reader, Records, describe_type, row_place

_ENDING = ".npy"
_AGAIN = "make or fetch it again"
_PIECE = 1 << 20
# What a damaged file raises.
_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
# Values that are read at once, but a whole row at least.
_BLOCK_BYTES = 32 << 20
# Values of one array of one value a record that are read at once.
_VALUES = 1 << 16


@dataclass(frozen=True)
class _Header:
    """One array in a file: where its values begin, and how they stand."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def nothing(self) -> np.ndarray:
        """An array of this type and rows of this shape, without rows."""
        return np.empty((0, *self.shape[1:]), self.dtype.newbyteorder("="))

    def rows(self, file: int, first: int, end: int, place: str) -> np.ndarray:
        """Rows `first` to `end` of an open file (its descriptor)."""
        rest, count = self.shape[1:], end - first
        if not self.fortran:
            width = prod(rest) * self.dtype.itemsize
            data = _read(file, self.offset + first * width, count * width, place)
            values = np.frombuffer(data, self.dtype).reshape(count, *rest)
        else:  # each value of a row lies beside that of the next row
            size = self.dtype.itemsize
            starts = (self.offset + (number * self.shape[0] + first) * size for number in range(prod(rest)))
            data = b"".join(_read(file, start, count * size, place) for start in starts)
            values = np.frombuffer(data, self.dtype).reshape(*reversed(rest), count).T
        return values.astype(self.dtype.newbyteorder("="), copy=False)


class Arrays(Reader):
    """Files of arrays of one type, with one shape of rows; `work` is a folder for what is unpacked."""

    def __init__(self, files: Sequence[FoundFile], kind: Kind, column: str | None, work: Path):
        super().__init__(files, kind)
        self._work, self._column = work, column
        first: FoundFile | None = None
        for file in files:
            try:
                headers = _headers(file.path)
            except _BROKEN as error:
                self.broken[file.name] = _unreadable(file.path, error)
                continue
            name = _name_of_records(file.path, headers, column)
            kind.refuse_array(headers[name].shape, headers[name].dtype, str(file.path))
            schema = _columns(file.path, headers, name)
            self._counts[file.name] = headers[name].shape[0]
            if first is None:
                first, self.schema = file, schema
                described = describe_type(pa.from_numpy_dtype(headers[name].dtype.newbyteorder("=")), file.path)
                self.form = Form(sort="array", column=name or None, type=described)
            elif schema != self.schema:
                which = schema_difference(schema, self.schema)
                raise DataError(f"{file.path} has other arrays than {first.path}: {which}; give all files the same")
        if first is None:
            raise next(iter(self.broken.values()))

    def _sources(self, file: FoundFile) -> Iterator[Source]:
        for _, values, _ in self._blocks(file, 0, None):
            yield values

    def read(self, file: FoundFile, first: int = 0, end: int | None = None) -> Iterator[Records]:
        """All records, or those from number `first` to `end`."""
        for start, values, columns in self._blocks(file, first, end):
            rows = self.kind.to_rows(values, row_place(file.path, start), self.state)
            rounding = self.kind.rounding(values, self.state)
            yield Records(rows, columns, start, row_place(file.name, start), rounding, values)

    def values_of(self, file: FoundFile, name: str) -> Iterator[pa.Array]:
        with _opened(file.path, self._work) as arrays:
            opened, header = arrays[name]
            rows = header.shape[0]
            for start in range(0, rows, _VALUES):
                yield pa.array(header.rows(opened.fileno(), start, min(rows, start + _VALUES), str(file.path)))

    def _blocks(self, file: FoundFile, first: int, end: int | None) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
        """Number of the first record, records, and columns beside them, of some records each."""
        with _opened(file.path, self._work) as arrays:
            name = _name_of_records(file.path, {key: header for key, (_, header) in arrays.items()}, self._column)
            shape, dtype = arrays[name][1].shape, arrays[name][1].dtype
            rows = shape[0] if end is None else min(end, shape[0])
            step = max(1, min(self.kind.block_records, _BLOCK_BYTES // max(1, prod(shape[1:]) * dtype.itemsize)))
            for start in range(first, rows, step):
                stop = min(rows, start + step)
                found = {
                    key: header.rows(opened.fileno(), start, stop, str(file.path))
                    for key, (opened, header) in arrays.items()
                }
                values = found.pop(name)
                yield (
                    start,
                    values,
                    pa.table({key: pa.array(found[key]) for key in self.schema.names}, schema=self.schema),
                )


def records_of_array(path: Path, column: str | None) -> tuple[str, tuple[int, ...]]:
    """Name (empty for .npy) and shape of the array that holds a file's records. Raises DataError where none does."""
    try:
        headers = _headers(path)
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    name = _name_of_records(path, headers, column)
    return name, headers[name].shape


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"is not a readable NumPy file: {first_line(error)}", place=path, advice=_AGAIN)


def _headers(path: Path) -> dict[str, _Header]:
    """The arrays of a file by name; that of a .npy file has none. Raises DataError for what needs a pickle."""
    if path.suffix.lower() == _ENDING:
        with open(path, "rb") as file:
            return {"": _header(file, path, "", os.fstat(file.fileno()).st_size)}
    found = {}
    with zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            name = member.filename.removesuffix(_ENDING)
            if name in found:
                raise ValueError(f"it holds two arrays named `{name}`")
            try:
                with packed.open(member) as file:
                    found[name] = _header(file, path, name, member.file_size)
            except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a way that zipfile lacks
                raise ValueError(first_line(error)) from None
    return found


def _header(file: IO[bytes], path: Path, name: str, size: int) -> _Header:
    version = np.lib.format.read_magic(file)
    reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in reads:
        raise ValueError(f"its format is version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, fortran, dtype = reads[version](file)
    what = f"array `{name}`" if name else "its array"
    if dtype.hasobject or dtype.names is not None:
        held = "Python objects, which only a pickle could hold" if dtype.hasobject else "records of several fields"
        raise DataError(
            f"has in {what} {held}", place=path, advice="save plain numbers or texts, an array for each field"
        )
    if not dtype.itemsize:
        raise ValueError(f"{what} has values of no size")
    header = _Header(shape, fortran, dtype, file.tell())
    if size != header.offset + header.nbytes:
        raise ValueError(f"{what} has {size - header.offset:,} bytes, expected {header.nbytes:,}")
    return header


@contextmanager
def _opened(path: Path, work: Path) -> Iterator[dict[str, tuple[IO[bytes], _Header]]]:
    """The arrays of a file, each as an open file that holds it alone and its header."""
    if path.suffix.lower() == _ENDING:
        with open(path, "rb") as file:
            yield {"": (file, _header(file, path, "", os.fstat(file.fileno()).st_size))}
        return
    with tempfile.TemporaryDirectory(dir=work) as folder, ExitStack() as stack:  # others may read the same file
        opened: dict[str, tuple[IO[bytes], _Header]] = {}
        for name, copy, unpacked in _unpacked(path, Path(folder)):
            stack.enter_context(copy)
            opened[name] = copy, _header(copy, path, name, unpacked.stat().st_size)
        yield opened


def _unpacked(path: Path, work: Path) -> Iterator[tuple[str, IO[bytes], Path]]:
    try:
        with zipfile.ZipFile(path) as packed:
            for number, member in enumerate(packed.infolist()):
                target = work / f"{number}{_ENDING}"
                with packed.open(member) as source, open(target, "wb") as copy:
                    while piece := source.read(_PIECE):
                        copy.write(piece)
                yield member.filename.removesuffix(_ENDING), open(target, "rb"), target  # noqa: SIM115
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"is damaged: {first_line(error)}", place=path, advice=_AGAIN) from None


def _name_of_records(path: Path, headers: dict[str, _Header], wanted: str | None) -> str:
    """The array with the records: the one that is asked for, or the only one with more than one dimension."""
    if list(headers) == [""]:
        if wanted is not None:
            what = f"holds one array without a name, found source.files.column: {wanted}"
            raise DataError(what, place=path, advice="set it to null")
        return ""
    if wanted is not None and wanted not in headers:
        raise DataError(
            f"has no array `{wanted}`", place=path, advice=f"set source.files.column to one of {', '.join(headers)}"
        )
    found = [wanted] if wanted else [name for name, header in headers.items() if len(header.shape) > 1]
    if len(found) != 1:
        shapes = ", ".join(f"{name} {list(header.shape)}" for name, header in headers.items()) or "nothing"
        what = f"has {len(found)} arrays of two or more dimensions, expected one with the records, found {shapes}"
        raise DataError(what, place=path, advice="name it in source.files.column, and take the others out")
    return found[0]


def _columns(path: Path, headers: dict[str, _Header], records: str) -> pa.Schema:
    """The other arrays, as columns: one value for each record."""
    fields = []
    for name, header in headers.items():
        if name == records:
            continue
        if header.shape != headers[records].shape[:1]:
            what = f"has array `{name}` of shape {list(header.shape)}, expected {list(headers[records].shape[:1])}"
            raise DataError(what, place=path, advice="only one value for each record can be kept: take it out")
        try:
            fields.append(pa.field(name, pa.array(header.nothing()).type))
        except pa.ArrowException:
            what = f"has array `{name}` of type {header.dtype}, which no column holds"
            raise DataError(what, place=path, advice="convert it, or take it out") from None
    return pa.schema(fields)


def _read(file: int, start: int, size: int, place: str) -> bytes:
    data = os.pread(file, size, start)
    while len(data) < size:  # a system reads 2 GiB at most at once
        more = os.pread(file, size - len(data), start + len(data))
        if not more:
            raise DataError("was cut short while it was read", place=place, advice="wait until it is whole")
        data += more
    return data
