"""IDX files, and images once they are read (`reading.py`), to canonical shards.

An IDX file becomes one file of samples, whose ids are row numbers, with the attribute `label` if there is a file of
labels. All images of one run become one file of samples, in name order, with the columns of their store: ids are their
paths, `file_sha256` says which file each row was made from, so that a store knows which images it holds, and anything
else is null.
"""

from pathlib import Path
from typing import Any

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
    columns = {ID: np.arange(len(values))}
    if labels is not None:
        columns[LABEL] = read_labels(labels, target.with_name("labels"), len(values))
    attributes = pa.table(columns)
    schema = attributes.schema.set(0, pa.field(ID, pa.int64(), nullable=False))
    # Its final name may be as long as names can be, and has no room for what an unfinished file is called.
    short = target.with_name("converted.parquet")
    with ShardWriter(short, schema, spec) as writer:
        for start in range(0, len(values), _BLOCK_ROWS):
            writer.write(attributes.slice(start, _BLOCK_ROWS), values[start : start + _BLOCK_ROWS])
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


class ImageWriter(ShardWriter):
    """Writes the images of one run as one canonical shard, many at a time."""

    def __init__(self, path: Path, columns: pa.Schema, spec: SampleSpec):
        super().__init__(path, columns, spec)
        self._columns = columns
        self._rows: list[tuple[str, bytes, np.ndarray]] = []

    def add(self, name: str, digest: str, pixels: np.ndarray) -> None:
        """One image: its path in the inbox, SHA-256 (hex) of the file, and its pixels."""
        self._rows.append((name, bytes.fromhex(digest), pixels))
        if len(self._rows) == _BLOCK_ROWS:
            self._write_rows()

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._rows:
            self._write_rows()
        super().__exit__(*error)

    def _write_rows(self) -> None:
        names, digests, pixels = zip(*self._rows, strict=True)
        known = {ID: names, FILE_DIGEST: digests}
        values = [pa.array(known.get(column.name, [None] * len(names)), column.type) for column in self._columns]
        self.write(pa.Table.from_arrays(values, schema=self._columns), np.stack(pixels))
        self._rows = []
