"""The IDX file format of the MNIST database (LeCun, Cortes, Burges: "THE MNIST DATABASE of handwritten digits").

Big-endian: two zero bytes, a dtype code, the number of dimensions, one uint32 per dimension, then the values.
"""

import gzip
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np

from ae_pipeline.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 9


def open_idx(path: Path) -> np.ndarray:
    """Memory-map an uncompressed IDX file as a read-only array (N, ...). Raises DataError if it is not one."""
    dtype, shape = _read_header(path, gzipped=False)
    size, offset = path.stat().st_size, 4 + 4 * len(shape)
    expected = offset + dtype.itemsize * int(np.prod(shape, dtype=object))
    if size != expected:
        raise DataError(f"{path} has {size} bytes, expected {expected} for shape {list(shape)}; fetch it again")
    if shape[0] == 0:
        raise DataError(f"{path} holds no rows; expected at least one")
    return np.memmap(path, dtype, "r", offset, shape)


def describe_idx(path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of an IDX file, gzipped or not; reads no values, so what is gzipped may yet be damaged.

    Raises DataError for what `open_idx` refuses, as far as it can be seen.
    """
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == GZIP_MAGIC
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if gzipped:
        return _read_header(path, gzipped=True)
    values = open_idx(path)
    return values.dtype, values.shape


def _read_header(path: Path, *, gzipped: bool) -> tuple[np.dtype, tuple[int, ...]]:
    try:
        with gzip.open(path, "rb") if gzipped else open(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES or not head[3]:
                raise DataError(f"{path} is not an IDX file (starts with {head!r}); expected two zero bytes and a type")
            if head[3] > _MOST_DIMENSIONS:
                raise DataError(f"{path} has {head[3]} dimensions, expected 1 to {_MOST_DIMENSIONS}; fetch it again")
            lengths = file.read(4 * head[3])
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if len(lengths) < 4 * head[3]:
        raise DataError(f"{path} is truncated in its header ({path.stat().st_size} bytes); fetch it again")
    return np.dtype(_DTYPES[head[2]]), struct.unpack(f">{head[3]}I", lengths)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write a uint8 array (N, ...) as an uncompressed IDX file."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 0x08, values.ndim, *values.shape)
    path.write_bytes(head + np.ascontiguousarray(values, np.uint8).tobytes())


def copy_uncompressed(source: Path, target: Path, limit: int = 1 << 36) -> None:
    """Copy a file, gunzipped if it is gzipped, `limit` bytes at most. Raises DataError if it is not whole."""
    with open(source, "rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    if not packed:
        shutil.copyfile(source, target)
        return
    written = 0
    try:
        with gzip.open(source, "rb") as reader, open(target, "wb") as writer:
            while piece := reader.read(1 << 20):
                written += len(piece)
                if written > limit:
                    raise DataError(f"{source} unpacks to more than {limit} bytes; that is not the expected file")
                writer.write(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source} is truncated or damaged ({error}); fetch it again") from None
