"""The two physical layouts of the `latent` column: how int8 latents (n, L) stand in Parquet.

To add one: a `Layout` and a line in LAYOUTS, and its name in `EncodeParams.layout`; tests/test_contracts.py finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

LATENT = "latent"


@dataclass(frozen=True)
class Layout:
    """`to_arrow` and `to_numpy` are inverse to each other."""

    arrow_type: Callable[[int], pa.DataType]
    to_arrow: Callable[[np.ndarray], pa.Array]
    to_numpy: Callable[[pa.Array, int], np.ndarray]
    dictionary_columns: tuple[str, ...]
    """Parquet column paths to dictionary-encode."""


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


def _binary_to_arrow(latents: np.ndarray) -> pa.Array:
    rows, size = latents.shape
    buffer = pa.py_buffer(np.ascontiguousarray(latents))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), rows, [None, buffer])


def _binary_to_numpy(array: Any, size: int) -> np.ndarray:
    if array.null_count or array.type.byte_width != size:
        raise ValueError(f"nulls, or rows of other lengths than {size}")
    flat = np.frombuffer(array.buffers()[1], np.int8)
    return flat[array.offset * size : (array.offset + len(array)) * size].reshape(len(array), size)


LAYOUTS = {
    # Lists of int8: every reader opens them as arrays. A dictionary of at most 256 values packs them in
    # log2(levels) bits each.
    "list": Layout(
        arrow_type=lambda size: _LIST,
        to_arrow=_list_to_arrow,
        to_numpy=_list_to_numpy,
        dictionary_columns=(f"{LATENT}.list.element",),
    ),
    # Fixed-size binary, one byte per value: several times faster to write and read; opens as bytes.
    "binary": Layout(
        arrow_type=pa.binary,
        to_arrow=_binary_to_arrow,
        to_numpy=_binary_to_numpy,
        dictionary_columns=(),
    ),
}
