"""What the records that were looked at are: counted one by one, in memory that does not grow with their number."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.sample_schema import ROW_ID
from ae_pipeline.data.value_range import ValueRange, range_of
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Place, Row, Several, tensor_shape
from ae_pipeline.sources.own_files.records import Records
from ae_pipeline.workspace.looking.sampling import is_refused

MOST_BYTES = 1 << 30
"""Values that are looked at, in bytes; the look ends with the record that goes beyond."""
_KEPT_ROWS = 8192
_KEPT_BYTES = 96 << 20
_MOST_SPECS = 4
# Characters by which reasons are told apart: what follows are details.
_REASON = 60
_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass
class Reason:
    """Why records are not taken: how many, and what the first one says."""

    records: int
    example: str
    can_be_left_out: bool
    """Whether `skip_unreadable` leaves them out; otherwise they end the reading."""


@dataclass
class Tally:
    """See the module. `records` are those that were looked at; `expected` those that are going to be."""

    expected: int
    records: int = 0
    rows: int = 0
    """Rows of the records that can be read."""
    readable: int = 0
    nbytes: int = 0
    sizes: Counter[SampleSpec] = field(default_factory=Counter)
    examples: dict[SampleSpec, str] = field(default_factory=dict)
    least: float = np.inf
    greatest: float = -np.inf
    reasons: dict[str, Reason] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    """Missing values: of the records, and of the columns beside them, by name."""
    repeated: int = 0
    repeated_example: str | None = None
    _digests: dict[bytes, str] = field(default_factory=dict)
    _ids: set[Any] = field(default_factory=set)
    _kept: dict[SampleSpec, list[np.ndarray]] = field(default_factory=dict)
    _kept_bytes: int = 0
    _every: int = 1

    @property
    def is_full(self) -> bool:
        """Whether enough bytes were looked at."""
        return self.nbytes >= MOST_BYTES

    def add_block(self, records: Records, *, together: bool = False) -> None:
        """Count what is missing in some records, as they stand in their file: in each column of those `together`."""
        if ROW_ID in records.columns.column_names:
            self._add_ids(records.columns.column(ROW_ID).drop_null().to_pylist(), records.name)
        for name in records.columns.column_names:
            self.missing[name] += _missing_in(records.columns.column(name))
        values = records.values
        if isinstance(values, np.ndarray):
            self.missing[RECORDS] += _not_finite(values)
        elif values is not None and together:
            for field, column in zip(values.type, values.flatten(), strict=True):
                self.missing[field.name] += _missing_in(column)
        elif values is not None:
            inner = values.storage if tensor_shape(values.type) is not None else values
            self.missing[RECORDS] += _missing_in(inner)

    def _add_ids(self, ids: list[Any], name: Place) -> None:
        for number, row_id in enumerate(ids):
            if row_id in self._ids:
                what = f"{name(number)} has the id {row_id}, which another one has, too"
                self._count_reason("ids", DataError(what), 1, can_be_left_out=False)
            self._ids.add(row_id)

    def add(self, row: Row, name: str, file: str) -> None:
        """Count what became of one record, which is called `name` and stands in `file`."""
        self.records += 1
        if isinstance(row, DataError):
            self.leave_out(row, file)
            return
        try:
            spec, digest, rows = self._several(row) if isinstance(row, Several) else self._one(row)
        except DataError as error:  # of values or sizes that no row has
            self.leave_out(error, file, refused=True)
            return
        self.readable += 1
        self.rows += rows
        self.sizes[spec] += 1
        self.examples.setdefault(spec, name)
        if digest in self._digests:
            self.repeated += 1
            self.repeated_example = self.repeated_example or f"{name} is as {self._digests[digest]}"
        self._digests.setdefault(digest, name)

    def leave_out(self, error: DataError, file: str, *, refused: bool = False, records: int = 1) -> None:
        """Count records of a file, or the file, that are not taken; those of one reason are one group."""
        can_be_left_out = not (refused or is_refused(error))
        # The reason without names and numbers, which differ from record to record.
        text = error.finding if error.place is not None else str(error)
        key = _NUMBER.sub("#", text.replace(file, ""))[:_REASON] + ("" if can_be_left_out else "!")
        self._count_reason(key, error, records, can_be_left_out=can_be_left_out)

    def _count_reason(self, key: str, error: DataError, records: int, *, can_be_left_out: bool) -> None:
        if key in self.reasons:
            self.reasons[key].records += records
        else:
            self.reasons[key] = Reason(records, str(error), can_be_left_out)

    @property
    def spec(self) -> SampleSpec | None:
        """Shape and dtype that most rows have."""
        return self.sizes.most_common(1)[0][0] if self.sizes else None

    def kept(self) -> np.ndarray:
        """Some of the rows of `spec`, spread over all that were looked at: (n, *shape)."""
        assert self.spec is not None
        return np.concatenate(self._kept[self.spec])

    def value_range(self) -> ValueRange:
        """Ends of all values that were looked at, percentiles of those that were kept."""
        rows = self.kept()
        found = range_of([rows], rows.size)
        return ValueRange(self.least, self.greatest, found.low, found.high)

    def _one(self, row: np.ndarray) -> tuple[SampleSpec, bytes, int]:
        spec = _spec_of(row)
        digest = blake2b(_bytes_of(row), digest_size=16)
        if self.readable % self._every == 0:
            self._keep(spec, row[None])
        self._see(row)
        return spec, digest.digest(), 1

    def _several(self, record: Several) -> tuple[SampleSpec, bytes, int]:
        """Count the rows of a record piece by piece."""
        digest, spec, at = blake2b(digest_size=16), None, 0
        per_record = max(1, _KEPT_ROWS // max(1, self.expected))
        every = self._every * max(1, ceil(record.rows / per_record))
        for rows, _ in record.pieces:
            spec = spec or _spec_of(rows[0])
            digest.update(_bytes_of(rows))
            self._see(rows)
            if len(chosen := rows[-at % every :: every]):
                self._keep(spec, chosen)
            at += len(rows)
        assert spec is not None
        digest.update(str(record.rows).encode())
        return spec, digest.digest(), record.rows

    def _see(self, values: np.ndarray) -> None:
        self.nbytes += values.nbytes
        if values.size:
            self.least = min(self.least, float(values.min()))
            self.greatest = max(self.greatest, float(values.max()))

    def _keep(self, spec: SampleSpec, rows: np.ndarray) -> None:
        if spec not in self._kept and len(self._kept) >= _MOST_SPECS:
            return
        self._kept.setdefault(spec, []).append(rows.copy())
        self._kept_bytes += rows.nbytes
        kept = sum(map(len, self._kept[spec]))
        if self._kept_bytes > _KEPT_BYTES or kept > _KEPT_ROWS:
            self._every *= 2
            for other, pieces in self._kept.items():
                self._kept[other] = [np.concatenate(pieces)[::2].copy()]
            self._kept_bytes = sum(piece.nbytes for pieces in self._kept.values() for piece in pieces)


RECORDS = ""
"""The name under which `Tally.missing` counts the records' own values."""


