"""One field of all rows as symbols, and back: what its network foresees, and how far from that the number is."""

from dataclasses import dataclass, field

import numpy as np

from ae_pipeline.codec.context.rans import Reader
from ae_pipeline.codec.tables.chances import edges_of, even_edges
from ae_pipeline.codec.tables.networks import ColumnNetwork, Parts
from ae_pipeline.codec.tables.options import ColumnOptions
from ae_pipeline.data.table_columns.fields import FieldOptions

_DIGIT_BITS = 4


@dataclass
class Symbols:
    """Symbols in the order in which they are decoded: shares of each call, and how many there are."""

    starts: list[np.ndarray] = field(default_factory=list)
    widths: list[np.ndarray] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, edges: np.ndarray, symbols: np.ndarray) -> None:
        """Add a call: int32 (symbols + 1, n) as `edges_of` gives them, and integers (n,)."""
        rows = np.arange(len(symbols))
        start = edges[symbols, rows]
        self.starts.append(start)
        self.widths.append(edges[symbols + 1, rows] - start)
        self.sizes.append(len(symbols))

    def add_bits(self, numbers: np.ndarray, bits: int) -> None:
        """Add numbers (n,) of so many bits, all as likely, four bits a call, the lowest first."""
        for done in range(0, bits, _DIGIT_BITS):
            width = min(_DIGIT_BITS, bits - done)
            self.add(even_edges(width, len(numbers)), numbers >> done & (1 << width) - 1)


def read_bits(reader: Reader, rows: int, bits: int) -> np.ndarray:
    """int64 (rows,): undo `Symbols.add_bits`."""
    found = np.zeros(rows, np.int64)
    for done in range(0, bits, _DIGIT_BITS):
        width = min(_DIGIT_BITS, bits - done)
        found |= reader.read(even_edges(width, rows)).astype(np.int64) << done
    return found


class FieldCoder:
    """Codes one field with its network. Latents are places of categories, and twice the middle of a number's cell."""

    def __init__(self, column: ColumnOptions, options: FieldOptions, parts: Parts):
        self.column, self.options = column, options
        self._network = ColumnNetwork(column, parts.layers)
        cells = 3 * options.largest // options.cell + 1
        self._own_bits = max(1, (cells - 1).bit_length())
        self._last = cells - 1
        self._ends = np.empty((0, 2), np.int64) if parts.ends is None else parts.ends
        self._coarse = options.cell << column.low_bits

    def quantised(self, inputs: np.ndarray, places: np.ndarray) -> np.ndarray:
        """int64 (n,): the latents of k, int64 (n,), in rows with these inputs of the network."""
        if self.options.is_category:
            return places
        if self.column.cells is not None:
            found = np.minimum(np.searchsorted(self._ends[:, 1], places), len(self._ends) - 1)
            inside = (self._ends[found, 0] <= places) & (places <= self._ends[found, 1])
            return np.where(inside, self._ends.sum(axis=1)[found], self._by_itself(places))
        _, prediction = self._network(inputs)
        assert prediction is not None
        first = self._first(prediction)
        away = (places - first) // self.options.cell
        latents = 2 * (first + away * self.options.cell) + self.options.cell - 1
        assert self.column.span is not None
        return np.where(np.abs(away >> self.column.low_bits) <= self.column.span, latents, self._by_itself(places))

    def encode(self, inputs: np.ndarray, latents: np.ndarray, found: Symbols) -> None:
        """Add the symbols of latents (n,). Raises ValueError for what `quantised` cannot have given."""
        logits, prediction = self._network(inputs)
        edges = edges_of(logits)
        if self.options.is_category:
            if ((latents < 0) | (latents > self.options.largest)).any():
                raise ValueError("a category beyond the last one")
            found.add(edges, latents)
            return
        if self.column.cells is not None:
            middles = self._ends.sum(axis=1)
            symbols = np.minimum(np.searchsorted(middles, latents), len(middles) - 1)
            symbols = np.where(middles[symbols] == latents, symbols, len(middles))
            found.add(edges, symbols)
            self._add_by_themselves(latents[symbols == len(middles)], found)
            return
        assert prediction is not None
        assert self.column.span is not None
        away, rest = np.divmod(latents + 1 - self.options.cell - 2 * self._first(prediction), 2 * self.options.cell)
        coarse = away >> self.column.low_bits
        near = (rest == 0) & (np.abs(coarse) <= self.column.span)
        found.add(edges, np.where(near, coarse + self.column.span, 2 * self.column.span + 1))
        found.add_bits(away[near] & (1 << self.column.low_bits) - 1, self.column.low_bits)
        self._add_by_themselves(latents[~near], found)

    def decode(self, inputs: np.ndarray, reader: Reader) -> np.ndarray:
        """int64 (n,): the latents. Raises ValueError as `Reader`, and for what is beyond the field's numbers."""
        logits, prediction = self._network(inputs)
        symbols = reader.read(edges_of(logits)).astype(np.int64)
        if self.options.is_category:
            return symbols
        if self.column.cells is not None:
            near = symbols < len(self._ends)
            latents = self._ends.sum(axis=1)[np.minimum(symbols, len(self._ends) - 1)]
        else:
            assert prediction is not None
            assert self.column.span is not None
            near = symbols <= 2 * self.column.span
            away = (symbols - self.column.span) << self.column.low_bits
            away[near] |= read_bits(reader, int(near.sum()), self.column.low_bits)
            latents = 2 * (self._first(prediction) + away * self.options.cell) + self.options.cell - 1
        own = read_bits(reader, int((~near).sum()), self._own_bits)
        if own.size and int(own.max()) > self._last:
            raise ValueError("the stream has a number beyond its field")
        latents[~near] = 2 * (own * self.options.cell - self.options.largest) + self.options.cell - 1
        return latents

    def _first(self, prediction: np.ndarray) -> np.ndarray:
        """int64 (n,): the first k of the coarse cell whose middle is predicted."""
        twice = self.column.mean + (prediction * self.column.spread >> 12)
        return (twice - self._coarse + 2) >> 1

    def _by_itself(self, places: np.ndarray) -> np.ndarray:
        """The latents of numbers that no network foresees: cells that begin at -largest."""
        cell, first = self.options.cell, -self.options.largest
        return 2 * ((places - first) // cell * cell + first) + cell - 1

    def _add_by_themselves(self, latents: np.ndarray, found: Symbols) -> None:
        cell = self.options.cell
        own, rest = np.divmod(latents + 1 - cell + 2 * self.options.largest, 2 * cell)
        if rest.any() or ((own < 0) | (own > self._last)).any():
            raise ValueError("a number that is in no cell of its field")
        found.add_bits(own, self._own_bits)
