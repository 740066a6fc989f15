"""Kind `image`: a record is a picture; its row is all its pixels as they are, or its rows are tiles of it.

Grey stays grey (height, width), colour stays red, green, blue (height, width, 3), and colour with opacity keeps it as a
fourth channel. A palette is spelt out, which changes no colour. Fewer than 8 bits are spread over 0 to 255 as the
formats define it; 16 bits of grey stay 16 bits. EXIF's orientation is applied. Colour profiles are not: values stay as
they are stored. What could not be kept so is refused by name: CMYK, 16 bits of colour, grey with opacity, colours
multiplied with their opacity, several pictures in a file.

Pictures that all have one size, of at most 64 x 64 pixels, are a row each. Others are cut into tiles (image_tiles.py),
and a picture keeps its own size. Nothing is resized, unless `resize` asks for it: then pictures keep the new size.

A decoded row, or all tiles of a picture, become a picture again: PNG, or TIFF where its values are floats. JPEG and the
like come back as PNG, which loses nothing more.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import (
    Kind,
    Place,
    Row,
    Several,
    Source,
    as_tensors,
    finite_rows,
    refuse_dtype,
    tensor_shape,
)
from ae_pipeline.kinds.encoded import ENCODED, as_column, bytes_of, is_encoded, kept_path, paths_of
from ae_pipeline.kinds.image_files import IMAGE_SUFFIXES, size_of
from ae_pipeline.kinds.image_pixels import Pixels, file_of, image_of, is_picture, of_array, read_pixels, save_picture
from ae_pipeline.kinds.image_tiles import (
    COLOUR_COLUMN,
    COLUMNS,
    bands_of,
    image_from,
    picture_of,
    put_together,
    tiles_of,
)
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.params.base import Section

TileSize = Annotated[int, Field(ge=4, le=1024)]
Pixel = Annotated[int, Field(ge=1, le=1 << 15)]
Colour = Literal["rgb", "rgba"]
WHOLE = "whole"
USUAL_TILE = 32
MOST_WHOLE = 64 * 64
"""Pixels of the largest pictures that are rows of their own, unless a setting says otherwise."""


class ImageOptions(Section):
    """`source.files.settings` of this kind."""

    tile: TileSize | Literal["whole"] | None = None
    """Pixels a side of a tile; `whole`: a picture is a row, whatever its size, and all have one; null: whole pictures
    where all have one size of at most 64 x 64 pixels, tiles of 32 x 32 else."""
    resize: Annotated[list[Pixel], Field(min_length=2, max_length=2)] | None = None
    """Height and width that all pictures are brought to, by Lanczos's filter; their own sizes are not kept. null: they
    keep them."""
    colour: Colour | None = None
    """What grey pictures (`rgb`), or all that are not (`rgba`), are brought to, as tiles, where pictures of several
    colours lie together: each comes back as what it was. null: they are all of one."""


class ImageState(KindState):
    """What the codec keeps; a codec of whole pictures keeps their form alone."""

    tile: TileSize | None = None
    """Pixels a side of a tile; none: whole pictures."""
    resize: tuple[Pixel, Pixel] | None = None
    colour: Colour | None = None

    @property
    def is_plain(self) -> bool:
        """Whether pictures are rows as they are."""
        return self.tile is None and self.resize is None

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        return {name: value for name, value in values.items() if name == "form" or value is not None}


class ImageKind(Kind):
    """Pictures as files, as bytes in a column (binary, or Hugging Face's struct of bytes and path), or as arrays."""

    State, Options = ImageState, ImageOptions
    suffixes = IMAGE_SUFFIXES
    block_records = 64  # photographs are large
    column = "image"
    for_several_shapes = (
        "set source.files.settings: {tile: 32} for pictures of several sizes, {colour: rgb} for grey ones among "
        "colours (rgba: with opacity), or bring them to one size and one number of channels first"
    )

    def fit(self, form: Form, settings: Section, records: Iterator[Source]) -> ImageState:
        assert isinstance(settings, ImageOptions)
        resize = (settings.resize[0], settings.resize[1]) if settings.resize else None
        if settings.tile == WHOLE and settings.colour is not None:
            raise DataError("source.files.settings has `tile: whole` and `colour`", advice="set one of them to null")
        tile = settings.tile if isinstance(settings.tile, int) else None
        if settings.tile is None:
            sizes = iter([resize]) if resize else _sizes(records)
            tile = None if settings.colour is None and _alike_and_small(sizes) else USUAL_TILE
        return ImageState(form=form, tile=tile, resize=resize, colour=settings.colour)

    def makes_several(self, state: KindState) -> bool:
        return _said(state).tile is not None

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

    def rows_of_array(self, records: np.ndarray, place: Place, state: KindState | None) -> Iterator[Row]:
        said = _said(state)
        for number, row in enumerate(finite_rows(records, place)):
            assert isinstance(row, np.ndarray)
            yield row if said.is_plain else _row_of(of_array(row), place(number), said)

    def rows_of_column(self, records: pa.Array, place: Place, state: KindState | None) -> Iterator[Row]:
        for number, data in enumerate(bytes_of(records)):
            yield _row_of_file(data.as_py(), place(number), _said(state))

    def read_file(self, path: Path, state: KindState | None = None) -> Row:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", place=path) from None
        return _row_of_file(data, str(path), _said(state))

    def beside(self, records: pa.Array) -> dict[str, pa.Array]:
        """Hugging Face's path of each picture."""
        return paths_of(records)

    def row_columns(self, state: KindState) -> pa.Schema:
        said = _said(state)
        if said.tile is None:
            return pa.schema([])
        return COLUMNS.append(COLOUR_COLUMN) if said.colour else COLUMNS

    def usual_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:
        """Hugging Face's struct of bytes and path; tensors for rows that no picture's file can hold."""
        if is_picture(spec) or _said(state).tile is not None:
            return ENCODED
        return pa.fixed_shape_tensor(pa.from_numpy_dtype(spec.dtype), spec.shape)

    def from_rows(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> pa.Array:
        said = _said(state)
        kind = self.column_type(state, SampleSpec(rows.shape[1:], rows.dtype.name))
        pictures: Iterable[np.ndarray] = rows
        if said.tile is not None:
            pictures = put_together(rows, attributes, said.tile)
            attributes = attributes.take(pa.array(_first_rows(attributes, said.tile), pa.int64()))
        if tensor_shape(kind) is not None:
            return as_tensors(np.stack(list(pictures)), kind)
        return as_column([file_of(picture) for picture in pictures], attributes, state, kind)

    def folded(self, state: KindState) -> tuple[str, ...]:
        return (*self.row_columns(state).names, *kept_path(state))

    def to_array(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> np.ndarray:
        tile = _said(state).tile
        pictures = rows if tile is None else np.stack(list(put_together(rows, attributes, tile)))
        return super().to_array(pictures, attributes, state)

    def ending(self, state: KindState, spec: SampleSpec) -> str | None:  # noqa: ARG002
        if not is_picture(spec):
            return None
        return ".tif" if spec.dtype == "float32" else ".png"

    def write(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], path: Path, state: KindState) -> None:
        tile = _said(state).tile
        if tile is None:
            ((rows, _),) = pieces
            image = image_of(rows[0])
        else:
            image = image_from(pieces, tile)
        with open(path, "xb") as file:
            save_picture(image, file)

    def restored(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], state: KindState) -> Iterator[np.ndarray]:
        tile = _said(state).tile
        assert tile is not None
        for lines in bands_of(pieces, tile):
            whole = lines.dtype.kind != "f"
            yield lines / np.float64(np.iinfo(lines.dtype).max) if whole else lines.astype(np.float64)


_PLAIN = ImageState(form=Form(sort="files"))


def _said(state: KindState | None) -> ImageState:
    """The state, or that of whole pictures where nothing is fitted yet."""
    return state if isinstance(state, ImageState) else _PLAIN


def _row_of_file(data: bytes | None, place: str, said: ImageState) -> Row:
    if data is None:
        return DataError("has no picture", place=place, advice="put its bytes there, or remove it")
    try:
        pixels = read_pixels(data, place, large=said.tile is not None)
    except DataError as error:
        return error
    return _row_of(pixels, place, said)


def _row_of(pixels: Pixels, place: str, said: ImageState) -> np.ndarray | Several | DataError:
    try:
        if said.resize is not None:
            pixels = pixels.resized(*said.resize, place)
        return pixels.whole() if said.tile is None else tiles_of(pixels, said.tile, place, said.colour)
    except DataError as error:
        return error


def _first_rows(attributes: pa.Table, tile: int) -> Iterator[int]:
    """The number of each picture's first tile."""
    at = 0
    while at < len(attributes):
        yield at
        at += picture_of(attributes, at, tile).rows


def _alike_and_small(sizes: Iterator[tuple[int, int]]) -> bool:
    first = next(sizes, None)
    if first is None:
        return True  # nothing can be read, which is said when it is
    return first[0] * first[1] <= MOST_WHOLE and all(size == first for size in sizes)


def _sizes(records: Iterator[Source]) -> Iterator[tuple[int, int]]:
    """Height and width of each picture whose header can be read, or of all in an array."""
    for block in records:
        if isinstance(block, Path):
            found = size_of(block)
            if found is not None:
                yield found
        elif isinstance(block, np.ndarray):
            yield block.shape[1], block.shape[2]
        elif (shape := tensor_shape(block.type)) is not None:
            yield shape[0], shape[1]
        else:
            headers = (size_of(data) for data in bytes_of(block).drop_null().to_pylist())
            yield from (size for size in headers if size is not None)


KIND = ImageKind
