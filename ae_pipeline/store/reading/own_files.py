"""Records as the user's own files: a picture or clip each, or NumPy's arrays, with index.parquet beside them.

export_records(decode_rows(store), OwnForm(store), Path("photos"), as_files=True)
"""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.blocks import Block
from ae_pipeline.data.parquet.writer import RowGroupWriter
from ae_pipeline.data.samples import ID
from ae_pipeline.errors import ConfigError
from ae_pipeline.files import finished_folder
from ae_pipeline.store.reading.export import FILE, INDEX, Progress, file_stem
from ae_pipeline.store.reading.own_arrays import ArrayFile
from ae_pipeline.store.reading.own_form import RECORD, SOURCE_FILE, OwnForm, record_starts, whole_records

_ROW_GROUP_ROWS = 8192
_LONGEST_NAME = 200  # bytes of a file's name; file systems allow 255
Written = Iterator[tuple[list[str], pa.Table]]
"""Names of files, and the lines of the index that go with them."""


def export_records(
    blocks: Iterable[Block], form: OwnForm, out: Path, *, as_files: bool, progress: Progress = lambda rows: None
) -> int:
    """Write records into the folder `out`, with index.parquet: their columns and file. Returns how many files.

    `as_files`: a file for each record; else NumPy's arrays, one for each file that they came from. Raises TargetError
    if `out` exists already, ConfigError where a column would be mistaken for the index's own.
    """
    taken = next((name for name in form.schema.names if name.casefold() == FILE), None)
    if taken:
        raise ConfigError(
            f"a column is called `{taken}`, as the index's column of file names is; choose others (--columns)"
        )
    fields = [field for field in form.schema if field.name != form.column]
    schema = pa.schema([pa.field(FILE, pa.string(), nullable=False), *fields])
    with finished_folder(out) as folder, RowGroupWriter(folder / INDEX, schema, _ROW_GROUP_ROWS) as index:
        names = FileNames(folder, form)
        write = _write_files if as_files else _write_arrays
        for files, lines in write(blocks, form, names, progress):
            index.append(lines.add_column(0, schema.field(FILE), [pa.array(files)]).select(schema.names))
        os.sync()  # all files at once; a file at a time takes longer than decoding
    return names.count


def _write_files(blocks: Iterable[Block], form: OwnForm, names: "FileNames", progress: Progress) -> Written:
    """One file for each record, as it comes piece by piece where it has several rows."""
    if form.several:
        yield from _write_gathered(blocks, form, names, progress)
        return
    for block in blocks:
        files = names.of_records(block.attributes)
        for number, name in enumerate(files):
            row = block[number : number + 1]
            form.kind.write([(row.pixels, row.attributes)], names.folder / name, form.state)
        yield files, form.lines(block.attributes)
        progress(len(block))


def _write_gathered(blocks: Iterable[Block], form: OwnForm, names: "FileNames", progress: Progress) -> Written:
    for _, pieces in groupby(_pieces(blocks, progress), key=lambda piece: piece[0]):
        number, first = next(pieces)
        line = form.lines(first.attributes[:1])
        (name,) = names.of_records(first.attributes[:1])
        rows = ((block.pixels, block.attributes) for _, block in chain([(number, first)], pieces))
        form.kind.write(rows, names.folder / name, form.state)
        yield [name], line


def _pieces(blocks: Iterable[Block], progress: Progress) -> Iterator[tuple[int, Block]]:
    """Rows of one record each, and a number that tells records that follow each other apart."""
    number, before = 0, None
    for block in blocks:
        starts = record_starts(block.attributes, before)
        bounds = [0, *(int(start) for start in np.flatnonzero(starts) if start), len(block)]
        for start, end in pairwise(bounds):
            number += bool(starts[start])
            yield number, block[start:end]
        before = block.attributes
        progress(len(block))


