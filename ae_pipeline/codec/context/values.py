"""Second pass: what the values are that are not 0, a wavefront of all pictures at a time.

The mask is known, also of what comes later; its whole goes through a small network of its own. A value that is one of
more than 16 is coded in two steps, the sixteenth first.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ae_pipeline.codec.context.calls import Calls
from ae_pipeline.codec.context.chances import edges_of, shares_of
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.networks import (
    COARSE_BYTES,
    POSITION_BYTES,
    WHOLE_BYTES,
    Networks,
    is_in_two_steps,
    padded,
    positions,
)
from ae_pipeline.codec.context.rans import Reader
from ae_pipeline.codec.context.words import (
    INK,
    MASK_PLACES,
    VALUE_PLACES,
    VALUE_SLOPE,
    WORD,
    Sheet,
    gathered,
    ink_of_blocks,
    order_of,
)

_WORDS = len(VALUE_PLACES) + len(MASK_PLACES)


class _Items(NamedTuple):
    """Values that are not 0, int64 (n,) each, in the order in which they are coded."""

    charted: np.ndarray
    """Where each is in a chart (places, pictures) of all values."""
    there: np.ndarray
    """Which place of the order each is."""
    pictures: np.ndarray
    places: np.ndarray
    """The byte of each value."""

    def some(self, begin: int, end: int) -> "_Items":
        """The items from one number to another."""
        return _Items(*(of_each[begin:end] for of_each in self))


class _Pool(NamedTuple):
    """The bytes that contexts are taken from: values, masks, what stands for positions, and for whole masks."""

    pool: np.ndarray
    away: np.ndarray
    """How far the words of a context are from the byte of its value, int32 (_WORDS,)."""
    positions: int
    """Where the first byte of positions is; and of whole masks."""
    wholes: int


class Values:
    """Codes indices of the grid with these networks."""

    def __init__(self, networks: Networks, height: int, width: int, grid: Grid):
        self._networks, self._grid = networks, grid
        self._sides = height, width
        self._order = order_of(height, width, VALUE_SLOPE)
        self._positions = positions(networks.table("value.row"), networks.table("value.column")).view(np.uint8)
        self._two_steps = is_in_two_steps(grid)
        if self._two_steps:
            self._coarse = np.ascontiguousarray(networks.table("value.coarse_table")).view(np.uint64)

    def chances(self, indices: np.ndarray, mask: np.ndarray, at_once: int) -> Calls:
        """The chances of all symbols of uint8 indices (pictures, height, width) that are not 0.

        Those of `at_once` pictures are computed at a time.
        """
        numbers = np.empty(len(self._order.positions) * len(indices), np.int32)
        found, done = [], 0
        for first in range(0, len(indices), at_once):
            some = slice(first, first + at_once)
            there, pictures, steps = self._of_some(indices[some], mask[some])
            numbers[there * len(indices) + first + pictures] = np.arange(done, done + len(there), dtype=np.int32)
            done += len(there)
            found.append(steps)
        coded = np.flatnonzero(self._order.of(mask))
        steps = np.concatenate(found, 2).take(numbers.take(coded), 2)
        calls = Calls([], [], [])
        for begin, end in pairwise(np.searchsorted(coded, self._order.ends * len(indices))):
            for start, width in steps:
                calls.add(start[begin:end], width[begin:end])
        return calls

    def _of_some(self, indices: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Place and picture of values that are not 0, (n,) each, and start and width in each step, (steps, 2, n)."""
        sheet = Sheet(*self._sides, len(indices))
        items = self._items(sheet, mask)
        pool = self._pool(sheet, sheet.laid_out(self._grid.values[indices]), mask)
        symbols = self._order.of(indices).reshape(-1).take(items.charted) - np.uint8(1)
        hidden = self._hidden(pool, items)
        if not self._two_steps:
            found = [shares_of(self._fine(hidden, None, len(symbols)), symbols)]
        else:
            logits = self._networks.run(("value.coarse",), hidden)
            found = [shares_of(logits, symbols >> 4)]
            found.append(shares_of(self._fine(hidden, symbols >> 4, len(symbols)), symbols & 15))
        return items.there, items.pictures, np.array(found)

    def decode(self, reader: Reader, mask: np.ndarray) -> np.ndarray:
        """uint8 indices (pictures, height, width). Raises ValueError as `Reader`."""
        count, sheet = len(mask), Sheet(*self._sides, len(mask))
        items = self._items(sheet, mask)
        pool = self._pool(sheet, np.zeros(sheet.size, np.uint8), mask)
        found = np.zeros((len(self._order.positions), count), np.uint8)
        # Two steps can say more than there is: such a stream is refused below.
        values = np.zeros(256 + 16, np.uint8)
        values[: len(self._grid.values)] = self._grid.values
        for begin, end in pairwise(np.searchsorted(items.charted, self._order.ends * count)):
            if begin < end:
                front = items.some(begin, end)
                found.reshape(-1)[front.charted] = read = self._read(reader, pool, front)
                pool.pool[front.places] = values.take(read)
        if int(found.max()) >= len(self._grid.values):
            raise ValueError("the stream has a value beyond the grid")
        return self._order.undo(found, *self._sides)

    def _read(self, reader: Reader, pool: _Pool, items: _Items) -> np.ndarray:
        """The indices of a wavefront."""
        rows, coarse = len(items.places), None
        hidden = self._hidden(pool, items)
        if self._two_steps:
            coarse = reader.read(edges_of(self._networks.run(("value.coarse",), hidden)[:rows]))
        fine = reader.read(edges_of(self._fine(hidden, coarse, rows)))
        symbols = fine if coarse is None else (coarse << 4) + fine
        if len(symbols) and int(symbols.max()) == 255:
            raise ValueError("the stream has a value beyond all grids")
        one: np.ndarray = symbols + np.uint8(1)
        return one

    def _items(self, sheet: Sheet, mask: np.ndarray) -> _Items:
        order, charted = self._order, np.flatnonzero(self._order.of(mask))
        there, pictures = np.divmod(charted, len(mask))
        places = sheet.at(order.rows[there], order.columns[there], pictures)
        return _Items(charted, there, pictures, places)

    def _pool(self, sheet: Sheet, values: np.ndarray, mask: np.ndarray) -> _Pool:
        ink = ink_of_blocks(mask)
        blocks = np.zeros((padded(len(mask)), ink.shape[1]), np.uint8)
        blocks[: len(mask)] = ink
        wholes = self._networks.run(("whole.first", "whole.second"), blocks)
        masks = sheet.laid_out(mask.view(np.uint8) * np.uint8(INK))
        pieces = [values, masks, self._positions.reshape(-1), wholes.reshape(-1)]
        away = np.concatenate([sheet.away(VALUE_PLACES), sheet.away(MASK_PLACES) + sheet.size])
        return _Pool(np.concatenate(pieces), away, 2 * sheet.size, 2 * sheet.size + self._positions.size)

    def _hidden(self, pool: _Pool, items: _Items) -> np.ndarray:
        """uint8 (padded, hidden): what both steps begin with."""
        rows = len(items.places)
        words = np.zeros((padded(rows), _WORDS + (2 * POSITION_BYTES + WHOLE_BYTES) // WORD), np.int32)
        np.add(items.places[:, np.newaxis], pool.away, out=words[:rows, :_WORDS])
        positions = pool.positions + 2 * POSITION_BYTES * self._order.positions[items.there]
        for place, first in ((-4, positions), (-2, pool.wholes + WHOLE_BYTES * items.pictures)):
            words[:rows, place] = first
            words[:rows, place + 1] = first + WORD
        return self._networks.run(("value.first", "value.second"), gathered(pool.pool, words))

    def _fine(self, hidden: np.ndarray, coarse: np.ndarray | None, rows: int) -> np.ndarray:
        """uint8 (rows, 16) logits of the last step."""
        if coarse is not None:
            width = hidden.shape[1] // 8
            both = np.zeros((len(hidden), width + COARSE_BYTES // 8), np.uint64)
            both[:, :width] = np.ascontiguousarray(hidden).view(np.uint64)
            both[:rows, width:] = self._coarse.take(coarse, 0)
            hidden = both.view(np.uint8)
        return self._networks.run(("value.third", "value.fine"), hidden)[:rows]
