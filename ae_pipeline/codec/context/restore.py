"""Restored values: a small network moves each value of the grid within its bin, to where it most likely was.

A bin is all values that have the same index. A restored value stays in it, so that it is at most as far from the
original as the bin is wide less 1: up to twice the bound. The mean squared error is smaller than the grid's.
"""

import numpy as np

from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.networks import Networks, padded
from ae_pipeline.codec.context.words import RESTORE_PLACES, Sheet, gathered

_LAYERS = ("restore.first", "restore.second", "restore.move")
_ZERO = 128  # the byte that moves nothing
_AT_ONCE = 1 << 18  # values


class Restorer:
    """Restores the values that a codec with these networks decodes."""

    def __init__(self, networks: Networks, grid: Grid):
        self._networks, self._grid = networks, grid
        self._lowest, self._highest = (ends.astype(np.int16) for ends in grid.bins)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """uint8 (n, height, width) of the grid to uint8 of the same shape."""
        at_once = max(1, _AT_ONCE // (values.shape[1] * values.shape[2]))
        found = values.copy()
        for first in range(0, len(values), at_once):
            found[first : first + at_once] = self._of_some(values[first : first + at_once])
        return found

    def _of_some(self, values: np.ndarray) -> np.ndarray:
        context, (pictures, rows, columns) = contexts(values)
        moves = self._networks.run(_LAYERS, context)[: len(pictures), 0].astype(np.int16) - _ZERO
        before = values[pictures, rows, columns]
        index = self._grid.indices(before)
        found = values.copy()
        moved = (before + moves).clip(self._lowest[index], self._highest[index])
        found[pictures, rows, columns] = moved.astype(np.uint8)
        return found


def contexts(values: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """uint8 (n or more, bytes) of values that are not far from ink, and where those n are: picture, row, column."""
    count, height, width = values.shape
    ink = np.pad(values != 0, ((0, 0), (1, 1), (1, 1)))
    near = np.zeros(values.shape, bool)
    for down in range(3):
        for across in range(3):
            near |= ink[:, down : down + height, across : across + width]
    pictures, rows, columns = np.nonzero(near)
    sheet = Sheet(height, width, count)
    places = np.zeros((padded(len(rows)), len(RESTORE_PLACES)), np.int32)
    places[: len(rows)] = sheet.at(rows, columns, pictures)[:, np.newaxis] + sheet.away(RESTORE_PLACES)
    return gathered(sheet.laid_out(values), places), (pictures, rows, columns)
