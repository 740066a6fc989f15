"""Pictures of any size as square tiles, and put together again.

    for rows, columns in tiles_of(pixels, 32).pieces: ...        # (k, 32, 32[, channels]), from left to right, top down
    picture = put_together(rows, attributes, 32)                 # the way back, cut to the true size

A picture's last tiles reach beyond it where its size is no multiple of theirs: its edge is repeated there, which costs
a codec little, and cut off again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ae_pipeline.errors import DataError, IncompleteRecordError
from ae_pipeline.kinds.base import Piece, Several
from ae_pipeline.kinds.image_pixels import GREY, MOST_PIXELS, RGB, RGBA, Pixels, image_of

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
            rows, tops, lefts = cut(block, size)
            columns: dict[str, Any] = {TOP: tops + top, LEFT: lefts + left}
            columns |= {HEIGHT: np.full(len(rows), pixels.height), WIDTH: np.full(len(rows), pixels.width)}
            yield rows, columns | ({COLOUR: [was] * len(rows)} if was else {})


def cut(block: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def bands_of(pieces: Iterable[tuple[np.ndarray, pa.Table]], size: int) -> Iterator[np.ndarray]:
    """The lines of one picture, (n, width[, channels]), band by band as its tiles come: (k, size, size[, channels]).

    Raises IncompleteRecordError where one is missing, or another picture's; DataError for columns of no picture.
    """
    picture: Picture | None = None
    done = 0
    held: list[np.ndarray] = []
    for tiles, attributes in pieces:
        picture = picture or picture_of(attributes, 0, size)
        _check(picture, attributes, done)
        start = 0
        while start < len(tiles):
            down, right = divmod(done, picture.across)
            count = min(picture.across - right, len(tiles) - start)
            strip = np.moveaxis(tiles[start : start + count], 0, 1).reshape(size, count * size, *tiles.shape[3:])
            high, wide = picture.height - down * size, picture.width - right * size
            held.append(_as(strip[:high, :wide], picture.colour))
            start, done = start + count, done + count
            if done % picture.across == 0:
                yield np.concatenate(held, axis=1) if len(held) > 1 else held[0]
                held = []
    _refuse_missing(picture, done)


def picture_from(pieces: Iterable[tuple[np.ndarray, pa.Table]], size: int) -> np.ndarray:
    """One picture, (height, width[, channels]), from its tiles as for `bands_of`, which raises the same."""
    picture, bands = _opened(pieces, size)
    whole: np.ndarray | None = None
    for top, lines in bands:
        if whole is None:
            whole = np.empty((picture.height, *lines.shape[1:]), lines.dtype)
        whole[top : top + len(lines)] = lines
    assert whole is not None
    return whole


def image_from(pieces: Iterable[tuple[np.ndarray, pa.Table]], size: int) -> Image.Image:
    """One picture as Pillow's image, which is all the memory that it takes. Raises what `picture_from` does."""
    picture, bands = _opened(pieces, size)
    whole: Image.Image | None = None
    for top, lines in bands:
        band = image_of(lines)
        if whole is None:
            whole = Image.new(band.mode, (picture.width, picture.height))
        whole.paste(band, (0, top))
    assert whole is not None
    return whole


def _opened(
    pieces: Iterable[tuple[np.ndarray, pa.Table]], size: int
) -> tuple[Picture, Iterator[tuple[int, np.ndarray]]]:
    """What picture it is, and its bands, each with the number of its first line."""
    source = iter(pieces)
    first = next(source)
    bands = bands_of(chain([first], source), size)
    return picture_of(first[1], 0, size), ((number * size, lines) for number, lines in enumerate(bands))


def put_together(rows: np.ndarray, attributes: pa.Table, size: int) -> Iterator[np.ndarray]:
    """The pictures that these tiles are, (n, size, size[, channels]), one after the other. Raises DataError."""
    start = 0
    while start < len(rows):
        picture = picture_of(attributes, start, size)
        end = min(start + picture.rows, len(rows))
        _refuse_missing(picture, end - start)
        yield picture_from([(rows[start:end], attributes.slice(start, end - start))], size)
        start = end


def _check(picture: Picture, attributes: pa.Table, done: int) -> None:
    """Raise IncompleteRecordError unless these tiles are the next ones of the picture, of which `done` were there."""
    places = np.arange(done, done + len(attributes))
    wanted: dict[str, Any] = {TOP: places // picture.across * picture.size}
    wanted |= {LEFT: places % picture.across * picture.size, HEIGHT: picture.height, WIDTH: picture.width}
    same = all((attributes.column(name).to_numpy() == values).all() for name, values in wanted.items())
    if picture.colour is not None:
        same = same and set(attributes.column(COLOUR).to_pylist()) == {picture.colour}
    if not same or (len(places) and places[-1] >= picture.rows):
        what = "a picture's tiles are not all there, or not in order"
        raise IncompleteRecordError(what, advice="decode all rows of its record")


def _refuse_missing(picture: Picture | None, done: int) -> None:
    if picture is None or done != picture.rows:
        what = f"a picture has {done:,} of its {picture.rows if picture else 1:,} tiles"
        raise IncompleteRecordError(what, advice="decode all rows of its record")


def _as(values: np.ndarray, colour: str | None) -> np.ndarray:
    """Colours as `colour`: grey by ITU-R 601-2's luma, which is the grey itself where all three are equal."""
    if colour is None or (colour != GREY and values.shape[2] == {RGB: 3, RGBA: 4}[colour]):
        return values
    opaque = np.ascontiguousarray(values[..., :3])
    return opaque if colour == RGB else np.asarray(Image.fromarray(opaque).convert("L"))
