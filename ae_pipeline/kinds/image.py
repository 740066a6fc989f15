"""Kind `image`: a record is a picture, its row the pixels as they are.

Grey stays grey (height, width), colour stays red, green, blue (height, width, 3), and colour with opacity keeps it as a
fourth channel. A palette is spelt out, which changes no colour. Fewer than 8 bits are spread over 0 to 255 as the
formats define it; 16 bits of grey stay 16 bits. EXIF's orientation is applied. Colour profiles are not: values stay as
they are stored. What could not be kept so is refused by name: CMYK, 16 bits of colour, grey with opacity, colours
multiplied with their opacity, several pictures in a file.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from PIL import Image

from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Place, Row, refuse_dtype, tensor_shape
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

_BYTES, _PATH = "bytes", "path"


class ImageKind(Kind):
    """Pictures as files, as bytes in a column (binary, or Hugging Face's struct of bytes and path), or as arrays."""

    suffixes = IMAGE_SUFFIXES
    block_records = 64  # photographs are large

    def takes(self, column: pa.DataType) -> bool:
        if pa.types.is_struct(column):
            names = [column.field(place).name for place in range(column.num_fields)]
            return set(names) in ({_BYTES}, {_BYTES, _PATH}) and _is_binary(column.field(_BYTES).type)
        shape = tensor_shape(column)
        return _is_binary(column) or (shape is not None and len(shape) in (2, 3))

    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        refuse_dtype(dtype, place)
        if len(shape) not in (3, 4):
            what = f"has shape {list(shape)}, expected (pictures, height, width) or (..., channels)"
            raise DataError(
                what, place=place, advice="reshape it, or set source.files.kind: vector for rows of numbers"
            )

    def rows_of_column(self, records: pa.Array, place: Place) -> Iterator[Row]:
        for number, data in enumerate(_bytes_of(records)):
            yield _row_of(data.as_py(), place(number))

    def beside(self, records: pa.Array) -> dict[str, pa.Array]:
        """Hugging Face's path of each picture."""
        has_path = pa.types.is_struct(records.type) and records.type.get_field_index(_PATH) >= 0
        return {_PATH: _field(records, _PATH)} if has_path else {}


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


def _bytes_of(records: pa.Array) -> pa.Array:
    return _field(records, _BYTES) if pa.types.is_struct(records.type) else records


def _field(records: pa.StructArray, name: str) -> pa.Array:
    """A field of structs, missing where the struct is."""
    return records.flatten()[records.type.get_field_index(name)]


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


KIND = ImageKind
