"""Arrays written as NumPy has them, without ever being whole in memory: .npy, and .npz with columns beside the records.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import zipfile
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa

from ae_pipeline.errors import DataError

_PIECE = 1 << 20
_ENDING = ".npy"


class ArrayFile:
    """A context manager. `column` is the array's name in an .npz, beside which other columns are arrays, too."""

    def __init__(self, path: Path, column: str | None):
        self._path, self._column = path, column
        self._rows = 0
        self._array: np.ndarray | None = None
        self._lines: list[pa.Table] = []

    def __enter__(self) -> Self:
        is_archive = self._path.suffix == ".npz"
        self._values = self._path.with_name(f".{self._path.name}{_ENDING}") if is_archive else self._path
        self._file: IO[bytes] = open(self._values, "xb")
        return self

    def write(self, records: np.ndarray, lines: pa.Table) -> None:
        """Records (n, ...) and the columns beside them, which an .npy has no place for."""
        if self._array is None:
            self._array = records[:0]
            self._write_header()
        self._file.write(np.ascontiguousarray(records).tobytes())
        self._rows += len(records)
        if self._values is not self._path:
            self._lines.append(lines)

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None and self._array is not None:
                self._file.seek(0)
                self._write_header()
        finally:
            self._file.close()
        if self._values is not self._path:
            if error[0] is None:
                self._pack()
            self._values.unlink(missing_ok=True)

    def _write_header(self) -> None:
        """NumPy leaves room in a header for the first axis to grow, so that it can be written again at the end."""
        assert self._array is not None
        described = np.lib.format.dtype_to_descr(self._array.dtype)
        header = {"descr": described, "fortran_order": False, "shape": (self._rows, *self._array.shape[1:])}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _pack(self) -> None:
        lines = pa.concat_tables(self._lines)
        with zipfile.ZipFile(self._path, "x") as packed:
            member = zipfile.ZipInfo(f"{self._column}{_ENDING}")
            with packed.open(member, "w", force_zip64=True) as target, open(self._values, "rb") as source:
                while piece := source.read(_PIECE):
                    target.write(piece)
            for name in lines.column_names:
                values = _as_array(lines.column(name), name)
                with packed.open(zipfile.ZipInfo(f"{name}{_ENDING}"), "w", force_zip64=True) as target:
                    np.lib.format.write_array(target, values, allow_pickle=False)


def _as_array(column: pa.ChunkedArray, name: str) -> np.ndarray:
    values = column.to_numpy()
    if values.dtype.hasobject:
        if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            what = f"column `{name}` of type {column.type} cannot be an array of an .npz"
            raise DataError(what, advice="leave it out (--columns), or decode with --format parquet")
        values = values.astype(str)
    return values
