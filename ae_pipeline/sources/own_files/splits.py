"""Rows and the columns beside them, written piece by piece, and mapped into memory to be read.

<split>.npy      NumPy's format: rows (n, *shape), C order
<split>.arrow    Arrow's IPC file format: the columns of these rows
kind.json        what a row means, for the codec to keep: name and state of the kind
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import Groups, RawSplit, SampleSpec
from ae_pipeline.data.sample_schema import ROW_ID
from ae_pipeline.errors import DataError, first_line
from ae_pipeline.files import write_json
from ae_pipeline.kinds import open_kind
from ae_pipeline.sources.own_files.columns import FOLDER, LABEL, RECORD, SOURCE_FILE
from ae_pipeline.sources.own_files.listing import folder_of

SPLITS = ("train", "test")
KIND_NAME = "kind.json"
_AGAIN = "run `dvc repro --force --single-item download`"


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


def read_splits(raw: Path, group: str | None = None, label: str | None = None) -> dict[str, RawSplit]:
    """What `SplitWriter` and `write_kind` wrote, rows mapped into memory. Raises DataError where it cannot be read.

    `group` and `label` are `source.files.group` and `source.files.label`.
    """
    entry, found = _read_kind(raw), {}
    kind, state = open_kind(entry, str(raw)) if entry else (None, None)
    record = RECORD if kind and state and kind.makes_several(state) else None
    first_id = 0
    for split in SPLITS:
        pixels, columns = _read_split(raw, split)
        groups = None if group is None else _groups(columns, group, label)
        found[split] = RawSplit(pixels, columns, first_id, entry, record if record in columns else None, groups)
        first_id += len(pixels)
    return found


def _groups(columns: dict[str, pa.ChunkedArray], by: str, label: str | None) -> Groups:
    """The groups of rows: by a column as it was written, or by the folder in the names of their files."""
    column = columns[SOURCE_FILE] if by == FOLDER else columns[LABEL if by == label else by]
    numbers = np.empty(len(column), np.int64)
    names: dict[str, int] = {}
    first = 0
    for chunk in column.chunks:
        found = chunk.dictionary_encode()
        texts = [str(value) for value in found.dictionary.to_pylist()]
        texts = [folder_of(text) for text in texts] if by == FOLDER else texts
        known = np.array([names.setdefault(text, len(names)) for text in texts], np.int64)
        numbers[first : first + len(chunk)] = known[found.indices.to_numpy()]
        first += len(chunk)
    return Groups(by, numbers)


def write_kind(raw: Path, entry: KindEntry | None) -> None:
    """Write `kind.json`; nothing for rows of no kind."""
    if entry is not None:
        write_json(raw / KIND_NAME, entry.model_dump(mode="json"))


def _read_kind(raw: Path) -> KindEntry | None:
    path = raw / KIND_NAME
    if not path.exists():
        return None
    try:
        return KindEntry.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {first_line(error)}", place=path, advice=_AGAIN) from None


def _read_split(raw: Path, split: str) -> tuple[np.ndarray, dict[str, pa.ChunkedArray]]:
    path = raw / f"{split}.npy"
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        path = raw / f"{split}.arrow"
        table = _read_columns(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"cannot be read: {reason}", place=path, advice=_AGAIN) from None
    if len(table) != len(pixels):
        raise DataError(f"has {len(table):,} rows of columns, expected {len(pixels):,}", place=path)
    return pixels, {name: table.column(name) for name in table.column_names}


def _read_columns(path: Path) -> pa.Table:
    with pa.memory_map(os.fsencode(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def refuse_repeated_ids(raw: Path, what: str, key: str, records: int) -> None:
    """Raise DataError unless the column `key` of both splits has so many values. Takes memory for them alone."""
    columns = [_read_columns(raw / f"{split}.arrow").column(key) for split in SPLITS]
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
    distinct = pc.count_distinct(ids).as_py()
    if distinct < records:
        advice = f"make them differ, or rename the column `{ROW_ID}`: rows are then numbered"
        raise DataError(f"has {records - distinct:,} ids that are there before", place=what, advice=advice)
