"""Contexts of values and of masks: eight neighbouring values of a row are one word of bytes, gathered in one step.

Values lie as bytes [row, picture, column], with columns from right to left and a margin of zeros. So the *word* of a
place, which is the value there and then those of its row to the left, begins at the byte of its place. A context is
some such words; `gathered` takes them from one pool of bytes, together with others that stand behind.

Everything is decoded in *wavefronts*: all places with column + slope * row = t at once, over all pictures, so that
what lies above (to the right, too, by less than the slope) and to the left is known. Values go one by one, masks in
blocks of 2 x 2, of which each is one of 16 symbols.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

VALUE_SLOPE, BLOCK_SLOPE = 4, 3
# Rows above, and columns to the right of the place, where a word ends. Of values; of the mask, which is known before
# values are; of blocks, of which each brings two words of four blocks, for its even and its odd row of values.
VALUE_PLACES = ((0, -1), (-1, 3), (-2, 4), (-3, 4), (-4, 4), (-5, 4), (-1, -5))
MASK_PLACES = ((0, 8), (1, 4), (2, 4), (3, 4))
BLOCK_PLACES = ((0, -1), (-1, 2), (-1, -2), (-2, 2), (-2, -2), (-3, 2))
RESTORE_PLACES = tuple((down, 4) for down in range(-3, 4))
"""Where the words end that restoring a value looks at: it lies in the middle of them."""
NEAR = 2
"""How many of BLOCK_PLACES are near: a block with nothing there has a fixed chance for each of its symbols."""
INK = 64
"""What stands for a value that is not 0 in the words of masks."""

WORD = 8
_ABOVE, _BELOW = 6, 3
# What is left of a row of one picture is right of that of another: both see the same zeros.
_RIGHT, _LEFT = 8, 4
_BLOCKS_ABOVE, _FIRST_BLOCK, _WORD_OF_BLOCKS = 3, 4, 0b1111


@dataclass(frozen=True)
class Sheet:
    """How the values of some pictures lie in memory."""

    height: int
    width: int
    pictures: int

    @property
    def _row(self) -> int:
        return _RIGHT + self.width + _LEFT

    @property
    def size(self) -> int:
        """How many bytes there are; a multiple of WORD, and more than WORD behind all values."""
        size = (self.height + _ABOVE + _BELOW) * self.pictures * self._row
        return -(-size // WORD) * WORD + WORD

    def at(self, rows: np.ndarray, columns: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The byte of a place in a picture: int32."""
        found = ((rows + _ABOVE) * self.pictures + pictures) * self._row + _RIGHT + self.width - 1 - columns
        return found.astype(np.int32)

    def away(self, places: tuple[tuple[int, int], ...]) -> np.ndarray:
        """How far the bytes at (rows down, columns to the right) are from that of a place: int32 (places,)."""
        return np.array([down * self.pictures * self._row - across for down, across in places], np.int32)

    def laid_out(self, values: np.ndarray) -> np.ndarray:
        """uint8 (pictures, height, width) to uint8 (size,)."""
        found = np.zeros(self.size, np.uint8)
        shape = (self.height + _ABOVE + _BELOW, self.pictures, self._row)
        plane = found[: shape[0] * shape[1] * shape[2]].reshape(shape)
        rows = plane[_ABOVE : _ABOVE + self.height, :, _RIGHT : _RIGHT + self.width]
        rows[:] = values.transpose(1, 0, 2)[..., ::-1]
        return found


def gathered(pool: np.ndarray, places: np.ndarray) -> np.ndarray:
    """uint8 (n, WORD * words): the words that begin at these bytes, int32 (n, words), of uint8 (size,)."""
    words = torch.from_numpy(pool).as_strided((len(pool) - WORD + 1, WORD), (1, 1))
    found: np.ndarray = words.index_select(0, torch.from_numpy(places.reshape(-1))).numpy()
    return found.reshape(len(places), WORD * places.shape[1])


