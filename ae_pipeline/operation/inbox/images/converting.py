"""IDX files, and images once they are read (`images.py`), to canonical shards.

An IDX file becomes one file of samples, whose ids are row numbers, with the attribute `label` if there is a file of
labels. All images of one run become one file of samples, in name order, with the columns of their store: ids are their
paths, `file_sha256` says which file each row was made from, so that a store knows which images it holds, and anything
else is null.
"""

from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from ae_pipeline.data.idx import copy_uncompressed, open_idx
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import ID, ShardWriter
from ae_pipeline.errors import DataError
from ae_pipeline.operation.inbox.columns import FILE_DIGEST, LABEL

IMAGES_NAME = "_images.parquet"
"""The file that the images of one run become; files of an inbox with such names are left alone."""
_BLOCK_ROWS = 1024


def convert_idx(source: Path, labels: Path | None, target: Path, spec: SampleSpec) -> None:
    """Write the rows of an IDX file as a canonical shard. Raises DataError if it or its labels do not fit."""
    unpacked = target.with_name("unpacked")
    values = _open(source, unpacked)
    if values.ndim == 1:
        raise DataError(
            f"{source} has one dimension, as labels have, but there is no file of images that it belongs to"
        )
    found = f"{values.dtype.newbyteorder('=').name} {'x'.join(map(str, values.shape[1:]))}"
    if found != spec.describe():
        raise DataError(f"{source} holds samples of {found}, expected {spec.describe()} as the codec has")
    fields = [pa.field(ID, pa.int64(), nullable=False)]
    found_labels = None if labels is None else read_labels(labels, target.with_name("labels"), len(values))
    if found_labels is not None:
        fields.append(pa.field(LABEL, pa.from_numpy_dtype(found_labels.dtype)))
    schema = pa.schema(fields)
    # Its final name may be as long as names can be, and has no room for what an unfinished file is called.
    short = target.with_name("converted.parquet")
    with ShardWriter(short, schema, spec) as writer:
        for start in range(0, len(values), _BLOCK_ROWS):
            pixels = values[start : start + _BLOCK_ROWS]
            stop = start + len(pixels)
            columns = [pa.array(np.arange(start, stop))]
            if found_labels is not None:
                columns.append(pa.array(found_labels[start:stop]))
            writer.write(pa.Table.from_arrays(columns, schema=schema), pixels)
    short.rename(target)


def read_labels(source: Path, unpacked: Path, rows: int) -> np.ndarray:
    """The labels (rows,) of an IDX file, which is unpacked there. Raises DataError unless they are so many."""
    labels = _open(source, unpacked)
    if labels.shape != (rows,):
        raise DataError(f"{source} has shape {list(labels.shape)}; expected one label for each of {rows} images")
    return np.array(labels, labels.dtype.newbyteorder("="))


def _open(source: Path, unpacked: Path) -> np.ndarray:
    try:
        copy_uncompressed(source, unpacked)
        return open_idx(unpacked)
    except DataError as error:
        raise error.with_fields(place=source) from None


class ImageBatch:
    """Images of one run, as one canonical shard that is written as they come, with these columns."""

    def __init__(self, target: Path, columns: pa.Schema, spec: SampleSpec):
        self._columns = columns
        self._writer = ShardWriter(target, columns, spec)
        self._rows: list[tuple[str, bytes, np.ndarray]] = []

    def __enter__(self) -> "ImageBatch":
        self._writer.__enter__()
        return self

    def add(self, name: str, digest: str, pixels: np.ndarray) -> None:
        """One image: its path in the inbox, SHA-256 (hex) of the file, and its pixels."""
        self._rows.append((name, bytes.fromhex(digest), pixels))
        if len(self._rows) == _BLOCK_ROWS:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.__exit__(kind, error, traceback)

    def _flush(self) -> None:
        names, digests, pixels = zip(*self._rows, strict=True)
        known = {ID: names, FILE_DIGEST: digests}
        columns = [pa.array(known.get(field.name, [None] * len(names)), field.type) for field in self._columns]
        self._writer.write(pa.Table.from_arrays(columns, schema=self._columns), np.stack(pixels))
        self._rows = []
