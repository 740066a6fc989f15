"""First pass: which values are not 0, in blocks of 2 x 2, a wavefront of blocks of all pictures at a time.

A block with ink near it (words.NEAR) asks the network for the chances of its 16 symbols; any other has those of its
place, of which there are two: with ink further away, and without.
"""

from typing import NamedTuple

import numpy as np

from ae_pipeline.codec.context.chances import SYMBOLS, edges_of, picked
from ae_pipeline.codec.context.networks import Networks, padded, positions
from ae_pipeline.codec.context.rans import ONE, Reader
from ae_pipeline.codec.context.words import (
    BLOCK_PLACES,
    INK,
    NEAR,
    Step,
    block_planes,
    block_sheet,
    block_symbols,
    mask_of,
)

_LAYERS = ("mask.first", "mask.second", "mask.logits")
_BEYOND = 4  # blocks: as many as a word has
_TWO = np.uint64(16)  # bits of two values


class Symbols(NamedTuple):
    """Some calls of the entropy coder: start and width of each symbol, and how many symbols each call has."""

    starts: list[np.ndarray]
    widths: list[np.ndarray]
    sizes: list[int]

    def add(self, start: np.ndarray, width: np.ndarray) -> None:
        """Put a call at the end. There is none for no symbols."""
        if len(start):
            self.starts.append(start)
            self.widths.append(width)
            self.sizes.append(len(start))


class _Front(NamedTuple):
    """Blocks of a wavefront: those that ask the network, and the others; both as places among all of the front."""

    asking: np.ndarray
    others: np.ndarray
    elements: np.ndarray
    """Where those that ask lie in a plane."""
    asking_positions: np.ndarray
    tables: np.ndarray
    """Which of the fixed chances the others have."""
    positions: np.ndarray
    """Row * width + column of all blocks of the front that lie in the picture."""
    skipped: int
    """Rows at its beginning that lie beyond the right edge."""


class Masks:
    """Codes masks with these networks."""

    def __init__(self, networks: Networks, height: int, width: int):
        self._networks = networks
        self._sheet = block_sheet(height, width)
        self._steps = self._sheet.steps(_BEYOND)
        self._positions = positions(networks.table("mask.row"), networks.table("mask.column"))
        self._edges = _fixed_edges(networks.table("empty"), networks.table("rest"))

    def encode(self, mask: np.ndarray, chunk: int) -> Symbols:
        """The symbols of bool (pictures, height, width); `chunk` contexts go through the network at a time."""
        count = len(mask)
        planes = block_planes(mask, self._sheet)
        all_symbols = block_symbols(mask).transpose(1, 2, 0).reshape(-1, count)
        fronts = [self._front(planes, step, count) for step in self._steps]
        symbols = [all_symbols[front.positions].reshape(-1) for front in fronts]
        elements = np.concatenate([front.elements for front in fronts])
        places = np.concatenate([front.asking_positions for front in fronts])
        asked = np.concatenate([found[front.asking] for front, found in zip(fronts, symbols, strict=True)])
        starts, widths = np.empty(len(asked), np.int32), np.empty(len(asked), np.int32)
        for first in range(0, len(asked), chunk):
            some = slice(first, first + chunk)
            edges = edges_of(self._logits(planes, elements[some], places[some], count))
            starts[some], widths[some] = picked(edges, asked[some])
        found, done = Symbols([], [], []), 0
        for front, of_front in zip(fronts, symbols, strict=True):
            own = slice(done, done + len(front.elements))
            done = own.stop
            fixed = picked(self._edges.take(front.tables, 1), of_front[front.others])
            for start, width in ((starts[own], widths[own]), fixed):
                found.add(start, width)
        return found

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """The mask, bool (count, height, width). Raises ValueError as `Reader`."""
        sheet = self._sheet
        planes = tuple(np.zeros((sheet.rows, sheet.columns, count), np.uint64) for _ in range(2))
        found = np.zeros((sheet.height * sheet.width, count), np.uint8)
        for step in self._steps:
            front = self._front(planes, step, count)
            symbols = np.zeros(step[2] * count, np.uint8)
            own = symbols[front.skipped * count :]
            if len(front.elements):
                logits = self._logits(planes, front.elements, front.asking_positions, count)
                own[front.asking] = reader.read(edges_of(logits))
            if len(front.tables):
                own[front.others] = reader.read(self._edges.take(front.tables, 1))
            found[front.positions] = own.reshape(-1, count)
            for plane, ink in zip(planes, _INK_OF_SYMBOL, strict=True):
                moved = sheet.front(plane, step, 0, -1) << _TWO
                sheet.front(plane, step)[:] = moved | ink.take(symbols).reshape(step[2], count)
        return mask_of(found.reshape(sheet.height, sheet.width, count).transpose(2, 0, 1))

    def _front(self, planes: tuple[np.ndarray, ...], step: Step, count: int) -> _Front:
        row, column, rows = step
        columns = column - self._sheet.slope * np.arange(rows)
        # Columns fall from row to row: those beyond the edge come first.
        skipped = int((columns >= self._sheet.width).sum())
        near, far = (self._ink(planes, step, places)[skipped:] for places in (BLOCK_PLACES[:NEAR], BLOCK_PLACES[NEAR:]))
        all_rows, columns = np.arange(row, row + rows)[skipped:], columns[skipped:]
        there = all_rows * self._sheet.width + columns
        has_ink = near.reshape(-1) != 0
        asking, others = np.flatnonzero(has_ink), np.flatnonzero(~has_ink)
        places, pictures = np.divmod(asking, count)
        elements = self._sheet.place(all_rows, columns, count)[places] + pictures
        tables = there[others // count] * 2 + (far.reshape(-1)[others] != 0)
        return _Front(asking, others, elements, there[places], tables, there, skipped)

    def _ink(self, planes: tuple[np.ndarray, ...], step: Step, places: tuple[tuple[int, int], ...]) -> np.ndarray:
        """uint64 (rows, pictures): not 0 where there is ink in the words at these places."""
        found = np.zeros((step[2], planes[0].shape[2]), np.uint64)
        for down, across in places:
            for plane in planes:
                found |= self._sheet.front(plane, step, down, across)
        return found

    def _logits(
        self, planes: tuple[np.ndarray, ...], elements: np.ndarray, places: np.ndarray, count: int
    ) -> np.ndarray:
        """uint8 (n, 16) of blocks at flat `elements` and positions `places`."""
        rows = len(elements)
        context = np.zeros((padded(rows), 2 * len(BLOCK_PLACES) + 2), np.uint64)
        for number, (down, across) in enumerate(BLOCK_PLACES):
            where = elements + self._sheet.away(down, across, count)
            for odd, plane in enumerate(planes):
                context[:rows, 2 * number + odd] = plane.reshape(-1).take(where)
        context[:rows, -2:] = self._positions.take(places, 0)
        return self._networks.run(_LAYERS, context.view(np.uint8))[:rows]


def _ink_of_symbol() -> tuple[np.ndarray, np.ndarray]:
    """For the even and the odd row of values, uint64 (16,): the two values of a block as the end of a word."""
    symbols = np.arange(SYMBOLS, dtype=np.uint64)
    found = []
    for right, left in ((2, 3), (0, 1)):
        bits = [(symbols >> np.uint64(bit)) & np.uint64(1) for bit in (right, left)]
        found.append(bits[0] * np.uint64(INK) | (bits[1] * np.uint64(INK)) << np.uint64(8))
    return found[0], found[1]


_INK_OF_SYMBOL = _ink_of_symbol()


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
