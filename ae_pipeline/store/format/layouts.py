"""The physical layouts of the `latent` column: how int8 latents (n, L) stand in Parquet.

To add one: a `Layout` and a line in LAYOUTS, and its name in `EncodeParams`, `LatentEntry` and cli.py;
tests/store/test_layouts.py finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.codec.context.options import MOST_STREAM_BYTES
from ae_pipeline.data.parquet.writer import ZSTD_LEVEL
from ae_pipeline.errors import DataError
from ae_pipeline.store.format.entropy_coding import compress, decompress

LATENT = "latent"


@dataclass(frozen=True)
class Layout:
    """`to_arrow` and `to_numpy` are inverse to each other. Readers hand out rows in this form."""

    arrow_type: Callable[[int], pa.DataType]
    to_arrow: Callable[[np.ndarray], pa.Array]
    to_numpy: Callable[[pa.Array, int], np.ndarray]
    dictionary_columns: tuple[str, ...] = ()
    """Parquet column paths to dictionary-encode."""
    zstd_level: int = ZSTD_LEVEL
    """How hard Parquet's compression tries, 1 to 22; every reader reads all levels."""
    coded_type: pa.DataType | None = None
    """The column's Arrow type in a file that has latents in another form; None: it has them as they are in memory."""
    to_file: Callable[[pa.Array], pa.Array] = lambda group: group
    """All rows of a row group, as they stand in the file."""
    from_file: Callable[[pa.Array, int], pa.Array] = lambda group, size: group
    """Undo `to_file`. Raises ValueError for what `to_file` cannot have made, before it allocates more memory than the
    latents' own bytes."""

    def file_type(self, size: int) -> pa.DataType:
        """The column's Arrow type in the file."""
        return self.coded_type or self.arrow_type(size)


# Lists of variable length, because some readers refuse Arrow's fixed-size lists.
_LIST = pa.list_(pa.field("element", pa.int8(), nullable=False))


def _list_to_arrow(latents: np.ndarray) -> pa.Array:
    rows, size = latents.shape
    offsets = pa.array(np.arange(0, (rows + 1) * size, size, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(latents.reshape(-1)), type=_LIST)


def _list_to_numpy(array: Any, size: int) -> np.ndarray:
    flat = array.flatten()
    if array.null_count or flat.null_count or len(flat) != len(array) * size or (np.diff(array.offsets) != size).any():
        raise ValueError(f"nulls, or rows of other lengths than {size}")
    return flat.to_numpy().reshape(len(array), size)


def _binary_type(size: int) -> pa.DataType:
    if size >= 1 << 31:  # Arrow's own error is no ValueError
        raise ValueError(f"no column holds latents of {size} bytes")
    return pa.binary(size)


def _binary_to_arrow(latents: np.ndarray) -> pa.Array:
    rows, size = latents.shape
    buffer = pa.py_buffer(np.ascontiguousarray(latents))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), rows, [None, buffer])


def _binary_to_numpy(array: Any, size: int) -> np.ndarray:
    if array.null_count or array.type.byte_width != size:
        raise ValueError(f"nulls, or rows of other lengths than {size}")
    flat = np.frombuffer(array.buffers()[1], np.int8)
    return flat[array.offset * size : (array.offset + len(array)) * size].reshape(len(array), size)


def _encode_group(group: Any) -> pa.Array:
    if not len(group):
        return pa.array([], pa.binary())
    return _one_stream(compress(_binary_to_numpy(group, group.type.byte_width)), len(group))


def _decode_group(group: Any, size: int) -> pa.Array:
    if not len(group):
        return _binary_to_arrow(np.empty((0, size), np.int8))
    return _binary_to_arrow(decompress(_stream_of(group), len(group), size))


def _one_stream(stream: bytes, rows: int) -> pa.Array:
    """The stream in the first row, nothing in the others: a column has as many values as its row group has rows."""
    offsets = np.full(rows + 1, len(stream), np.int32)
    offsets[0] = 0
    return pa.BinaryArray.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(stream)])


def _stream_of(group: Any) -> memoryview:
    if group.null_count or pc.sum(pc.binary_length(group.slice(1))).as_py():
        raise ValueError("nulls, or bytes in other rows than the first of a row group")
    return memoryview(group[0].as_buffer())


def _stream_group(streams: Any, group: Any) -> pa.Array:
    if not len(group):
        return pa.array([], pa.binary())
    latents = _binary_to_numpy(group, group.type.byte_width)
    return _one_stream(streams.encode_latents(latents), len(group))


def _values_of_stream(streams: Any, group: Any, size: int) -> pa.Array:
    if not len(group):
        return _binary_to_arrow(np.empty((0, size), np.int8))
    if len(group) * size > MOST_STREAM_BYTES:
        raise ValueError(f"latents would take {len(group) * size} bytes, at most {MOST_STREAM_BYTES} are allowed")
    return _binary_to_arrow(streams.decode_latents(_stream_of(group), len(group)))


_BINARY = Layout(_binary_type, _binary_to_arrow, _binary_to_numpy)
LAYOUTS = {
    # Lists of int8: every reader opens them as arrays. A dictionary of at most 256 values packs them in
    # log2(levels) bits each.
    "list": Layout(lambda size: _LIST, _list_to_arrow, _list_to_numpy, dictionary_columns=(f"{LATENT}.list.element",)),
    # Fixed-size binary, one byte per value: several times faster to write and read; opens as bytes.
    "binary": _BINARY,
    # Bytes as in `binary`, compressed harder: for long rows that are mostly zero, at 1,700 rows of 1,024 a second.
    "packed": replace(_BINARY, zstd_level=22),
    # For the last bits: in the file entropy-coded, a row group at a time; read by this package as `binary`.
    "coded": replace(_BINARY, coded_type=pa.binary(), to_file=_encode_group, from_file=_decode_group),
}
STREAM = "stream"
"""The layout of context codecs (codec/context): in the file each row group is a stream of theirs."""
NAMES = (*LAYOUTS, STREAM)


def layout_of(name: str, streams: Any = None) -> Layout:
    """The layout of this name; `streams` is the codec's StreamCoder, which only `stream` needs."""
    if name != STREAM:
        return LAYOUTS[name]
    if streams is None:
        raise DataError("the layout `stream` is for context codecs; choose another one (--layout, encode.layout)")
    to_file, from_file = partial(_stream_group, streams), partial(_values_of_stream, streams)
    return replace(_BINARY, coded_type=pa.binary(), to_file=to_file, from_file=from_file)


QUICK = tuple(name for name, layout in LAYOUTS.items() if layout.zstd_level == ZSTD_LEVEL)
"""The layouts that are written fast enough to be tried on any rows."""
