"""What the networks learn from: every block and every value of some pictures, with all that will be known of it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ae_pipeline.codec.context.chances import SYMBOLS
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.rans import ONE
from ae_pipeline.codec.context.restore import contexts
from ae_pipeline.codec.context.words import (
    BLOCK_PLACES,
    INK,
    MASK_PLACES,
    VALUE_PLACES,
    InkNear,
    Sheet,
    block_symbols,
    gathered,
    ink_of_blocks,
)
from ae_pipeline.training.context.layers import UNIT

_LEAST_EMPTY = 512
_MOST_REST = 255
# Only so many rows, or a multiple, go into a product: oneDNN makes a kernel for each number, which takes longer.
_ROWS = 512


class Blocks(NamedTuple):
    """Blocks with ink near them; context and places have rows to spare at the end."""

    context: Tensor
    """float32 (n or more, bytes), in hidden values."""
    places: Tensor
    symbols: Tensor
    """int64 (n,)."""


class Items(NamedTuple):
    """Values that are not 0; context, places and pictures have rows to spare at the end."""

    context: Tensor
    places: Tensor
    ink: Tensor
    """float32 (pictures, blocks)."""
    pictures: Tensor
    symbols: Tensor
    """int64 (n,): the index less 1."""


def blocks_of(indices: np.ndarray) -> Blocks:
    """Look at uint8 indices (pictures, height, width), whose sides are even."""
    mask = indices > 0
    sheet, symbols = _sheet(indices), block_symbols(mask)
    near, _ = _ink_at(symbols)
    rows, columns, pictures = np.nonzero(near)
    places = sheet.at(2 * rows, 2 * columns + 1, pictures)
    words = tuple((2 * down + odd, 2 * across) for down, across in BLOCK_PLACES for odd in (0, 1))
    context = gathered(sheet.laid_out(mask * np.uint8(INK)), places[:, np.newaxis] + sheet.away(words))
    positions = _with_spare(rows * symbols.shape[2] + columns)
    return Blocks(_hidden(context), positions, torch.from_numpy(symbols[pictures, rows, columns]).long())


def items_of(indices: np.ndarray, grid: Grid) -> Items:
    """Look at uint8 indices (pictures, height, width), whose sides are even."""
    sheet, mask = _sheet(indices), indices > 0
    pool = np.concatenate([sheet.laid_out(grid.values[indices]), sheet.laid_out(mask * np.uint8(INK))])
    rows, columns, pictures = np.nonzero(indices.transpose(1, 2, 0))
    away = np.concatenate([sheet.away(VALUE_PLACES), sheet.away(MASK_PLACES) + sheet.size])
    context = gathered(pool, sheet.at(rows, columns, pictures)[:, np.newaxis] + away.astype(np.int32))
    symbols = indices[pictures, rows, columns].astype(np.int64) - 1
    places = _with_spare(rows * sheet.width + columns)
    ink = torch.from_numpy(ink_of_blocks(mask)).float() / UNIT
    return Items(_hidden(context), places, ink, _with_spare(pictures), torch.from_numpy(symbols))


class Moves(NamedTuple):
    """Values of the grid, near ink, and how far they are from what they were; context has rows to spare at the end."""

    context: Tensor
    wanted: Tensor
    """float32 (n,): original less value."""
    least: Tensor
    most: Tensor
    """float32 (n,): how far the bin of each reaches."""


def moves_of(pixels: np.ndarray, grid: Grid) -> Moves:
    """Look at uint8 pixels (pictures, height, width) as they were before they came to the grid."""
    values = grid.values[grid.indices(pixels)]
    context, where = contexts(values)
    known = values[where].astype(np.int16)
    index = grid.indices(values[where])
    reach = [pixels[where], *(ends[index] for ends in grid.bins)]
    wanted, least, most = (torch.from_numpy((ends - known).astype(np.float32)) for ends in reach)
    return Moves(_hidden(context), wanted, least, most)


class EmptyBlocks:
    """Counts blocks with nothing near them, whose chances are fixed: a table of their places."""

    def __init__(self, height: int, width: int):
        self._counts = np.zeros((height // 2 * (width // 2), 2, SYMBOLS))

    def count(self, indices: np.ndarray) -> None:
        """Take in uint8 (pictures, height, width), whose sides are even."""
        every = block_symbols(indices > 0)
        near, far = _ink_at(every)
        rows, columns, pictures = np.nonzero(~near)
        symbols = every[pictures, rows, columns]
        place = (rows * every.shape[2] + columns, far[rows, columns, pictures].astype(np.intp), symbols)
        np.add.at(self._counts, place, 1)

    def tables(self) -> dict[str, Tensor]:
        """`empty` and `rest` of `Networks`."""
        whole = self._counts.sum(2)
        share = (self._counts[..., 0] + 1) / (whole + 1.02)
        empty = np.clip(np.round(share * ONE), _LEAST_EMPTY, ONE - SYMBOLS + 1).astype(np.int16)
        rest = self._counts[..., 1:].sum(0) + 0.1
        rest = np.round(rest / rest.max(1, keepdims=True) * _MOST_REST).astype(np.uint8)
        return {"empty": torch.from_numpy(empty), "rest": torch.from_numpy(rest)}


def _sheet(indices: np.ndarray) -> Sheet:
    count, height, width = indices.shape
    return Sheet(height, width, count)


def _ink_at(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether blocks have ink near them, and further away: bool (rows, columns, pictures)."""
    count, height, width = symbols.shape
    ink = InkNear(height, count)
    ink.fill(symbols != 0)
    rows, columns = (axis.reshape(-1) for axis in np.indices((height, width)))
    near, far = (found.reshape(height, width, count) for found in ink.seen(rows, columns))
    return near, far


def _hidden(context: np.ndarray) -> Tensor:
    """Bytes of words, uint8 (n, bytes), as hidden values: float32, with rows to spare."""
    return _with_spare(context).float() / UNIT


def _with_spare(values: np.ndarray) -> Tensor:
    """(n, ...) with rows of 0 at the end."""
    found = np.zeros((-(-len(values) // _ROWS) * _ROWS, *values.shape[1:]), values.dtype)
    found[: len(values)] = values
    return torch.from_numpy(found)