def _write_arrays(blocks: Iterable[Block], form: OwnForm, names: "FileNames", progress: Progress) -> Written:
    """One array for the rows of each file that they came from."""
    blocks = whole_records(blocks) if form.several else blocks
    for _, pieces in groupby(_runs(blocks, progress), key=lambda piece: piece[0]):
        source, first = next(pieces)
        name = names.of_array(source)
        with ArrayFile(names.folder / name, form.form.column) as file:
            for _, block in chain([(source, first)], pieces):
                lines = form.lines(block.attributes)
                file.write(form.kind.to_array(block.pixels, block.attributes, form.state), lines)
                yield [name] * len(lines), lines


def _runs(blocks: Iterable[Block], progress: Progress) -> Iterator[tuple[str | None, Block]]:
    """Rows of one file each, and its name."""
    for block in blocks:
        if SOURCE_FILE not in block.attributes.column_names:
            yield None, block
        else:
            found = block.attributes.column(SOURCE_FILE)
            changes = pc.not_equal(found.slice(1), found.slice(0, len(found) - 1)).to_numpy().astype(bool)
            bounds = [0, *(int(start) + 1 for start in np.flatnonzero(changes)), len(block)]
            for start, end in pairwise(bounds):
                yield found[start].as_py(), block[start:end]
        progress(len(block))


class FileNames:
    """Gives each file a name below a folder: the user's own, as far as it stays there and no other file has it."""

    def __init__(self, folder: Path, form: OwnForm):
        self.folder, self.count = folder, 0
        self._form = form
        paths = [name for name in form.kind.folded(form.state) if name.endswith("_path")]
        # An inbox calls pictures and clips by their path: that is their id, or record.
        self._columns = [SOURCE_FILE, RECORD if form.several else ID] if form.form.sort == "files" else paths
        self._tried: dict[str, int] = {}

    def of_records(self, attributes: pa.Table) -> list[str]:
        """Name records by the files or paths that they came from, or else by their ids."""
        key = RECORD if self._form.several else ID
        there = [name for name in self._columns if name in attributes.column_names]
        known = [attributes.column(name).to_pylist() for name in there]
        return [
            self._of_record([str(column[number] or "") for column in known], row_id)
            for number, row_id in enumerate(attributes.column(key).to_pylist())
        ]

    def _of_record(self, known: list[str], row_id: int | str) -> str:
        ending = self._form.ending or ""
        for name in known:
            stem, _, suffix = name.rpartition(".")
            if stem and f".{suffix.lower()}" in self._form.kind.suffixes:
                return self._free(stem, f".{suffix}" if f".{suffix.lower()}" == ending else ending)
        return self._free(file_stem(row_id), ending)

    def of_array(self, source: str | None) -> str:
        """Name an array by the file that it came from; it is an .npz where the user's array had a name."""
        stem = (source or "records").rpartition(".")[0] or source or "records"
        return self._free(stem, ".npz" if self._form.form.column else ".npy")

    def _free(self, stem: str, ending: str) -> str:
        *folders, last = [_harmless(part) for part in stem.split("/") if part] or ["%"]
        place = self._folder(folders)
        while True:
            key = f"{place}/{last}{ending}".casefold()
            number = self._tried[key] = self._tried.get(key, 0) + 1
            name = f"{place}/{last}{ending}" if number == 1 else f"{place}/{last}~{number}{ending}"
            name = name.removeprefix("./")
            if not (self.folder / name).exists():
                self.count += 1
                return name

    def _folder(self, folders: list[str]) -> str:
        """The folder, which is made; another one where a file has its name."""
        place = "."
        for part in folders:
            number, inner = 1, self.folder / place / part
            while inner.exists() and not inner.is_dir():
                number += 1
                inner = self.folder / place / f"{part}~{number}"
            inner.mkdir(exist_ok=True)
            place = inner.relative_to(self.folder).as_posix()
        return place


def _harmless(part: str) -> str:
    """A name that is never hidden, long, empty, or a way to another folder; else the user's own."""
    is_plain = not re.search(r"^\.|[\x00-\x1f\x7f]", part) and len(part.encode()) <= _LONGEST_NAME
    return part if is_plain else file_stem(part)
