"""Which records are looked at: all of some thousands, or as many from evenly spaced places among more.

Values are looked at in an order in which any beginning of it is spread over all, so that a look may end early.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ae_pipeline.data.parquet.reader import open_parquet
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Row
from ae_pipeline.sources.own_files.arrays import Arrays
from ae_pipeline.sources.own_files.listing import FoundFile
from ae_pipeline.sources.own_files.records import Reader, Records, Tables

MOST_RECORDS = 10_000
"""Records that are looked at."""
_PLACES = 25
_PACKED = ".npz"


@dataclass(frozen=True)
class Stretch:
    """Consecutive records of a file, from number `first` to `end`. In Parquet `first` is the first of `row_group`."""

    file: FoundFile
    first: int
    end: int
    row_group: int | None = None

    @property
    def records(self) -> int:
        """How many."""
        return self.end - self.first


def plan(reader: Reader, files: Sequence[FoundFile], most: int = MOST_RECORDS) -> list[Stretch]:
    """What to look at, at most about `most` records, in the order in which to do it."""
    units = [unit for file in files if file.name not in reader.broken for unit in _units(reader, file)]
    total = sum(unit.records for unit in units)
    cuts = isinstance(reader, Arrays)
    if total > most:
        chosen = _spread(units, total, most, cuts=cuts)
    else:
        chosen = [piece for unit in units for piece in (_cut(unit, -(-total // _PLACES)) if cuts else [unit])]
    random.Random(0).shuffle(chosen)  # noqa: S311 (no secret)
    return chosen


def read(reader: Reader, stretch: Stretch) -> Iterator[Records]:
    """The records of a stretch, some at a time. Raises DataError for what is damaged."""
    file = stretch.file
    if isinstance(reader, Arrays):
        yield from reader.read(file, stretch.first, stretch.end)
        return
    if not isinstance(reader, Tables):
        yield from reader.read(file)
        return
    groups = None if stretch.row_group is None else [stretch.row_group]
    left = stretch.records
    for records in reader.read(file, groups, stretch.first):
        assert records.values is not None
        yield _first(records, reader, left)
        left -= len(records.values)
        if left <= 0:
            return


def _first(records: Records, reader: Reader, most: int) -> Records:
    """The first records of a block."""
    assert records.values is not None
    if len(records.values) <= most:
        return records
    values = records.values[:most]
    rows = reader.kind.to_rows(values, records.name, reader.state)
    return replace(records, rows=rows, values=values, columns=records.columns.slice(0, most))


def rows_of(records: Records, reader: Reader) -> Iterator[Row]:
    """What becomes of each record. Where a kind refuses one for good, that is an entry too, and others follow."""
    done = 0
    try:
        for row in records.rows:
            yield row
            done += 1
    except DataError as error:
        if records.values is None:
            yield _RefusedError.of(error)
            return
    else:
        return
    for number in range(done, len(records.values)):
        alone = records.values[number : number + 1]
        try:
            yield from reader.kind.to_rows(alone, lambda _, number=number: records.name(number), reader.state)  # type: ignore[misc]
        except DataError as error:
            yield _RefusedError.of(error)


class _RefusedError(DataError):
    """Why a record is refused, where others like it are never left out."""

    @classmethod
    def of(cls, error: DataError) -> "_RefusedError":
        return cls(error.finding, place=error.place, advice=error.advice)


def is_refused(error: DataError) -> bool:
    """Whether a record ends the reading of all, and cannot be left out."""
    return isinstance(error, _RefusedError)


def _units(reader: Reader, file: FoundFile) -> Iterator[Stretch]:
    count = reader.count(file)
    if not isinstance(reader, Tables):
        if count:
            yield Stretch(file, 0, count)
        return
    first = 0
    for number, rows in enumerate(_row_groups(file.path)):
        if rows:
            yield Stretch(file, first, first + rows, number)
        first += rows


def _cut(unit: Stretch, records: int) -> Iterator[Stretch]:
    """Pieces of so many records; an .npz stays whole, as it is unpacked for each piece."""
    step = records if unit.file.path.suffix.lower() != _PACKED else unit.records
    for first in range(unit.first, unit.end, step):
        yield Stretch(unit.file, first, min(unit.end, first + step))


def _row_groups(path: Path) -> list[int]:
    with open_parquet(path) as parquet:
        metadata = parquet.metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def _spread(units: list[Stretch], total: int, most: int, *, cuts: bool) -> list[Stretch]:
    """Evenly spaced places among all records. What `cuts` begins anywhere, all else where a unit does."""
    if len(units) == total:  # files of one record each
        return [units[int(place)] for place in np.linspace(0, total - 1, most)]
    size = -(-most // _PLACES)
    ends = np.cumsum([unit.records for unit in units])
    found: dict[tuple[int, int], Stretch] = {}
    for at in np.linspace(0, total - size, _PLACES).astype(int):
        number = int(np.searchsorted(ends, at, side="right"))
        unit = units[number]
        inside = int(at - (ends[number] - unit.records)) if cuts and unit.file.path.suffix.lower() != _PACKED else 0
        first = unit.first + inside
        found.setdefault((number, inside), Stretch(unit.file, first, min(unit.end, first + size), unit.row_group))
    # Fewer places than were wanted have more records each.
    share = -(-most // len(found))
    return [
        Stretch(one.file, one.first, min(units[number].end, one.first + share), one.row_group)
        for (number, _), one in found.items()
    ]
