"""The pixels of a row: their shape and dtype, and how they stand in an Arrow column."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.errors import ConfigError, DataError

PIXELS = "pixels"
DTYPES = ("uint8", "int8", "uint16", "int16", "float32")
# Parquet and Arrow count the bytes of a fixed-size value in 32 bits.
_MOST_BYTES = (1 << 31) - 1
# Rows that an error names.
_NAMED = 5


@dataclass(frozen=True)
class SampleSpec:
    """Shape and dtype that all rows of a data set share."""

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise DataError(f"samples of dtype {self.dtype} are not supported; expected one of {', '.join(DTYPES)}")
        wanted = None
        if not 1 <= len(self.shape) <= 8 or any(size < 1 for size in self.shape):
            wanted = "1 to 8 dimensions of at least 1"
        elif self.nbytes > _MOST_BYTES:
            wanted = f"at most {_MOST_BYTES} bytes"
        if wanted:
            raise DataError(f"samples of shape {list(self.shape)} are not supported; expected {wanted}")

    @property
    def size(self) -> int:
        """Values per row."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes per row, uncompressed."""
        return self.size * np.dtype(self.dtype).itemsize

    def describe(self) -> str:
        """Dtype and shape for messages, e.g. `uint8 28x28`."""
        return f"{self.dtype} {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Groups:
    """Rows that stay together, in one split."""

    by: str
    """What makes the groups, as the person said it: a column's name, or `folder`."""
    numbers: np.ndarray
    """(rows,) int64, from 0 on: equal for rows of one group."""


@dataclass(frozen=True)
class RawSplit:
    """One split as a source gives it to `prepare`. May be a memory map: nothing is read until rows are taken."""

    pixels: np.ndarray
    """(rows, *shape) of a dtype in DTYPES."""
    attributes: dict[str, np.ndarray | pa.ChunkedArray]
    """(rows,) each, e.g. `label`. `id`, where there is one, has the rows' ids, unique over all splits."""
    first_id: int
    """Rows without ids of their own have first_id, first_id + 1, ...: unique over all splits and the same for ever."""
    kind: KindEntry | None = None
    """What a row means, for the codec to keep."""
    record: str | None = None
    """The attribute that says which record a row belongs to, where one can have several: they stand together."""
    groups: Groups | None = None
    """The groups of rows, where they are to stay in one split; each has its own numbers in every split."""


def image_shape(sample_shape: tuple[int, ...], model_name: str) -> tuple[int, int, int]:
    """Height, width and channels of samples that are images. Raises ConfigError for others."""
    if len(sample_shape) not in (2, 3):
        raise ConfigError(
            f"model.name: {model_name} needs samples of shape height x width (x channels), found {list(sample_shape)}; "
            "use dense"
        )
    height, width, channels = (*sample_shape, 1)[:3]
    return height, width, channels


def from_numpy(values: np.ndarray, dtype: str) -> pa.FixedSizeBinaryArray:
    """(rows, values) to one fixed-size binary value per row: C order, little-endian."""
    little = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    width = little.shape[1] * little.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(little), [None, pa.py_buffer(little)])


def to_numpy(column: pa.ChunkedArray, spec: SampleSpec, path: Path, ids: pa.ChunkedArray) -> np.ndarray:
    """(rows, *shape) of a pixels column in any of the types that are read; `ids` name rows in errors (DataError)."""
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if array.null_count:
        which = name_rows(ids, array.is_null().to_numpy(zero_copy_only=False))
        raise DataError(f"{path}: no pixels in {which}; remove them first")
    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        _check_lengths(pc.binary_length(array), spec.nbytes, "bytes", spec, path, ids)
        array = array.cast(pa.binary(spec.nbytes))
    if pa.types.is_fixed_size_binary(array.type):
        start = array.offset * array.type.byte_width
        flat = np.frombuffer(array.buffers()[1], np.uint8)[start : start + len(array) * array.type.byte_width]
        pixels = flat.view(np.dtype(spec.dtype).newbyteorder("<"))
    elif _is_list(kind):
        pixels = _cast(_flat(array, spec, path, ids), spec, path)
    else:
        raise DataError(f"{path}: `{PIXELS}` is of type {kind}, expected binary or a list of numbers")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        which = name_rows(ids, ~np.isfinite(pixels.reshape(len(array), -1)).all(axis=1))
        raise DataError(f"{path}: pixels of {which} are NaN, infinite or beyond float32; repair them first")
    return pixels.reshape(len(array), *spec.shape)


def name_rows(ids: pa.ChunkedArray, bad: np.ndarray) -> str:
    """The rows of a block where `bad` (n,) is true: how many, and the ids of the first. For messages."""
    count = int(bad.sum())
    rows = "1 row" if count == 1 else f"{count:,} rows"
    some = [str(value) for value in ids.take(np.flatnonzero(bad)[:_NAMED]).to_pylist()]
    return f"{rows} (id {', '.join(some)}{', ...' if count > _NAMED else ''})"


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _flat(array: pa.Array, spec: SampleSpec, path: Path, ids: pa.ChunkedArray) -> pa.Array:
    """All values, C order, of rows that are lists of numbers, or lists in lists as the shape says."""
    depth, kind = 0, array.type
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    if depth == 1:
        _check_lengths(pc.list_value_length(array), spec.size, "values", spec, path, ids)
        return array.flatten()
    if depth != len(spec.shape):
        raise DataError(
            f"{path}: `{PIXELS}` has lists in lists, {depth} deep, expected {len(spec.shape)} for "
            f"{spec.describe()}, or one list of {spec.size} values for each row"
        )
    rows = len(array)
    for level, size in enumerate(spec.shape, 1):
        lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False)
        wrong = (lengths != size).reshape(rows, -1).any(axis=1)
        if wrong.any():
            what = "values" if level == depth else "lists"
            found = f"lists of {_counted(lengths.min(), lengths.max())} {what}" if lengths.min() >= 0 else "null"
            raise DataError(
                f"{path}: `{PIXELS}` has {found} at depth {level}, expected {size} {what} for {spec.describe()}, in "
                f"{name_rows(ids, wrong)}; correct them first"
            )
        array = array.flatten()
    return array


def _check_lengths(
    lengths: pa.Array, wanted: int, what: str, spec: SampleSpec, path: Path, ids: pa.ChunkedArray
) -> None:
    """Every row must have the same number of values (or bytes), which the spec gives."""
    found = pc.min_max(lengths).as_py()
    if found["min"] != wanted or found["max"] != wanted:
        wrong = pc.not_equal(lengths, wanted).to_numpy(zero_copy_only=False)
        raise DataError(
            f"{path}: rows have {_counted(found['min'], found['max'])} {what}, expected {wanted} for "
            f"{spec.describe()}: {name_rows(ids, wrong)}"
        )


def _counted(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _cast(values: pa.Array, spec: SampleSpec, path: Path) -> np.ndarray:
    """Numbers of any type to the samples' dtype, if none is changed by it (floats may be rounded)."""
    try:
        cast = values.cast(pa.from_numpy_dtype(spec.dtype))
    except pa.ArrowException:
        raise DataError(
            f"{path}: `{PIXELS}` holds {values.type} values that do not fit {spec.dtype}, as the codec has "
            "(missing, fractions or out of range); convert them first"
        ) from None
    if cast.null_count:
        raise DataError(f"{path}: {cast.null_count} values in `{PIXELS}` are missing; fill them first")
    return cast.to_numpy()
