"""One image file to the pixels of one row, exactly, or the reason why not; and the images of one run to one shard.

The values are kept as they stand in the file (kinds/image_headers.py), turned as its orientation says. Nothing is
resized. Nothing is rescaled, but for values of fewer than 8 bits, which are spread over 0 to 255 as the formats define
it: that loses nothing.
Colour becomes grey, and transparency is dropped, where the samples have no place for them: `ReadImage` says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import ID, ShardWriter
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.image_files import (
    MODES,
    deep_values,
    has_transparency,
    load_upright,
    opened_image,
    plain,
    refuse_premultiplied,
)
from ae_pipeline.kinds.image_headers import ImageHeader
from ae_pipeline.operation.inbox.columns import FILE_DIGEST

_BLOCK_ROWS = 1024
_GREY = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class ReadImage:
    """Pixels of one image, as the samples' shape and dtype, and what they do not show of it."""

    pixels: np.ndarray
    lost_colour: bool
    lost_transparency: bool


def read_image(path: Path, spec: SampleSpec) -> ReadImage:
    """The pixels of one image file: grey for samples of two dimensions, red, green and blue for (height, width, 3).

    Raises DataError for what is not exactly one image of the samples' size and depth; OSError only if the file cannot
    be read.
    """
    with opened_image(path.read_bytes(), path, lambda header: _check_values(path, header, spec)) as (image, header):
        return _read(path, image, header, spec)


def _read(path: Path, image: Image.Image, header: ImageHeader, spec: SampleSpec) -> ReadImage:
    height, width = spec.shape[:2]
    if image.size not in ((width, height), (height, width)):
        raise _other_size(path, image, spec)
    load_upright(image)
    if image.size != (width, height):
        raise _other_size(path, image, spec)
    if image.mode not in MODES[spec.dtype]:
        raise DataError(
            f"{path} is of Pillow's mode {image.mode}, whose values are not {spec.describe()}; convert it first"
        )
    transparent = has_transparency(image, header)
    if transparent:
        refuse_premultiplied(image, header, path)
    if spec.dtype != "uint8":
        return ReadImage(deep_values(image, header, spec.dtype, path), False, transparent)
    grey = len(spec.shape) == 2
    pixels = np.asarray(plain(image).convert("L" if grey else "RGB")).astype(spec.dtype)
    return ReadImage(pixels, grey and _has_colour(image), transparent)


def _check_values(path: Path, header: ImageHeader | None, spec: SampleSpec) -> None:
    """Raise DataError unless images can be of the samples' kind, and the file's values can be kept as they are."""
    is_grey, is_colour = len(spec.shape) == 2, len(spec.shape) == 3 and spec.shape[2] == 3
    if not (is_grey and spec.dtype in MODES) and not (is_colour and spec.dtype == "uint8"):
        raise DataError(
            f"{path} is an image, and those are not read as samples of {spec.describe()}; give them as Parquet"
        )
    if header is None:
        return
    if header.trouble:
        raise DataError(f"{path} {header.trouble}; convert it to grey or RGB first, or give it as Parquet")
    if header.dtype != spec.dtype or (spec.dtype != "uint8" and header.channels != 1):
        raise DataError(
            f"{path} has {header.describe()}, expected {spec.dtype} as the codec has ({spec.describe()}); values are "
            "not changed: convert it first, or give it as Parquet"
        )


def _other_size(path: Path, image: Image.Image, spec: SampleSpec) -> DataError:
    height, width = spec.shape[:2]
    return DataError(
        f"{path} is {image.size[1]} high and {image.size[0]} wide, expected {height} and {width} for "
        f"{spec.describe()}; scale it first"
    )


def _has_colour(image: Image.Image) -> bool:
    if image.mode in _GREY:
        return False
    colours = np.asarray(plain(image).convert("RGB"))
    return bool((colours != colours[..., :1]).any())


class ImageWriter(ShardWriter):
    """Writes the images of one run as one canonical shard, in the columns of their store.

    Ids are the images' paths, `file_sha256` says which file each row was made from, and all else is null.
    """

    def __init__(self, path: Path, columns: pa.Schema, spec: SampleSpec):
        super().__init__(path, columns, spec)
        self._columns = columns
        self._rows: list[dict[str, Any]] = []
        self._pixels: list[np.ndarray] = []

    def add(self, name: str, digest: str, pixels: np.ndarray) -> None:
        """One image: its path in the inbox, SHA-256 (hex) of the file, and its pixels."""
        self._rows.append({ID: name, FILE_DIGEST: bytes.fromhex(digest)})
        self._pixels.append(pixels)
        if len(self._rows) == _BLOCK_ROWS:
            self._write_rows()

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._rows:
            self._write_rows()
        super().__exit__(*error)

    def _write_rows(self) -> None:
        self.write(pa.Table.from_pylist(self._rows, schema=self._columns), np.stack(self._pixels))
        self._rows, self._pixels = [], []
