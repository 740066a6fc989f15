"""Entropy coding of the latents of one row group: each dimension on its own, with a Huffman code made for it.

    stream = compress(latents)                  # int8 (rows, L) to bytes
    latents = decompress(stream, rows, L)

Neighbouring rows of a dimension with few values share a byte, so that a value may cost less than one bit. The bytes are
raw DEFLATE, which every language can read. Format: docs/store-format.md.
"""

import zlib
from collections.abc import Iterator

import numpy as np

from ae_pipeline.data.parquet.limits import MOST_ROW_GROUP_BYTES

# One for each dimension, before the DEFLATE streams.
_ENTRY = np.dtype([("lowest", "i1"), ("values", "u1"), ("rows_per_byte", "u1"), ("length", "<u4")])
"""`values`: how many from the lowest to the highest, less 1. A constant has no rows in a byte, and no bytes."""
# Latents repeat nothing but a value that stands for nothing: matches other than runs cost time and find nothing.
_HUFFMAN, _RLE = zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE
_RAW = -15
_MEMORY = 9  # the most: few and long blocks
# What a cache holds of both sides of a transposition; dimensions that are decoded before they are put side by side.
_ROWS_AT_ONCE = 128
_COLUMNS = 128


def compress(latents: np.ndarray) -> bytes:
    """The stream of int8 latents (rows, L), at least one row."""
    entries = np.zeros(latents.shape[1], _ENTRY)
    streams = []
    lowest, highest = latents.min(0), latents.max(0)
    # Modulo 256, so that 127 - -128 is 255.
    entries["lowest"], entries["values"] = lowest, highest.view(np.uint8) - lowest.view(np.uint8)
    columns = np.empty(latents.shape[::-1], np.uint8)
    _transpose(latents.view(np.uint8), columns)
    columns -= lowest.view(np.uint8)[:, np.newaxis]
    for entry, digits in zip(entries, columns, strict=True):
        values = int(entry["values"]) + 1
        if values > 1:
            choices = [(count, _deflate(packed)) for count, packed in _packings(digits, values)]
            rows_per_byte, stream = min(choices, key=lambda choice: len(choice[1]))
            entry["rows_per_byte"], entry["length"] = rows_per_byte, len(stream)
            streams.append(stream)
    return b"".join([entries.tobytes(), *streams])


def decompress(stream: memoryview | bytes, rows: int, size: int) -> np.ndarray:
    """int8 (rows, size). Raises ValueError for what is no such stream, before it takes more memory than that."""
    if rows * size > MOST_ROW_GROUP_BYTES:
        raise ValueError(f"latents would take {rows * size} bytes, at most {MOST_ROW_GROUP_BYTES} are allowed")
    entries = _entries(stream, size)
    latents = np.empty((rows, size), np.int8)
    ends = (size * _ENTRY.itemsize + np.cumsum(entries["length"], dtype=np.int64)).tolist()
    for start in range(0, size, _COLUMNS):
        columns = np.empty((min(_COLUMNS, size - start), rows), np.int8)
        for dimension in range(start, start + len(columns)):
            entry, end = entries[dimension], ends[dimension]
            columns[dimension - start] = entry["lowest"]
            if entry["values"]:
                above = _above_lowest(stream[end - int(entry["length"]) : end], entry, rows, dimension)
                columns[dimension - start] += above
        _transpose(columns, latents[:, start : start + _COLUMNS])
    return latents


