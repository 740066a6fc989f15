"""Which records are held out for the test, where those of one group stay together: a speaker's clips, a folder.

A group is what a column says of a record, or where its file lies. Groups are asked in an order that the seed and their
names decide; those that bring the test nearest to its share of the records are drawn. Memory does not grow with the
number of records: which group each is of stands in a file.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.sample_schema import ROW_ID, without_views
from ae_pipeline.data.shares import nearest_share
from ae_pipeline.errors import DataError, named
from ae_pipeline.sources.own_files.columns import FOLDER, SOURCE_FILE
from ae_pipeline.sources.own_files.drawing.records import Drawing
from ae_pipeline.sources.own_files.listing import FoundFile
from ae_pipeline.sources.own_files.records import Reader

LEAST_GROUPS = 3
"""One to train with, one to validate and one to test."""
_NAMED = 5
_BLOCK = 1 << 16
_NUMBER = np.dtype(np.int32)


class GroupDrawing(Drawing):
    """Says of records whether their group is drawn for the test. Raises DataError for a group that there is not.

    `by` is `folder`, `source_file`, or the name of a column; `work` is a folder for the groups' numbers.
    """

    def __init__(self, reader: Reader, by: str, fraction: float, seed: int, work: Path):
        self._by, self._path = by, work / "groups"
        self._starts: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._sizes: list[int] = []
        _refuse_names(reader, by)
        with open(self._path, "wb") as sink:
            for file in reader.files:
                self._starts[file.name] = sink.tell() // _NUMBER.itemsize
                for numbers in self._numbers_of(reader, file) if file.name not in reader.broken else ():
                    sink.write(numbers.tobytes())
        self._refuse_few(fraction)
        names = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in self._names]
        order = sorted(range(len(names)), key=names.__getitem__)
        self._taken = np.zeros(len(names), bool)
        self._taken[order] = nearest_share([self._sizes[number] for number in order], fraction, LEAST_GROUPS - 1)

    def of(self, name: str, first: int, records: int) -> np.ndarray:
        numbers = np.fromfile(self._path, _NUMBER, records, offset=(self._starts[name] + first) * _NUMBER.itemsize)
        drawn: np.ndarray = self._taken[numbers]
        return drawn

    @property
    def share(self) -> float:
        """The part of all records that is drawn."""
        return sum(size for size, taken in zip(self._sizes, self._taken, strict=True) if taken) / sum(self._sizes)

    def describe(self) -> str:
        """How many groups there are, and what is drawn, in words."""
        return (
            f"by `{self._by}`, {len(self._sizes):,} groups of {min(self._sizes):,} to {max(self._sizes):,} records: "
            f"{self._taken.sum():,} of them, {self.share:.1%} of the records, are held out for the test"
        )

    def _numbers_of(self, reader: Reader, file: FoundFile) -> Iterator[np.ndarray]:
        """(n,) The numbers of the groups of a file's records, some records at a time."""
        first = 0
        for values in _values_of(reader, file, self._by):
            column = values.cast(without_views(values.type))
            missing = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
            if missing.any():
                what = f"has no value in row {first + int(missing.argmax()):,} (the first one is 0)"
                advice = "fill it in, or take another column for source.files.group"
                raise DataError(f"{what} of `{self._by}`, which says its group", place=file.path, advice=advice)
            found = column.dictionary_encode()
            known = [self._names.setdefault(str(value), len(self._names)) for value in found.dictionary.to_pylist()]
            numbers = np.array(known, _NUMBER)[found.indices.to_numpy()]
            self._sizes += [0] * (len(self._names) - len(self._sizes))
            for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
                self._sizes[number] += int(count)
            first += len(column)
            yield numbers

    def _refuse_few(self, fraction: float) -> None:
        if len(self._names) >= LEAST_GROUPS:
            return
        found = named(
            [f"{name} ({size:,} records)" for name, size in zip(self._names, self._sizes, strict=True)], _NAMED
        )
        what = f"`{self._by}` makes {len(self._names)} group(s) of the records: {found or 'none'}"
        advice = (
            f"expected at least {LEAST_GROUPS}, one to train with, one to validate and one to test: take another "
            f"column for source.files.group, or set it to null, which draws {fraction:.0%} of the records one by one"
        )
        raise DataError(what, advice=advice)


def _values_of(reader: Reader, file: FoundFile, by: str) -> Iterator[pa.Array]:
    """What says the group of each record of a file, some records at a time."""
    if by in reader.schema.names:
        for values in reader.values_of(file, by):
            yield pc.dictionary_decode(values) if pa.types.is_dictionary(values.type) else values
        return
    of_file = {SOURCE_FILE: file.name, FOLDER: file.folder, **dict(file.keys)}[by]
    if not of_file and by == FOLDER:
        advice = "move it into one, or set source.files.group to null"
        raise DataError("lies in no sub-folder that could be its group", place=file.path, advice=advice)
    records = reader.count(file)
    for first in range(0, records, _BLOCK):
        yield pa.repeat(pa.scalar(of_file, pa.string()), min(_BLOCK, records - first))


def _refuse_names(reader: Reader, by: str) -> None:
    """Raise DataError where the group is no column, or could be two, or cannot be told apart."""
    file = reader.files[0]
    names = [*reader.schema.names, *(name for name, _ in file.keys if name not in reader.schema.names)]
    if by == FOLDER and FOLDER in names:
        what = f"has a column `{FOLDER}`, which source.files.group could mean as well as its sub-folder"
        raise DataError(what, place=file.path, advice="rename the column")
    groups = [FOLDER, SOURCE_FILE, *(name for name in names if name != ROW_ID)]
    if by not in groups:
        what = f"has no column `{by}` for the group" if by != ROW_ID else f"has in `{by}` another value for each record"
        raise DataError(what, place=file.path, advice=f"set source.files.group to {', '.join(groups)} or null")
    kind = reader.schema.field(by).type if by in reader.schema.names else pa.string()
    if pa.types.is_nested(kind.value_type if pa.types.is_dictionary(kind) else kind):
        what = f"has in `{by}` values of type {kind}, which make no groups"
        raise DataError(what, place=file.path, advice="take a column of texts or numbers for source.files.group")