def _bytes_of(values: np.ndarray) -> memoryview:
    """The bytes of an array, not copied where they stand in order."""
    return memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _spec_of(row: np.ndarray) -> SampleSpec:
    return SampleSpec(row.shape, row.dtype.newbyteorder("=").name)


def _missing_in(column: Any) -> int:
    """Values that are null, NaN or infinite in a column, and within lists."""
    count = column.null_count
    kind = column.type
    if pa.types.is_floating(kind):
        there = column.drop_null()
        if pa.types.is_float16(kind):
            there = there.cast(pa.float32())
        return int(count + len(there) - (pc.sum(pc.is_finite(there)).as_py() or 0))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return int(count + sum(_missing_in(piece.flatten()) for piece in pieces))
    return int(count)


def _not_finite(values: np.ndarray) -> int:
    return int(values.size - np.isfinite(values).sum()) if values.dtype.kind == "f" else 0


def describe_sizes(sizes: Iterable[tuple[SampleSpec, int]], most: int) -> str:
    """Shapes and dtypes with their counts, the most frequent first."""
    found = list(sizes)
    if len(found) == 1:
        return found[0][0].describe()
    shown = ", ".join(f"{count:,} of {spec.describe()}" for spec, count in found[:most])
    return shown + (f" and {len(found) - most:,} more sizes" if len(found) > most else "")