def _above_lowest(stream: memoryview | bytes, entry: np.void, rows: int, dimension: int) -> np.ndarray:
    """What the latents of a dimension are above its lowest, (rows,) int8, modulo 256. Raises ValueError."""
    values, rows_per_byte = int(entry["values"]) + 1, int(entry["rows_per_byte"])
    packed = _inflate(stream, -(-rows // rows_per_byte))
    if packed.max() >= values**rows_per_byte:
        raise ValueError(f"latents of dimension {dimension} are not among its values")
    if rows_per_byte == 1:
        return packed.view(np.int8)
    return _digits(values, rows_per_byte)[packed].reshape(-1)[:rows]


def _transpose(source: np.ndarray, target: np.ndarray) -> None:
    """(a, b) to (b, a), a few rows at a time: what lies side by side in one lies far apart in the other."""
    for start in range(0, len(source), _ROWS_AT_ONCE):
        target[:, start : start + _ROWS_AT_ONCE] = source[start : start + _ROWS_AT_ONCE].T


def _entries(stream: memoryview | bytes, size: int) -> np.ndarray:
    """The table at the head of a stream. Raises ValueError."""
    table = size * _ENTRY.itemsize
    if len(stream) < table:
        raise ValueError(f"a stream of {len(stream)} bytes is too short for latents of {size} dimensions")
    entries = np.frombuffer(stream[:table], _ENTRY)
    if table + int(entries["length"].sum(dtype=np.int64)) != len(stream):
        raise ValueError(f"a stream of {len(stream)} bytes has not the lengths that it says")
    values, rows_per_byte = entries["values"].astype(np.int64) + 1, entries["rows_per_byte"].astype(np.int64)
    if (entries["lowest"] + values > 128).any():
        raise ValueError("latents above 127")
    constant = values == 1
    if rows_per_byte[constant].any() or entries["length"][constant].any():
        raise ValueError("a constant dimension with bytes of its own")
    if ((rows_per_byte < 1) | (rows_per_byte * np.log2(values) > 8))[~constant].any():
        raise ValueError("more rows in a byte than it can hold, or none")
    return entries


def _packings(digits: np.ndarray, values: int) -> Iterator[tuple[int, np.ndarray]]:
    """One, two and more neighbouring rows in a byte, as digits of a number to the base `values`, the first one last."""
    yield 1, digits
    rows_per_byte = 2
    while values**rows_per_byte <= 256:
        packed = np.zeros(-(-len(digits) // rows_per_byte), np.uint8)
        for place in range(rows_per_byte):
            found = digits[place::rows_per_byte]
            packed[: len(found)] += found * np.uint8(values**place)
        yield rows_per_byte, packed
        rows_per_byte += 1


def _digits(values: int, rows_per_byte: int) -> np.ndarray:
    """What the rows of each byte are above the lowest value: (bytes, rows), modulo 256 as int8."""
    numbers = np.arange(values**rows_per_byte)[:, np.newaxis]
    return (numbers // values ** np.arange(rows_per_byte) % values).astype(np.uint8).view(np.int8)


def _deflate(packed: np.ndarray) -> bytes:
    """The shorter of two streams, the one without runs if both are as long. What cannot be the shorter is not made."""
    if not _has_runs(packed):
        return _compressed(packed, _HUFFMAN)
    with_runs = _compressed(packed, _RLE)
    if 8 * len(with_runs) <= len(packed):  # without runs every byte takes a bit or more
        return with_runs
    without_runs = _compressed(packed, _HUFFMAN)
    return with_runs if len(with_runs) < len(without_runs) else without_runs


def _has_runs(packed: np.ndarray) -> bool:
    """Whether four neighbours are equal: a match is of three bytes or more, and of the one before them."""
    same = packed[1:] == packed[:-1]
    return bool((same[2:] & same[1:-1] & same[:-2]).any())


def _compressed(packed: np.ndarray, strategy: int) -> bytes:
    deflating = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _RAW, _MEMORY, strategy)
    return deflating.compress(packed.data) + deflating.flush()


def _inflate(stream: memoryview | bytes, length: int) -> np.ndarray:
    """Exactly `length` bytes; no more than one more is ever allocated."""
    inflating = zlib.decompressobj(_RAW)
    try:
        found = inflating.decompress(stream, length + 1)
    except zlib.error as error:
        raise ValueError(f"a stream of latents cannot be decompressed: {error}") from None
    if len(found) != length or not inflating.eof or inflating.unused_data:
        raise ValueError(f"a stream of latents does not end after {length} bytes")
    return np.frombuffer(found, np.uint8)
