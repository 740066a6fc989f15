"""Pictures of any size as square tiles, and put together again.

    for rows, columns in tiles_of(pixels, 32).pieces: ...        # (k, 32, 32[, channels]), from left to right, top down
    picture = put_together(rows, attributes, 32)                 # the way back, cut to the true size

A picture's last tiles reach beyond it where its size is no multiple of theirs: its edge is repeated there, which costs
a codec little, and cut off again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Piece, Several
from ae_pipeline.kinds.image_pixels import GREY, MOST_PIXELS, RGB, RGBA, Pixels

TOP, LEFT, HEIGHT, WIDTH, COLOUR = "tile_top", "tile_left", "picture_height", "picture_width", "picture_colour"
COLUMNS = pa.schema([pa.field(name, pa.int32(), nullable=False) for name in (TOP, LEFT, HEIGHT, WIDTH)])
"""Where a tile lies in its picture, and the picture's size, in pixels."""
COLOUR_COLUMN = pa.field(COLOUR, pa.string(), nullable=False)
"""What the picture was, where all are brought to one colour: `grey`, `rgb` or `rgba`."""
# Bytes of the tiles that are made at once.
_PIECE_BYTES = 4 << 20


def tiles_of(pixels: Pixels, size: int, place: str, colour: str | None = None) -> Several:
    """The tiles of a picture, `size` pixels a side; brought to `colour` where one is given. Raises DataError."""
    if pixels.height * pixels.width > MOST_PIXELS:
        what = f"has {pixels.height * pixels.width:,} pixels, at most {MOST_PIXELS:,} are supported"
        raise DataError(what, place=place, advice="cut it into several pictures first")
    shown = pixels if colour is None else pixels.brought_to(colour, place)
    rows = -(-pixels.height // size) * -(-pixels.width // size)
    return Several(rows, _pieces(shown, size, pixels.colour if colour else None))


def _pieces(pixels: Pixels, size: int, was: str | None) -> Iterator[Piece]:
    """Make as many bands of tiles at once as `_PIECE_BYTES` hold, or a part of one band."""
    corner = pixels.crop(0, 0, 1, 1)
    most = max(1, _PIECE_BYTES // (corner.nbytes * size * size))
    across = -(-pixels.width // size)
    high, wide = size * max(1, most // across), size * min(across, most)
    for top in range(0, pixels.height, high):
        for left in range(0, pixels.width, wide):
            block = pixels.crop(top, left, min(top + high, pixels.height), min(left + wide, pixels.width))
            rows, tops, lefts = _cut(block, size)
            columns: dict[str, Any] = {TOP: tops + top, LEFT: lefts + left}
            columns |= {HEIGHT: np.full(len(rows), pixels.height), WIDTH: np.full(len(rows), pixels.width)}
            yield rows, columns | ({COLOUR: [was] * len(rows)} if was else {})


def _cut(block: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part of a picture as tiles (k, size, size[, channels]), its edges repeated; and where each lies: top, left."""
    height, width, *rest = block.shape
    down, across = -(-height // size), -(-width // size)
    beyond = [(0, down * size - height), (0, across * size - width), *((0, 0) for _ in rest)]
    whole = np.pad(block, beyond, mode="edge") if (height, width) != (down * size, across * size) else block
    tiles = whole.reshape(down, size, across, size, *rest).swapaxes(1, 2).reshape(-1, size, size, *rest)
    places = np.arange(len(tiles))
    return tiles, places // across * size, places % across * size


@dataclass(frozen=True)
class Picture:
    """True size of a picture, and what it was where all were brought to one colour."""

    height: int
    width: int
    colour: str | None
    size: int
    """Pixels a side of its tiles."""

    @property
    def rows(self) -> int:
        """How many tiles it has."""
        return -(-self.height // self.size) * self.across

    @property
    def across(self) -> int:
        """How many tiles lie beside each other."""
        return -(-self.width // self.size)


def picture_of(attributes: pa.Table, row: int, size: int) -> Picture:
    """The picture that a row is a tile of. Raises DataError for columns that no picture can have given."""
    height, width = (attributes.column(name)[row].as_py() for name in (HEIGHT, WIDTH))
    colour = attributes.column(COLOUR)[row].as_py() if COLOUR in attributes.column_names else None
    if height < 1 or width < 1 or height * width > MOST_PIXELS or colour not in (None, GREY, RGB, RGBA):
        what = f"the rows' columns say that a picture has {height} x {width} pixels and is {colour or 'as they are'}"
        raise DataError(what, advice="restore the store")
    return Picture(height, width, colour, size)


class Canvas:
    """Puts the tiles of one picture together, piece by piece."""

    def __init__(self, picture: Picture, tiles: np.ndarray):
        self._picture, self._done = picture, 0
        channels = {None: tiles.shape[3:], GREY: (), RGB: (3,), RGBA: (4,)}[picture.colour]
        self._values = np.empty((picture.height, picture.width, *channels), tiles.dtype)

    def add(self, tiles: np.ndarray, attributes: pa.Table) -> None:
        """Tiles in order, (k, size, size[, channels]). Raises DataError where one is missing, or another picture's."""
        self._check(attributes)
        size, across = self._picture.size, self._picture.across
        start = 0
        while start < len(tiles):
            down, right = divmod(self._done, across)
            count = min(across - right, len(tiles) - start)
            band = np.moveaxis(tiles[start : start + count], 0, 1)
            band = band.reshape(size, count * size, *tiles.shape[3:])
            target = self._values[down * size : (down + 1) * size, right * size : (right + count) * size]
            target[...] = _as(band[: target.shape[0], : target.shape[1]], self._picture.colour)
            start, self._done = start + count, self._done + count

    def finished(self) -> np.ndarray:
        """The picture. Raises DataError where tiles are missing."""
        if self._done != self._picture.rows:
            missing = f"a picture has {self._done:,} of its {self._picture.rows:,} tiles"
            raise DataError(missing, advice="decode all rows of its record")
        return self._values

    def _check(self, attributes: pa.Table) -> None:
        picture = self._picture
        places = np.arange(self._done, self._done + len(attributes))
        wanted: dict[str, Any] = {TOP: places // picture.across * picture.size}
        wanted |= {LEFT: places % picture.across * picture.size, HEIGHT: picture.height, WIDTH: picture.width}
        same = all((attributes.column(name).to_numpy() == values).all() for name, values in wanted.items())
        if picture.colour is not None:
            same = same and set(attributes.column(COLOUR).to_pylist()) == {picture.colour}
        if not same or (len(places) and places[-1] >= picture.rows):
            what = "a picture's tiles are not all there, or not in order"
            raise DataError(what, advice="decode all rows of its record")


def put_together(rows: np.ndarray, attributes: pa.Table, size: int) -> Iterator[np.ndarray]:
    """The pictures that these tiles are, (n, size, size[, channels]), one after the other. Raises DataError."""
    start = 0
    while start < len(rows):
        picture = picture_of(attributes, start, size)
        end = min(start + picture.rows, len(rows))
        if end - start < picture.rows:
            missing = f"a picture has {end - start:,} of its {picture.rows:,} tiles"
            raise DataError(missing, advice="decode all rows of its record")
        canvas = Canvas(picture, rows)
        canvas.add(rows[start:end], attributes.slice(start, end - start))
        yield canvas.finished()
        start = end


def _as(values: np.ndarray, colour: str | None) -> np.ndarray:
    """Colours as `colour`: grey by ITU-R 601-2's luma, which is the grey itself where all three are equal."""
    if colour is None or (colour != GREY and values.shape[2] == {RGB: 3, RGBA: 4}[colour]):
        return values
    opaque = np.ascontiguousarray(values[..., :3])
    return opaque if colour == RGB else np.asarray(Image.fromarray(opaque).convert("L"))
