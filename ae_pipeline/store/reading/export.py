"""Decoded rows into files: one Parquet file, or one image per row. Whole or not at all.

export_parquet(decode_rows(store, ids=[3, 17]), schema, spec, Path("rows.parquet"))
export_images(decode_rows(store, filter="label = 7"), schema, spec, Path("sevens"))
"""

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.data.blocks import Block
from ae_pipeline.data.parquet.writer import RowGroupWriter
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import ID, ShardWriter
from ae_pipeline.errors import ConfigError, TargetError
from ae_pipeline.files import finished_folder, refuse_existing

INDEX = "index.parquet"
FILE = "file"
_ROW_GROUP_ROWS = 8192
# By values per pixel: gray, RGB, RGB with alpha. Pillow writes no colours of 16 bits.
_DTYPES = {1: ("uint8", "uint16"), 3: ("uint8",), 4: ("uint8",)}
_LONGEST_NAME = 150  # of the 255 bytes that file systems allow
Progress = Callable[[int], None]


def export_parquet(
    blocks: Iterable[Block],
    attributes: pa.Schema,
    spec: SampleSpec,
    out: Path,
    progress: Progress = lambda rows: None,
) -> int:
    """Write rows in `prepare`'s layout to `out`, and return how many: one file if it ends in .parquet, else a folder.

    Raises TargetError if `out` exists already.
    """
    return export_file(blocks, partial(ShardWriter, attributes=attributes, spec=spec), out, progress)


def export_file(
    blocks: Iterable[Block],
    open_file: Callable[[Path], Any],
    out: Path,
    progress: Progress = lambda rows: None,
) -> int:
    """Do the same as `export_parquet` in the layout of `open_file`, which `decode_parts` explains."""
    refuse_existing(out)
    if out.suffix != ".parquet":
        with finished_folder(out) as folder:
            return _write_shard(blocks, open_file, folder / "part-00000.parquet", progress)
    if out.exists():
        raise TargetError(f"{out} is a folder, expected a file or nothing; choose another target")
    return _write_shard(blocks, open_file, out, progress)


def export_images(
    blocks: Iterable[Block],
    attributes: pa.Schema,
    spec: SampleSpec,
    out: Path,
    progress: Progress = lambda rows: None,
) -> int:
    """Write one PNG file per row into the folder `out`, with index.parquet: id, file, attributes. Returns the rows.

    Raises ConfigError for rows that are no images, TargetError if `out` exists already.
    """
    _check_image(spec)
    taken = next((name for name in attributes.names if name.casefold() == FILE), None)
    if taken:
        raise ConfigError(
            f"a column is called `{taken}`, as the index's column of file names is; choose others (--columns)"
        )
    schema = pa.schema([attributes.field(ID), pa.field(FILE, pa.string(), nullable=False), *list(attributes)[1:]])
    names = _FileNames()
    rows = 0
    with finished_folder(out) as folder, RowGroupWriter(folder / INDEX, schema, _ROW_GROUP_ROWS) as index:
        for block in blocks:
            ids = block.attributes.column(ID).to_pylist()
            files = [names.write(folder, row_id, image) for row_id, image in zip(ids, block.pixels, strict=True)]
            index.append(block.attributes.add_column(1, schema.field(FILE), [files]))
            rows += len(ids)
            progress(len(ids))
        os.sync()  # all images at once; a file at a time takes longer than decoding
    return rows


def file_stem(row_id: int | str) -> str:
    """A file name for an id that no other id has: letters, digits, `_`, `-` and `.` stay, other bytes become %XX.

    What is long is cut, and the name is then not unique. Names are never hidden, empty, or a way to another folder.
    """
    name = re.sub(rb"[^A-Za-z0-9_.-]", lambda byte: b"%%%02X" % byte[0][0], str(row_id).encode()).decode()
    name = re.sub(r"^\.", "%2E", name)
    return name[:_LONGEST_NAME] or "%"


def write_png(path: Path, pixels: np.ndarray) -> None:
    """One image, in a file that must not exist yet (FileExistsError). The same pixels give the same bytes."""
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
    with open(path, "xb") as file:
        image.save(file, "PNG")


def _check_image(spec: SampleSpec) -> None:
    """Raise ConfigError unless samples of this shape and dtype are images that Pillow writes as they are."""
    channels = spec.shape[2] if len(spec.shape) == 3 else 1
    if len(spec.shape) not in (2, 3) or spec.dtype not in _DTYPES.get(channels, ()):
        raise ConfigError(
            f"rows of {spec.describe()} are no images that PNG files are written of; expected height x width or "
            "height x width x 1 (gray) of uint8 or uint16, or height x width x 3 (RGB) or 4 (RGB with alpha) of uint8: "
            "use --format parquet"
        )


class _FileNames:
    """Gives every row a file of its own: repeated ids, and names that differ by case only, get a number."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def write(self, folder: Path, row_id: int | str, image: np.ndarray) -> str:
        stem = file_stem(row_id)
        while True:
            number = self._taken.get(stem, 1)
            name = f"{stem}.png" if number == 1 else f"{stem}~{number}.png"  # no stem has a tilde
            try:
                write_png(folder / name, image)
            except FileExistsError:
                self._taken[stem] = number + 1
                continue
            return name


def _write_shard(blocks: Iterable[Block], open_file: Callable[[Path], Any], path: Path, progress: Progress) -> int:
    rows = 0
    with open_file(path) as writer:
        for block in blocks:
            writer.write(block.attributes, block.pixels)
            rows += len(block.pixels)
            progress(len(block.pixels))
    return rows
