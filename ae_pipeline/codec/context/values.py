"""Second pass: what the values are that are not 0, a wavefront of all pictures at a time.

The mask is known, also of what comes later; its whole goes through a small network of its own. A value that is one of
more than 16 is coded in two steps, the sixteenth first.
"""

from typing import NamedTuple

import numpy as np

from ae_pipeline.codec.context.chances import edges_of, picked
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.masks import Symbols
from ae_pipeline.codec.context.networks import (
    COARSE_BYTES,
    ROWS,
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
    ink_of_blocks,
    laid_out,
    value_sheet,
    words,
)

_BEYOND = 8  # values: as many as a word has
_ONE = np.uint64(8)  # bits of a value
_OF_POSITION = 2  # words
_OF_WHOLE = WHOLE_BYTES // 8
_VALUES, _MASKS = len(VALUE_PLACES), len(MASK_PLACES)


class _Items(NamedTuple):
    """Values that are not 0, in the order in which they are coded."""

    elements: np.ndarray
    """Where each lies in a plane."""
    positions: np.ndarray
    """row * width + column."""
    pictures: np.ndarray
    context: np.ndarray
    """uint64 (values, words), with what does not change while values are decoded; rows to spare at the end."""
    sizes: list[int]
    """Values of each wavefront, and below, where they are in it."""
    in_front: list[np.ndarray]


