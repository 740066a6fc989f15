"""Rows and the columns beside them, written piece by piece, and mapped into memory to be read.

<split>.npy      NumPy's format: rows (n, *shape), C order
<split>.arrow    Arrow's IPC file format: the columns of these rows
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.data.sample_schema import ROW_ID
from ae_pipeline.errors import DataError, first_line

SPLITS = ("train", "test")


class SplitWriter:
    """Writes one split; use as a context manager. The shape of rows is that of the first ones."""

    def __init__(self, raw: Path, split: str, columns: pa.Schema):
        self.rows = 0
        self._path = raw / f"{split}.npy"
        self._columns_path = raw / f"{split}.arrow"
        self._columns = columns
        self._spec: SampleSpec | None = None

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._file = opened.enter_context(open(self._path, "wb"))
            sink = opened.enter_context(pa.OSFile(os.fsencode(self._columns_path), "w"))
            self._table = opened.enter_context(pa.ipc.new_file(sink, self._columns))
            self._opened = opened.pop_all()
        return self

    def write(self, spec: SampleSpec, rows: np.ndarray, columns: pa.Table) -> None:
        """Rows (n, *shape) and their columns."""
        if self._spec is None:
            self._spec = spec
            self._write_header()
        little = np.ascontiguousarray(rows, dtype=np.dtype(spec.dtype).newbyteorder("<"))
        self._file.write(little.tobytes())
        self._table.write_table(columns)
        self.rows += len(rows)

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._spec is not None:
            self._file.seek(0)
            self._write_header()
        self._opened.__exit__(*error)

    def _write_header(self) -> None:
        """NumPy leaves room in a header for the first axis to grow, so that it can be written again at the end."""
        assert self._spec is not None
        described = np.dtype(self._spec.dtype).newbyteorder("<").str
        shape = (self.rows, *self._spec.shape)
        header = {"descr": described, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def read_split(raw: Path, split: str, first_id: int) -> RawSplit:
    """What `SplitWriter` wrote, mapped into memory. Raises DataError where it cannot be read."""
    path = raw / f"{split}.npy"
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        path = raw / f"{split}.arrow"
        table = _read_columns(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        advice = "run `dvc repro --force --single-item download`"
        raise DataError(f"cannot be read: {reason}", place=path, advice=advice) from None
    if len(table) != len(pixels):
        raise DataError(f"has {len(table):,} rows of columns, expected {len(pixels):,}", place=path)
    return RawSplit(pixels, {name: table.column(name) for name in table.column_names}, first_id)


def _read_columns(path: Path) -> pa.Table:
    with pa.memory_map(os.fsencode(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def refuse_repeated_ids(raw: Path, what: str) -> None:
    """Raise DataError where two rows of both splits have one id. Takes memory for the ids, and for nothing else."""
    columns = [_read_columns(raw / f"{split}.arrow").column(ROW_ID) for split in SPLITS]
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
    distinct = pc.count_distinct(ids).as_py()
    if distinct < len(ids):
        advice = f"make them differ, or rename the column `{ROW_ID}`: rows are then numbered"
        raise DataError(f"has {len(ids) - distinct:,} ids that are there before", place=what, advice=advice)
