"""Split a source and write its rows in the canonical layout; write the first rows of a data set."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.data.samples import ID, SampleSet, ShardWriter
from ae_pipeline.errors import DataError
from ae_pipeline.params import PrepareParams

_BLOCK_ROWS = 2048


def write_splits(splits: dict[str, RawSplit], folder: Path, params: PrepareParams) -> dict[str, SampleSet]:
    """Write `train`, `validation` and `test` into `folder`: the same bytes for the same data and parameters.

    Validation rows are drawn from the source's train rows by `params.seed`; every row keeps its id and the source's
    order. Raises DataError if a split would be empty.
    """
    train, test = splits["train"], splits["test"]
    rows = len(train.pixels)
    count = round(params.validation_fraction * rows)
    if not 0 < count < rows:
        raise DataError(
            f"the source has {rows} train rows; prepare.validation_fraction of {params.validation_fraction:g} leaves "
            f"{rows - count} to train and {count} to validate, expected at least 1 each"
        )
    drawn = np.zeros(rows, bool)
    drawn[np.random.default_rng(params.seed).choice(rows, count, replace=False)] = True
    chosen = {
        "train": (train, np.flatnonzero(~drawn)),
        "validation": (train, np.flatnonzero(drawn)),
        "test": (test, np.arange(len(test.pixels))),
    }
    most = params.rows_per_shard
    for name, (split, which) in chosen.items():
        for number, start in enumerate(range(0, len(which), most)):
            write_shard(folder / name / f"part-{number:05d}.parquet", split, which[start : start + most])
    return {name: SampleSet.open(folder / name) for name in chosen}


def write_shard(path: Path, split: RawSplit, which: np.ndarray) -> None:
    """Write the rows of a split with these numbers, (n,) int64, as one canonical shard."""
    spec = SampleSpec(split.pixels.shape[1:], split.pixels.dtype.newbyteorder("=").name)
    types = {name: _type_of(column) for name, column in split.attributes.items() if name != ID}
    ids = split.attributes.get(ID)
    first = pa.field(ID, pa.int64() if ids is None else _type_of(ids), nullable=False)
    schema = pa.schema([first, *(pa.field(name, kind) for name, kind in types.items())])
    with ShardWriter(path, schema, spec) as writer:
        for start in range(0, len(which), _BLOCK_ROWS):
            rows = which[start : start + _BLOCK_ROWS]
            columns = {name: _taken(split.attributes[name], rows) for name in types}
            numbers = split.first_id + rows if ids is None else _taken(ids, rows)
            writer.write(pa.table({ID: numbers, **columns}, schema=schema), split.pixels[rows])


def _type_of(column: np.ndarray | pa.ChunkedArray) -> pa.DataType:
    return pa.from_numpy_dtype(column.dtype.newbyteorder("=")) if isinstance(column, np.ndarray) else column.type


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
    with ShardWriter(folder / "part-00000.parquet", samples.attributes_schema, samples.spec) as writer:
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
