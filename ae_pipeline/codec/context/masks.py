"""First pass: which values are not 0, in blocks of 2 x 2, a wavefront of blocks of all pictures at a time.

A block with ink near it (words.NEAR) asks the network for the chances of its 16 symbols; any other has those of its
place, of which there are two: with ink further away, and without.
"""

from itertools import pairwise

import numpy as np

from ae_pipeline.codec.context.calls import Calls
from ae_pipeline.codec.context.chances import SYMBOLS, edges_of, shares_of
from ae_pipeline.codec.context.networks import Networks, padded, positions
from ae_pipeline.codec.context.rans import ONE, Reader, picked
from ae_pipeline.codec.context.words import (
    BLOCK_PLACES,
    BLOCK_SLOPE,
    INK,
    InkNear,
    Sheet,
    block_symbols,
    gathered,
    mask_of,
    order_of,
)

_LAYERS = ("mask.first", "mask.second", "mask.logits")
# Rows of values down, and columns to the right of the top right one of a block, where its words end.
_WORDS = tuple((2 * down + odd, 2 * across) for down, across in BLOCK_PLACES for odd in (0, 1))
# The four values of a block: rows down and columns to the right of the top right one, and the bit in its symbol.
_VALUES, _BITS = ((0, -1), (0, 0), (1, -1), (1, 0)), np.array((8, 4, 2, 1), np.uint8)


class Masks:
    """Codes masks with these networks."""

    def __init__(self, networks: Networks, height: int, width: int):
        self._networks = networks
        self._sides = height, width
        self._order = order_of(height // 2, width // 2, BLOCK_SLOPE)
        self._positions = positions(networks.table("mask.row"), networks.table("mask.column"))
        self._edges = _fixed_edges(networks.table("empty"), networks.table("rest"))

    def chances(self, mask: np.ndarray, at_once: int) -> Calls:
        """The chances of all symbols of bool (pictures, height, width), of `at_once` pictures at a time."""
        shape = (len(self._order.positions), len(mask))
        starts, widths, asks = np.empty(shape, np.int32), np.empty(shape, np.int32), np.empty(shape, bool)
        for first in range(0, len(mask), at_once):
            some = slice(first, first + at_once)
            starts[:, some], widths[:, some], asks[:, some] = self._of_some(mask[some])
        calls = Calls([], [], [])
        for begin, end in pairwise(self._order.ends):
            front = slice(begin, end)
            for chosen in (asks[front], ~asks[front]):
                calls.add(starts[front][chosen], widths[front][chosen])
        return calls

    def _of_some(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start and width of each symbol, and whether it asks the network: (places, pictures) as they are coded."""
        order, sheet = self._order, Sheet(*self._sides, len(mask))
        blocks = block_symbols(mask)
        symbols = order.of(blocks)
        ink = InkNear(blocks.shape[1], len(mask))
        ink.fill(blocks != 0)
        near, far = ink.seen(order.rows, order.columns)
        start, width = picked(self._edges, symbols, 2 * order.positions[:, np.newaxis] + far)
        asking = np.flatnonzero(near)
        there, pictures = np.divmod(asking, len(mask))
        logits = self._logits(sheet, sheet.laid_out(mask.view(np.uint8) * np.uint8(INK)), there, pictures)
        start.reshape(-1)[asking], width.reshape(-1)[asking] = shares_of(logits, symbols.reshape(-1)[asking])
        return start, width, near

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """The mask, bool (count, height, width). Raises ValueError as `Reader`."""
        order, sheet = self._order, Sheet(*self._sides, count)
        ink, pool, values = InkNear(self._sides[0] // 2, count), np.zeros(sheet.size, np.uint8), sheet.away(_VALUES)
        found = np.zeros((len(order.positions), count), np.uint8)
        for begin, end in pairwise(order.ends):
            near, far = ink.seen(order.rows[begin:end], order.columns[begin:end])
            symbols = found[begin:end].reshape(-1)
            asking, others = np.flatnonzero(near), np.flatnonzero(~near)
            if len(asking):
                there, pictures = np.divmod(asking, count)
                symbols[asking] = reader.read(edges_of(self._logits(sheet, pool, begin + there, pictures)))
            if len(others):
                tables = 2 * order.positions[begin + others // count] + far.reshape(-1)[others]
                symbols[others] = reader.read(self._edges.take(tables, 1))
            inked = np.flatnonzero(symbols)
            there, pictures = np.divmod(inked, count)
            there += begin
            ink.add(order.rows[there], order.columns[there], pictures)
            bits = (symbols[inked, np.newaxis] & _BITS) != 0
            pool[self._places(sheet, there, pictures)[:, np.newaxis] + values] = bits * np.uint8(INK)
        return mask_of(order.undo(found, self._sides[0] // 2, self._sides[1] // 2))

    def _places(self, sheet: Sheet, there: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The bytes of the top right values of some blocks, by their number in the order and their picture."""
        return sheet.at(2 * self._order.rows[there], 2 * self._order.columns[there] + 1, pictures)

    def _logits(self, sheet: Sheet, pool: np.ndarray, there: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """uint8 (n, 16) of some blocks, from what is known of the mask."""
        rows, across = len(there), len(_WORDS)
        words = gathered(pool, self._places(sheet, there, pictures)[:, np.newaxis] + sheet.away(_WORDS))
        context = np.zeros((padded(rows), across + 2), np.uint64)
        context[:rows, :across] = words.view(np.uint64)
        context[:rows, across:] = self._positions.take(self._order.positions[there], 0)
        return self._networks.run(_LAYERS, context.view(np.uint8))[:rows]


def fixed_widths(empty: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """int64 (blocks, 2, 16) that add up to ONE: the chances of blocks with nothing near, from the codec's tables."""
    widths = np.zeros((*empty.shape, SYMBOLS), np.int64)
    left, weight = ONE - empty.astype(np.int64), rest.astype(np.int64) + 1
    widths[..., 1:] = np.maximum(1, left[..., None] * weight // weight.sum(1)[:, None])
    widths[..., 0] = ONE - widths[..., 1:].sum(2)
    return widths


def _fixed_edges(empty: np.ndarray, rest: np.ndarray) -> np.ndarray:
    widths = fixed_widths(empty, rest).reshape(-1, SYMBOLS)
    if (widths[:, 0] < 1).any():
        raise ValueError("a fixed chance of a block is none")
    return np.concatenate([np.zeros((len(widths), 1)), np.cumsum(widths, 1)], 1).T.astype(np.int32)
