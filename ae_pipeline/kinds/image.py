"""Kind `image`: a record is a picture, its row the pixels as they are.

Grey stays grey (height, width), colour stays red, green, blue (height, width, 3), and colour with opacity keeps it as a
fourth channel. A palette is spelt out, which changes no colour. Fewer than 8 bits are spread over 0 to 255 as the
formats define it; 16 bits of grey stay 16 bits. EXIF's orientation is applied. Colour profiles are not: values stay as
they are stored. What could not be kept so is refused by name: CMYK, 16 bits of colour, grey with opacity, colours
multiplied with their opacity, several pictures in a file.

A decoded row becomes a picture again: PNG, or TIFF where its values are floats. JPEG and the like come back as PNG,
which loses nothing more.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Place, Row, as_tensors, refuse_dtype, tensor_shape
from ae_pipeline.kinds.encoded import ENCODED, as_column, bytes_of, is_encoded, kept_path, paths_of
from ae_pipeline.kinds.image_files import (
    IMAGE_SUFFIXES,
    MODES,
    deep_values,
    load_upright,
    opened_image,
    plain,
    refuse_premultiplied,
)
from ae_pipeline.kinds.image_headers import ImageHeader
from ae_pipeline.kinds.state import KindState

# By values per pixel: grey, RGB, RGB with opacity. Pillow writes no colours of 16 bits.
_PICTURES = {1: ("uint8", "uint16", "float32"), 3: ("uint8",), 4: ("uint8",)}


class ImageKind(Kind):
    """Pictures as files, as bytes in a column (binary, or Hugging Face's struct of bytes and path), or as arrays."""

    suffixes = IMAGE_SUFFIXES
    block_records = 64  # photographs are large
    column = "image"

    def takes(self, column: pa.DataType) -> bool:
        shape = tensor_shape(column)
        return is_encoded(column) or (shape is not None and len(shape) in (2, 3))

    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        refuse_dtype(dtype, place)
        if len(shape) not in (3, 4):
            what = f"has shape {list(shape)}, expected (pictures, height, width) or (..., channels)"
            raise DataError(
                what, place=place, advice="reshape it, or set source.files.kind: vector for rows of numbers"
            )

    def rows_of_column(self, records: pa.Array, place: Place, state: KindState | None) -> Iterator[Row]:  # noqa: ARG002
        for number, data in enumerate(bytes_of(records)):
            yield _row_of(data.as_py(), place(number))

    def beside(self, records: pa.Array) -> dict[str, pa.Array]:
        """Hugging Face's path of each picture."""
        return paths_of(records)

    def usual_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:  # noqa: ARG002
        """Hugging Face's struct of bytes and path; tensors for rows that no picture's file can hold."""
        if is_picture(spec):
            return ENCODED
        return pa.fixed_shape_tensor(pa.from_numpy_dtype(spec.dtype), spec.shape)

    def from_rows(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> pa.Array:
        spec = SampleSpec(rows.shape[1:], rows.dtype.name)
        kind = self.column_type(state, spec)
        if tensor_shape(kind) is not None:
            return as_tensors(rows, kind)
        files = [file_of(row) for row in rows]
        return as_column(files, attributes, state, kind)

    def folded(self, state: KindState) -> tuple[str, ...]:
        return kept_path(state)

    def ending(self, state: KindState, spec: SampleSpec) -> str | None:  # noqa: ARG002
        if not is_picture(spec):
            return None
        return ".tif" if spec.dtype == "float32" else ".png"

    def write(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], path: Path, state: KindState) -> None:  # noqa: ARG002
        ((rows, _),) = pieces
        with open(path, "xb") as file:
            file.write(file_of(rows[0]))


def is_picture(spec: SampleSpec) -> bool:
    """Whether a picture's file can hold rows of this shape and dtype as they are."""
    channels = spec.shape[2] if len(spec.shape) == 3 else 1
    return len(spec.shape) in (2, 3) and spec.dtype in _PICTURES.get(channels, ())


def file_of(row: np.ndarray) -> bytes:
    """A row that is a picture as a file: PNG, or TIFF of floats. The same row gives the same bytes.

    Raises DataError for a row that no such file can hold.
    """
    spec = SampleSpec(row.shape, row.dtype.name)
    if not is_picture(spec):
        what = f"rows of {spec.describe()} are no pictures that PNG or TIFF files are written of"
        raise DataError(what, advice="decode them with --format rows")
    image = Image.fromarray(row[:, :, 0] if row.shape[2:] == (1,) else row)
    file = io.BytesIO()
    image.save(file, "TIFF" if row.dtype.kind == "f" else "PNG")
    return file.getvalue()


def as_it_is(data: bytes, place: str) -> np.ndarray:
    """The pixels of an image file, (height, width) or (height, width, 3 or 4). Raises DataError; see above."""
    with opened_image(data, place, lambda header: _check_values(header, place)) as (image, header):
        load_upright(image)
        dtype = header.dtype or "uint8"
        if image.mode not in MODES[dtype]:
            advice = "convert it to grey or RGB first"
            raise DataError(
                f"is of Pillow's mode {image.mode}, whose values cannot be kept", place=place, advice=advice
            )
        refuse_premultiplied(image, header, place)
        mode = _mode_of(image, header, place)
        return deep_values(image, header, dtype, place) if mode is None else np.asarray(plain(image).convert(mode))


def _row_of(data: bytes | None, place: str) -> Row:
    if data is None:
        return DataError("has no picture", place=place, advice="put its bytes there, or remove it")
    try:
        return as_it_is(data, place)
    except DataError as error:
        return error


def _mode_of(image: Image.Image, header: ImageHeader, place: str) -> str | None:
    """The mode of 8 bits that holds all of a picture; None for one of more bits."""
    has_opacity = image.has_transparency_data or header.transparent is not None
    grey = image.mode not in ("P", "PA", "RGB", "RGBA")
    if grey and has_opacity:
        what = "is grey with transparency, for which rows have no place"
        raise DataError(what, place=place, advice="save it as RGBA, or without transparency")
    if grey:
        return "L" if header.dtype in (None, "uint8") else None
    return "RGBA" if has_opacity else "RGB"


def _check_values(header: ImageHeader | None, place: str) -> None:
    if header is None:
        return
    if header.trouble:
        raise DataError(header.trouble, place=place, advice="convert it to grey or RGB first")
    if header.dtype is None or (header.dtype != "uint8" and header.channels != 1):
        what = f"has {header.describe()}, which rows cannot hold as they are"
        raise DataError(what, place=place, advice="convert it to 8 bits, or to 16 bits of grey, first")


KIND = ImageKind
