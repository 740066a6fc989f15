"""Contexts of values and of masks: eight neighbouring values of a row are one 64-bit word, gathered in one step.

Planes are laid out [row, column, picture], with a margin of zeros, and hold in each place the word of the eight values
that end there: its lowest byte is the value itself, the next one that to its left. A context is some such words.

Everything is decoded in *wavefronts*: all places with column + slope * row = t at once, over all pictures, so that
what lies above (to the right, too, by less than the slope) and to the left is known. Values go one by one, masks in
blocks of 2 x 2, of which each is one of 16 symbols.
"""

from dataclasses import dataclass

import numpy as np

VALUE_SLOPE, BLOCK_SLOPE = 4, 3
# Rows above, and columns to the right of the place, where a word ends. Of values; of the mask, which is known before
# values are; of blocks, of which each brings two words of four blocks, for its even and its odd row of values.
VALUE_PLACES = ((0, -1), (-1, 3), (-2, 4), (-3, 4), (-4, 4), (-5, 4), (-1, -5))
MASK_PLACES = ((0, 8), (1, 4), (2, 4), (3, 4))
BLOCK_PLACES = ((0, -1), (-1, 2), (-1, -2), (-2, 2), (-2, -2), (-3, 2))
NEAR = 2
"""How many of BLOCK_PLACES are near: a block with nothing there has a fixed chance for each of its symbols."""
INK = 64
"""What stands for a value that is not 0 in the words of masks."""

_ABOVE, _BELOW, _LEFT, _RIGHT = 6, 4, 8, 9
_BLOCKS_ABOVE = _BLOCKS_LEFT = _BLOCKS_RIGHT = 4

Step = tuple[int, int, int]
"""A wavefront: its first row, the column there, and how many rows."""


@dataclass(frozen=True)
class Sheet:
    """Places of a plane: rows and columns, and the margin around them."""

    height: int
    width: int
    slope: int
    above: int
    below: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        """Count them, with the margin."""
        return self.height + self.above + self.below

    @property
    def columns(self) -> int:
        """Count them, with the margin."""
        return self.width + self.left + self.right

    def steps(self, beyond: int) -> list[Step]:
        """All wavefronts, also those that reach up to `beyond` columns over the right edge: words move on there."""
        found = []
        for front in range(self.width + self.slope * (self.height - 1) + beyond):
            rows = [row for row in range(self.height) if 0 <= front - self.slope * row < self.width + beyond]
            if rows:
                found.append((rows[0], front - self.slope * rows[0], len(rows)))
        return found

    def front(self, plane: np.ndarray, step: Step, down: int = 0, across: int = 0) -> np.ndarray:
        """View (places, pictures) of a plane along a wavefront, or as far from it as said."""
        row, column, count = step
        first, second, _ = plane.strides
        offset = (row + self.above + down) * first + (column + self.left + across) * second
        strides = (first - self.slope * second, plane.itemsize)
        return np.ndarray((count, plane.shape[2]), plane.dtype, plane, offset, strides)

    def place(self, rows: np.ndarray, columns: np.ndarray, pictures: int) -> np.ndarray:
        """Flat index of the first picture's element at these places."""
        flat: np.ndarray = ((rows + self.above) * self.columns + columns + self.left) * pictures
        return flat

    def away(self, down: int, across: int, pictures: int) -> int:
        """How far in a flat plane another place is."""
        return (down * self.columns + across) * pictures


def value_sheet(height: int, width: int) -> Sheet:
    """The sheet of values."""
    return Sheet(height, width, VALUE_SLOPE, _ABOVE, _BELOW, _LEFT, _RIGHT)


def block_sheet(height: int, width: int) -> Sheet:
    """The sheet of blocks of 2 x 2 values; height and width are even."""
    return Sheet(height // 2, width // 2, BLOCK_SLOPE, _BLOCKS_ABOVE, 0, _BLOCKS_LEFT, _BLOCKS_RIGHT)


def words(plane: np.ndarray) -> np.ndarray:
    """uint8 (rows, columns, pictures) to uint64: at each place, the eight values that end there."""
    found = np.empty(plane.shape, np.uint64)
    for whole, row in zip(found, plane, strict=True):  # a row at a time stays in the cache
        whole[:] = row
        for places in (1, 2, 4):
            whole[places:] |= whole[:-places] << np.uint64(8 * places)
    return found


def laid_out(values: np.ndarray, sheet: Sheet) -> np.ndarray:
    """uint8 (pictures, height, width) to a plane with its margin."""
    plane = np.zeros((sheet.rows, sheet.columns, len(values)), np.uint8)
    plane[sheet.above : sheet.above + sheet.height, sheet.left : sheet.left + sheet.width] = values.transpose(1, 2, 0)
    return plane


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


def block_planes(mask: np.ndarray, sheet: Sheet) -> tuple[np.ndarray, np.ndarray]:
    """Words of the even and of the odd rows of values, at the right column of each block."""
    found = []
    for odd in (0, 1):
        plane = np.zeros((sheet.rows, 2 * sheet.columns, len(mask)), np.uint8)
        rows = mask[:, odd::2].transpose(1, 2, 0).astype(np.uint8) * np.uint8(INK)
        plane[sheet.above :, 2 * sheet.left : 2 * (sheet.left + sheet.width)] = rows
        found.append(np.ascontiguousarray(words(plane)[:, 1::2]))
    return found[0], found[1]


def ink_of_blocks(mask: np.ndarray) -> np.ndarray:
    """uint8 (pictures, blocks): how many of the four values of each block are not 0, in units of INK / 4."""
    bits = mask.astype(np.uint8)
    ink = bits[:, ::2, ::2] + bits[:, ::2, 1::2] + bits[:, 1::2, ::2] + bits[:, 1::2, 1::2]
    return np.ascontiguousarray(ink.reshape(len(mask), -1) * np.uint8(INK // 4))