class Order(NamedTuple):
    """Places in the order in which they are coded."""

    rows: np.ndarray
    columns: np.ndarray
    positions: np.ndarray
    """row * width + column."""
    ends: np.ndarray
    """How many places come before the first wavefront, the second, ..., and how many there are."""

    def of(self, planes: np.ndarray) -> np.ndarray:
        """(pictures, height, width) to (places, pictures)."""
        found: np.ndarray = planes.reshape(len(planes), -1).T[self.positions]
        return found

    def undo(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """(places, pictures) to (pictures, height, width)."""
        found = np.empty_like(values)
        found[self.positions] = values
        return np.ascontiguousarray(found.T).reshape(-1, height, width)


@lru_cache
def order_of(height: int, width: int, slope: int) -> Order:
    """By wavefront, and in it by row."""
    rows, columns = (axis.reshape(-1) for axis in np.indices((height, width)))
    fronts = columns + slope * rows
    chosen = np.lexsort((rows, fronts))
    rows, columns, fronts = rows[chosen], columns[chosen], fronts[chosen]
    ends = np.append(np.flatnonzero(np.diff(fronts, prepend=-1)), len(fronts))
    return Order(rows, columns, rows * width + columns, ends)


def block_symbols(mask: np.ndarray) -> np.ndarray:
    """Make uint8 (pictures, height / 2, width / 2) of a mask: its top left bit is the highest of four."""
    bits = mask.astype(np.uint8)
    return bits[:, ::2, ::2] * 8 + bits[:, ::2, 1::2] * 4 + bits[:, 1::2, ::2] * 2 + bits[:, 1::2, 1::2]


def mask_of(symbols: np.ndarray) -> np.ndarray:
    """Undo `block_symbols`."""
    count, height, width = symbols.shape
    mask = np.empty((count, 2 * height, 2 * width), bool)
    for place, bit in enumerate((8, 4, 2, 1)):
        mask[:, place // 2 :: 2, place % 2 :: 2] = symbols & bit
    return mask


class InkNear:
    """Which blocks have ink near them, and further away, in the words of BLOCK_PLACES.

    A word is of four blocks. Each row of blocks of a picture is one integer, with a bit for each block that has ink in
    the word that ends there.
    """

    def __init__(self, height: int, pictures: int):
        """Nothing has ink yet; there are `height` rows of blocks."""
        self._rows = np.zeros((height + _BLOCKS_ABOVE, pictures), np.uint64)

    def add(self, rows: np.ndarray, columns: np.ndarray, pictures: np.ndarray) -> None:
        """Take in blocks that have ink; in one call, no two of a picture are in one row."""
        at = (rows + _BLOCKS_ABOVE) * self._rows.shape[1] + pictures
        flat = self._rows.reshape(-1)
        flat[at] |= np.uint64(_WORD_OF_BLOCKS) << (columns + _FIRST_BLOCK).astype(np.uint64)

    def fill(self, has_ink: np.ndarray) -> None:
        """Take in all blocks, bool (pictures, height, width)."""
        bits = np.zeros((*has_ink.shape[:2], 64), np.uint8)
        bits[..., _FIRST_BLOCK : _FIRST_BLOCK + has_ink.shape[2]] = has_ink
        rows = np.packbits(bits, axis=-1, bitorder="little").view("<u8")[..., 0].T.astype(np.uint64)
        for blocks in range(_WORD_OF_BLOCKS.bit_length()):
            self._rows[_BLOCKS_ABOVE:] |= rows << np.uint64(blocks)

    def seen(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether there is ink near, and further away: bool (places, pictures) of blocks in these rows and columns."""
        near, far = (self._any(rows, columns, places) for places in (BLOCK_PLACES[:NEAR], BLOCK_PLACES[NEAR:]))
        return near, far

    def _any(self, rows: np.ndarray, columns: np.ndarray, places: tuple[tuple[int, int], ...]) -> np.ndarray:
        found = np.zeros((len(rows), self._rows.shape[1]), np.uint64)
        for down, across in places:
            shift = (columns + _FIRST_BLOCK + across).astype(np.uint64)[:, np.newaxis]
            found |= self._rows[rows + _BLOCKS_ABOVE + down] >> shift
        found &= np.uint64(1)
        return found.astype(bool)


def ink_of_blocks(mask: np.ndarray) -> np.ndarray:
    """uint8 (pictures, blocks): how many of the four values of each block are not 0, in units of INK / 4."""
    bits = mask.astype(np.uint8)
    ink = bits[:, ::2, ::2] + bits[:, ::2, 1::2] + bits[:, 1::2, ::2] + bits[:, 1::2, 1::2]
    return np.ascontiguousarray(ink.reshape(len(mask), -1) * np.uint8(INK // 4))
