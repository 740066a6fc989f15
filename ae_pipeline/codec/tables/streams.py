"""A block of rows of a table as a stream of bytes, and back: exactly, or an error.

    coder = TableCoder(options, parts)
    latents = coder.quantised(rows)               # float32 (n, fields) to int8 (n, 4 * fields), within the bound
    stream = coder.encode_latents(latents)
    latents = coder.decode_latents(stream, n)     # ValueError for what is damaged
    rows = coder.rows_of(latents)

The head of a stream, and what is kept where no network helps, are those of other context codecs (stream_head.py).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from ae_pipeline.codec.context.rans import Reader, encode
from ae_pipeline.codec.stream_head import NETWORKS, RAW, ZSTD, compressed, kept, opened, refuse_changed, smallest
from ae_pipeline.codec.tables.fields import FieldCoder, Symbols
from ae_pipeline.codec.tables.networks import Parts, check_parts, features
from ae_pipeline.codec.tables.options import LATENT_BYTES, TableOptions, denominators, latents_of, of_latents
from ae_pipeline.data.table_columns.fields import places_of

# A lane takes about three bytes, and its share of the time: a row has few symbols.
_LEAST_LANES, _MOST_LANES, _ROWS_PER_LANE = 16, 512, 160
# Rows that go through the networks at a time: integers give the same in blocks of any size.
_CHUNK = 16_384


class TableCoder:
    """Ready to be used; nothing in it changes."""

    def __init__(self, options: TableOptions, parts: Sequence[Parts]):
        """Raises ValueError for parts of other options."""
        check_parts(options, parts)
        self._options = options
        self._coders = [
            FieldCoder(column, options.fields[column.field], found)
            for column, found in zip(options.columns, parts, strict=True)
        ]

    def quantised(self, rows: np.ndarray) -> np.ndarray:
        """Rows, float32 (n, fields), as int8 latents (n, 4 * fields)."""
        pieces = [self._quantised(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]
        return latents_of(np.concatenate([np.empty((0, len(self._options.fields)), np.int64), *pieces]))

    def _quantised(self, rows: np.ndarray) -> np.ndarray:
        places = places_of(rows, self._options.fields)
        return self._by_fields(
            len(rows), lambda coder, inputs, there: coder.quantised(inputs[there], places[there, coder.column.field])
        )

    def rows_of(self, latents: np.ndarray) -> np.ndarray:
        """float32 (n, fields): what int8 latents stand for."""
        return (of_latents(latents) / denominators(self._options.fields)).astype(np.float32)

    def encode_latents(self, latents: np.ndarray) -> bytes:
        """The stream of int8 latents (n, 4 * fields), n > 0."""
        plain = np.ascontiguousarray(latents).tobytes()
        choices = [(RAW, plain), (ZSTD, compressed(plain))]
        with suppress(ValueError):  # what no row has: such latents are kept as they are
            choices.append((NETWORKS, self._coded(of_latents(latents))))
        return smallest(plain, choices, lambda stream: self._check(stream, latents))

    def _check(self, stream: bytes, latents: np.ndarray) -> None:
        if not np.array_equal(self.decode_latents(stream, len(latents)), latents):
            raise ValueError("the stream has other values")

    def decode_latents(self, stream: bytes | memoryview, count: int) -> np.ndarray:
        """Undo `encode_latents`: int8 (count, 4 * fields). Raises ValueError for what it cannot have written."""
        size = LATENT_BYTES * len(self._options.fields)
        method, payload = opened(stream)
        if method == NETWORKS:
            found = latents_of(self._decoded(payload, count))
        else:
            found = np.frombuffer(kept(method, payload, count * size), np.int8).reshape(count, size)
        refuse_changed(stream, found.tobytes())
        return found

    def _coded(self, found: np.ndarray) -> bytes:
        symbols = Symbols()

        def add(coder: FieldCoder, inputs: np.ndarray, there: np.ndarray) -> np.ndarray:
            own = found[:, coder.column.field]
            if own[~there].any():
                raise ValueError("a number where its row has none")
            coder.encode(inputs[there], own[there], symbols)
            return own[there]

        self._by_fields(len(found), add)
        lanes = min(_MOST_LANES, max(_LEAST_LANES, len(found) // _ROWS_PER_LANE))
        return encode(np.concatenate(symbols.starts), np.concatenate(symbols.widths), symbols.sizes, lanes)

    def _decoded(self, payload: memoryview, count: int) -> np.ndarray:
        reader = Reader(payload)
        found = self._by_fields(count, lambda coder, inputs, there: coder.decode(inputs[there], reader))
        reader.finish()
        return found

    def _by_fields(self, count: int, code: Callable[[FieldCoder, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """int64 (count, fields): what `code` gives of each field, in the rows that have it, from those before it."""
        found = np.zeros((count, len(self._options.fields)), np.int64)
        inputs, everywhere = np.empty((count, 0)), np.ones(count, bool)
        for coder in self._coders:
            present = coder.options.present
            there = everywhere if present is None else found[:, present] == 0
            found[there, coder.column.field] = code(coder, inputs, there)
            seen = features(found[:, coder.column.field], coder.column, coder.options, there)
            inputs = np.concatenate([inputs, seen], 1)
        return found