class Values:
    """Codes indices of the grid with these networks."""

    def __init__(self, networks: Networks, height: int, width: int, grid: Grid):
        self._networks, self._grid = networks, grid
        self._sheet = value_sheet(height, width)
        self._steps = self._sheet.steps(_BEYOND)
        self._positions = positions(networks.table("value.row"), networks.table("value.column"))
        self._two_steps = is_in_two_steps(grid)
        if self._two_steps:
            self._coarse = np.ascontiguousarray(networks.table("value.coarse_table")).view(np.uint64)

    def encode(self, indices: np.ndarray, mask: np.ndarray, chunk: int) -> Symbols:
        """The symbols of uint8 indices (pictures, height, width) that are not 0."""
        count, items = len(indices), self._items(mask)
        known = words(laid_out(self._grid.values[indices], self._sheet)).reshape(-1)
        symbols = laid_out(indices, self._sheet).reshape(-1).take(items.elements) - np.uint8(1)
        steps = (symbols >> 4, symbols & 15) if self._two_steps else (symbols,)
        starts = [np.empty(len(symbols), np.int32) for _ in steps]
        widths = [np.empty(len(symbols), np.int32) for _ in steps]
        for first in range(0, len(symbols), chunk):
            some = slice(first, min(first + chunk, len(symbols)))
            hidden = self._hidden(items, known, some, count)
            rows = some.stop - some.start
            if self._two_steps:
                logits = self._networks.run(("value.coarse",), hidden)[:rows]
                starts[0][some], widths[0][some] = picked(edges_of(logits), steps[0][some])
            logits = self._fine(hidden, steps[0][some] if self._two_steps else None, rows)
            starts[-1][some], widths[-1][some] = picked(edges_of(logits), steps[-1][some])
        found, done = Symbols([], [], []), 0
        for size in items.sizes:
            for start, width in zip(starts, widths, strict=True):
                found.add(start[done : done + size], width[done : done + size])
            done += size
        return found

    def decode(self, reader: Reader, mask: np.ndarray) -> np.ndarray:
        """uint8 indices (pictures, height, width). Raises ValueError as `Reader`."""
        count, items, sheet = len(mask), self._items(mask), self._sheet
        plane = np.zeros((sheet.rows, sheet.columns, count), np.uint64)
        known, found = plane.reshape(-1), np.zeros(len(items.elements), np.uint8)
        # Two steps can say more than there is: such a stream is refused below.
        values = np.zeros(256 + 16, np.uint64)
        values[: len(self._grid.values)] = self._grid.values
        done = 0
        for step, size, places in zip(self._steps, items.sizes, items.in_front, strict=True):
            moved = sheet.front(plane, step, 0, -1) << _ONE
            if size:
                some = slice(done, done + size)
                done += size
                found[some] = own = self._read(reader, items, known, some, count)
                moved.reshape(-1)[places] |= values.take(own)
            sheet.front(plane, step)[:] = moved
        if len(found) and int(found.max()) >= len(self._grid.values):
            raise ValueError("the stream has a value beyond the grid")
        indices = np.zeros((sheet.height * sheet.width, count), np.uint8)
        indices.reshape(-1)[items.positions * count + items.pictures] = found
        return np.ascontiguousarray(indices.T).reshape(count, sheet.height, sheet.width)

    def _read(self, reader: Reader, items: _Items, known: np.ndarray, some: slice, count: int) -> np.ndarray:
        """The indices of a wavefront."""
        rows, coarse = some.stop - some.start, None
        hidden = self._hidden(items, known, some, count)
        if self._two_steps:
            coarse = reader.read(edges_of(self._networks.run(("value.coarse",), hidden)[:rows]))
        fine = reader.read(edges_of(self._fine(hidden, coarse, rows)))
        symbols = fine if coarse is None else (coarse << 4) + fine
        if len(symbols) and int(symbols.max()) == 255:
            raise ValueError("the stream has a value beyond all grids")
        one: np.ndarray = symbols + np.uint8(1)
        return one

    def _items(self, mask: np.ndarray) -> _Items:
        count, sheet = len(mask), self._sheet
        plane = laid_out(mask.astype(np.uint8), sheet)
        elements, places, pictures, sizes, in_front = [], [], [], [], []
        for step in self._steps:
            row, column, _ = step
            found = np.flatnonzero(sheet.front(plane, step))
            down, picture = np.divmod(found, count)
            rows, columns = row + down, column - sheet.slope * down
            elements.append(sheet.place(rows, columns, count) + picture)
            places.append(rows * sheet.width + columns)
            pictures.append(picture)
            sizes.append(len(found))
            in_front.append(found)
        where, there, who = (np.concatenate(pieces) for pieces in (elements, places, pictures))
        context = self._context(where, there, who, mask, words(plane * np.uint8(INK)).reshape(-1))
        return _Items(where, there, who, context, sizes, in_front)

    def _context(
        self, elements: np.ndarray, places: np.ndarray, pictures: np.ndarray, mask: np.ndarray, known: np.ndarray
    ) -> np.ndarray:
        rows, count = len(elements), len(mask)
        context = np.zeros((padded(rows) + ROWS, _VALUES + _MASKS + _OF_POSITION + _OF_WHOLE), np.uint64)
        own = context[:rows]
        for number, (down, across) in enumerate(MASK_PLACES):
            own[:, _VALUES + number] = known.take(elements + self._sheet.away(down, across, count))
        own[:, -_OF_POSITION - _OF_WHOLE : -_OF_WHOLE] = self._positions.take(places, 0)
        ink = ink_of_blocks(mask)
        blocks = np.zeros((padded(count), ink.shape[1]), np.uint8)
        blocks[:count] = ink
        whole = self._networks.run(("whole.first", "whole.second"), blocks)
        own[:, -_OF_WHOLE:] = whole.view(np.uint64).take(pictures, 0)
        return context

    def _hidden(self, items: _Items, known: np.ndarray, some: slice, count: int) -> np.ndarray:
        """uint8 (padded, hidden): what both steps begin with. Fills in what is known of values by now."""
        rows = some.stop - some.start
        context = items.context[some.start : some.start + padded(rows)]
        for number, (down, across) in enumerate(VALUE_PLACES):
            context[:rows, number] = known.take(items.elements[some] + self._sheet.away(down, across, count))
        return self._networks.run(("value.first", "value.second"), context.view(np.uint8))

    def _fine(self, hidden: np.ndarray, coarse: np.ndarray | None, rows: int) -> np.ndarray:
        """uint8 (rows, 16) logits of the last step."""
        if coarse is not None:
            width = hidden.shape[1] // 8
            both = np.zeros((len(hidden), width + COARSE_BYTES // 8), np.uint64)
            both[:, :width] = np.ascontiguousarray(hidden).view(np.uint64)
            both[:rows, width:] = self._coarse.take(coarse, 0)
            hidden = both.view(np.uint8)
        return self._networks.run(("value.third", "value.fine"), hidden)[:rows]
