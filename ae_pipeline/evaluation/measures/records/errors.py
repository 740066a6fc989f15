"""Whole records against what came back of them: a line for each record, and the metrics of all.

    found = measure_records(original, decoded, header.scaling, header.kind)
    found.table          # record, source_file, rows, mse, and each metric of the kind's records
    found.means()

Rows come block by block, and those of a record follow each other. A kind puts them together piece by piece
(`Kind.restored`), so that memory does not grow with a record; of each, a line is kept. A record whose rows are not all
there is left out and counted, as the last one of the first so many rows of a data set.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.blocks import Block
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import IncompleteRecordError
from ae_pipeline.evaluation.measures.metrics import METRICS, Metric, Metrics
from ae_pipeline.evaluation.measures.row_errors import pairs, row_mse
from ae_pipeline.kinds import kind_names, open_kind
from ae_pipeline.kinds.base import Kind
from ae_pipeline.kinds.state import KindState
from ae_pipeline.store.reading.own_form import RECORD, SOURCE_FILE, record_starts

_BLOCK_ROWS = 2048
Pair = tuple[Block, Block]
"""Rows of a record, and what came back of them."""


@dataclass(frozen=True)
class RecordMetrics:
    """What each record of a data set lost."""

    table: pa.Table
    """A line for each: `record` and `source_file` where the data has it, `rows`, `mse` over its rows, its metrics."""
    incomplete: int = 0
    """Records that were left out, because not all of their rows were there."""
    places: tuple[int, ...] = ()
    """Which record of the data set each line is, the first one is 0."""

    def means(self) -> Metrics:
        """Number of records, and the mean of each metric over the records that it applies to; None: to none, or all of
        them came back whole and the metric has no number for that.
        """
        found: Metrics = {"records": len(self.table), "records_incomplete": self.incomplete}
        for name in self.table.column_names:
            if name in METRICS and METRICS[name].of_records is not None:
                values = self.table.column(name).to_numpy()
                finite = values[np.isfinite(values)]
                found[name] = float(finite.mean()) if len(finite) else None
        return found


def several_kind(entry: KindEntry | None) -> tuple[Kind, KindState] | None:
    """The kind of a codec and its state, if its records have several rows and it is installed here."""
    if entry is None or entry.name not in kind_names():
        return None
    kind, state = open_kind(entry, "the codec")
    return (kind, state) if kind.makes_several(state) else None


def measure_records(
    original: SampleSet, decoded: SampleSet, scaling: Scaling, entry: KindEntry | None
) -> RecordMetrics | None:
    """Every metric of whole records for the kind of this `entry`, in constant memory but for a line of each record.

    None where a record is a row, or the rows do not say which record they are of. Raises DataError where ids differ.
    """
    known = several_kind(entry)
    if entry is None or known is None or RECORD not in original.attributes_schema.names:
        return None
    return measure_blocks(pairs(original, decoded), scaling, entry.name, *known)


def measure_blocks(blocks: Iterable[Pair], scaling: Scaling, name: str, kind: Kind, state: KindState) -> RecordMetrics:
    """`measure_records` for blocks of rows, with all of their attributes, of the kind of this name."""
    metrics = [metric for metric in METRICS.values() if metric.of_records is not None and metric.of_kind == name]
    lines: dict[int, dict[str, Any]] = {}
    records = 0
    for place, pieces in enumerate(split_records(blocks)):
        records += 1
        with suppress(IncompleteRecordError):
            lines[place] = _measure(pieces, scaling, metrics, kind, state)
    names = ["rows", "mse", *(metric.name for metric in metrics)]
    table = pa.Table.from_pylist(list(lines.values())) if lines else pa.table({name: [] for name in names})
    return RecordMetrics(table, records - len(lines), tuple(lines))


def _measure(
    pieces: Iterator[Pair], scaling: Scaling, metrics: list[Metric], kind: Kind, state: KindState
) -> dict[str, Any]:
    first = next(pieces)
    columns = {name: first[0].attributes.column(name)[0].as_py() for name in first[0].attributes.column_names}
    rows, lost = 0, 0.0

    def counted() -> Iterator[Pair]:
        nonlocal rows, lost
        for before, after in chain([first], pieces):
            rows += len(before)
            lost += float(row_mse(before.pixels, after.pixels, scaling).sum())
            yield before, after

    measures = {metric.name: metric.of_records(columns) for metric in metrics if metric.of_records is not None}
    if measures:
        for original, decoded in restored(counted(), kind, state):
            for measure in measures.values():
                measure.add(original, decoded)
    else:
        for _ in counted():
            pass
    of_record = {key: columns[key] for key in (RECORD, SOURCE_FILE) if key in columns}
    values = {name: measure.value() for name, measure in measures.items()}
    return {**of_record, "rows": rows, "mse": lost / rows, **values}


def restored(pieces: Iterator[Pair], kind: Kind, state: KindState) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A record and what came back of it, piece by piece, as `Kind.restored` gives them."""
    waiting: tuple[deque[Pair], deque[Pair]] = (deque(), deque())

    def side(number: int) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """Both are cut alike, so that neither gets ahead by more than a block; itertools.tee would keep 57 of them."""
        while True:
            if not waiting[number]:
                pair = next(pieces, None)
                if pair is None:
                    return
                for queue in waiting:
                    queue.append(pair)
            pair = waiting[number].popleft()
            yield pair[number].pixels, pair[0].attributes

    yield from zip(kind.restored(side(0), state), kind.restored(side(1), state), strict=True)


def whole_records(samples: SampleSet, most: int) -> int:
    """How many of the first `most` rows are those of whole records; the rows of the first one if it has more."""
    if samples.rows <= most:
        return samples.rows
    ends, done, last = [0], 0, None
    for block in samples.all_blocks(_BLOCK_ROWS):
        starts = np.flatnonzero(record_starts(block.attributes, last)) + done
        ends += [int(start) for start in starts if start]
        done, last = done + len(block), block.attributes
        if ends[-1] and done >= most:
            break
    within = [end for end in ends[1:] if end <= most]
    return max(within) if within else next(iter(ends[1:]), samples.rows)


def record_bounds(attributes: pa.Table) -> list[tuple[int, int]]:
    """First row and end of each record among rows, of which the first one begins a record."""
    starts = np.flatnonzero(record_starts(attributes))
    return list(pairwise([*starts.tolist(), len(attributes)]))


def split_records(blocks: Iterable[Pair]) -> Iterator[Iterator[Pair]]:
    """The rows of each record, piece by piece."""
    for _, pieces in groupby(_numbered(blocks), key=lambda piece: piece[0]):
        yield (pair for _, pair in pieces)


def _numbered(blocks: Iterable[Pair]) -> Iterator[tuple[int, Pair]]:
    """Rows of one record each, and a number that tells records that follow each other apart."""
    number, last = 0, None
    for before, after in blocks:
        starts = record_starts(before.attributes, last)
        for start, end in record_bounds(before.attributes):
            number += bool(starts[start])
            yield number, (before[start:end], after[start:end])
        last = before.attributes
