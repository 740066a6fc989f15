"""Split a source and write its rows in the canonical layout; write the first rows of a data set."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.data.samples import ID, SampleSet, ShardWriter
from ae_pipeline.data.shares import GROUPS_NAME, Counted, GroupsOfSplits, nearest_share
from ae_pipeline.errors import DataError
from ae_pipeline.files import write_json
from ae_pipeline.params import PrepareParams

_BLOCK_ROWS = 2048


def write_splits(splits: dict[str, RawSplit], folder: Path, params: PrepareParams) -> dict[str, SampleSet]:
    """Write `train`, `validation` and `test` into `folder`: the same bytes for the same data and parameters.

    Validation rows are drawn from the source's train rows by `params.seed`: about the wanted share, at least one, and
    not all. Every row keeps its id and the source's order. Rows of one record stay together, in their split and in
    their shard; records of one group stay in their split, and `groups.json` says how many groups and records each has.
    Raises DataError if a split would be empty.
    """
    train, test = splits["train"], splits["test"]
    starts = _record_starts(train)
    records, what = len(starts), "rows" if train.record is None else "records"
    if records < 2:
        raise DataError(
            f"the source has {records} train {what.removesuffix('s')}, expected at least 2: one to train and one to "
            "validate; name more data, or set a smaller share for the test (source.files.test_fraction)"
        )
    of_records = _for_validation(train, starts, params)
    drawn = np.repeat(of_records, np.diff(starts, append=len(train.pixels)))
    chosen = {
        "train": (train, np.flatnonzero(~drawn)),
        "validation": (train, np.flatnonzero(drawn)),
        "test": (test, np.arange(len(test.pixels))),
    }
    for name, (split, which) in chosen.items():
        for number, rows in enumerate(_shards(split, which, params.rows_per_shard)):
            write_shard(folder / name / f"part-{number:05d}.parquet", split, rows)
    if train.groups is not None:
        counted = {name: _count_groups(split, rows) for name, (split, rows) in chosen.items()}
        found = GroupsOfSplits(by=train.groups.by, splits=counted)
        write_json(folder / GROUPS_NAME, found.model_dump(mode="json"))
    return {name: SampleSet.open(folder / name) for name in chosen}


def _for_validation(train: RawSplit, starts: np.ndarray, params: PrepareParams) -> np.ndarray:
    """(records,) Whether each is drawn; `starts` are their first rows."""
    records, random = len(starts), np.random.default_rng(params.seed)
    if train.groups is None:
        count = min(max(round(params.validation_fraction * records), 1), records - 1)
        drawn = np.zeros(records, bool)
        drawn[random.choice(records, count, replace=False)] = True
        return drawn
    numbers = train.groups.numbers[starts]
    sizes = np.bincount(numbers)
    if len(sizes) < 2:
        raise DataError(
            f"the source's train rows are all of one group by `{train.groups.by}`, expected at least 2: one to train "
            "and one to validate; set source.files.group to null or to something finer, or name more data"
        )
    order = random.permutation(len(sizes))
    taken = np.zeros(len(sizes), bool)
    taken[order] = nearest_share(sizes[order], params.validation_fraction, 1)
    return taken[numbers]


def _count_groups(split: RawSplit, rows: np.ndarray) -> Counted:
    """How many groups and records there are among rows, (n,) rising numbers."""
    assert split.groups is not None
    records = np.isin(rows, _record_starts(split), assume_unique=True).sum()
    return Counted(groups=len(np.unique(split.groups.numbers[rows])), records=int(records))


def _record_starts(split: RawSplit) -> np.ndarray:
    """(records,) The number of each record's first row."""
    rows = len(split.pixels)
    if split.record is None:
        return np.arange(rows)
    of_rows = _as_chunks(split.attributes[split.record])
    changes = pc.not_equal(of_rows.slice(1), of_rows.slice(0, rows - 1)).to_numpy()
    return np.flatnonzero(np.concatenate([[True], changes]))


def _shards(split: RawSplit, which: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Cut rows, (n,) rising numbers, into shards of at most `most`, or of one record that has more."""
    if split.record is None:
        yield from (which[start : start + most] for start in range(0, len(which), most))
        return
    ends = [*np.flatnonzero(np.isin(which, _record_starts(split)))[1:], len(which)]
    start = 0
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is None or following - start > most:
            yield which[start:end]
            start = end


def write_shard(path: Path, split: RawSplit, which: np.ndarray) -> None:
    """Write the rows of a split with these numbers, (n,) int64, as one canonical shard."""
    spec = SampleSpec(split.pixels.shape[1:], split.pixels.dtype.newbyteorder("=").name)
    types = {name: _type_of(column) for name, column in split.attributes.items() if name != ID}
    ids = split.attributes.get(ID)
    first = pa.field(ID, pa.int64() if ids is None else _type_of(ids), nullable=False)
    schema = pa.schema([first, *(pa.field(name, kind) for name, kind in types.items())])
    with ShardWriter(path, schema, spec, kind=split.kind) as writer:
        for start in range(0, len(which), _BLOCK_ROWS):
            rows = which[start : start + _BLOCK_ROWS]
            columns = {name: _taken(split.attributes[name], rows) for name in types}
            numbers = split.first_id + rows if ids is None else _taken(ids, rows)
            writer.write(pa.table({ID: numbers, **columns}, schema=schema), split.pixels[rows])
            _give_back(split.pixels)


def _give_back(pixels: np.ndarray) -> None:
    """Let go of the pages that a map of a file has in memory: they stay there once read, and grow with the rows."""
    base: Any = pixels
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode != "r":
            return
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _type_of(column: np.ndarray | pa.ChunkedArray) -> pa.DataType:
    return pa.from_numpy_dtype(column.dtype.newbyteorder("=")) if isinstance(column, np.ndarray) else column.type


def _as_chunks(column: np.ndarray | pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([column]) if isinstance(column, np.ndarray) else column


def _taken(column: np.ndarray | pa.ChunkedArray, rows: np.ndarray) -> np.ndarray | pa.ChunkedArray:
    """The values of `rows`, (n,) rising numbers."""
    if isinstance(column, np.ndarray):
        return column[rows].astype(column.dtype.newbyteorder("="))
    first = int(rows[0])
    return column.slice(first, int(rows[-1]) - first + 1).take(pa.array(rows - first))


def first_rows(samples: SampleSet, most: int, folder: Path) -> SampleSet:
    """The data set itself, or its first `most` rows as one shard, written into `folder`."""
    if samples.rows <= most:
        return samples
    left = most
    path = folder / "part-00000.parquet"
    with ShardWriter(path, samples.attributes_schema, samples.spec, kind=samples.kind) as writer:
        for block in samples.all_blocks(_BLOCK_ROWS):
            writer.write(block[:left].attributes, block[:left].pixels)
            left -= min(left, len(block))
            if not left:
                break
    return SampleSet.open(folder, samples.spec)


def open_split(prepared: Path, name: str) -> SampleSet:
    """A split that `write_splits` has written. Raises DataError that says how to get it."""
    if not (prepared / name).exists():
        raise DataError(f"no data in {prepared / name}; run `dvc repro prepare` first")
    return SampleSet.open(prepared / name)
