"""The IDX file format of the MNIST database (LeCun, Cortes, Burges: "THE MNIST DATABASE of handwritten digits").

Big-endian: two zero bytes, a dtype code, the number of dimensions, one uint32 per dimension, then the values.

`idx_name` is the one place that knows how such files are called and which labels belong to which images.
"""

import gzip
import re
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ae_pipeline.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 9
_AGAIN = "fetch it again"
_ROLE = r"images?|labels?"
_NAME = re.compile(
    rf"(?P<before>.*?)(?P<role>{_ROLE})?(?P<idx>(?P<gap>[-._ ]?)idx(?P<dimensions>\d*))?"
    r"(?P<type>[-._ ](?:u?byte|u?short|u?int\d*|float\d*|double))?(?P<packed>\.gz)?",
    re.IGNORECASE | re.DOTALL,
)
_SPLITS = {"t10k": "test"}  # two words for one


@dataclass(frozen=True)
class IdxName:
    """What the name of an IDX file says. Images and labels with the same `key` belong together.

    `spelling` is the name without what tells images from labels: of several files with the same key, those spelt alike.
    """

    role: str
    key: str
    spelling: str


def idx_name(name: str) -> IdxName | None:
    """What a file name, without folders, says if an IDX file may be called so; None for any other name.

    train-images-idx3-ubyte, Train-Images.IDX3-UBYTE.gz, train_images.idx, images-idx3-ubyte, train-images, and the same
    with `labels`, which have `idx1`. Without either word, one dimension means labels.
    """
    found = _NAME.fullmatch(name)
    assert found is not None  # `before` matches anything
    before, role = found["before"], found["role"]
    if found["idx"] is None and (role is None or found["type"] or before[-1:].isalnum()):
        return None
    if found["idx"] and not (role or found["gap"] or found["type"] or not before):
        return None  # `.midx` and the like
    if role is None:  # `labels_train.idx1`: the word stands elsewhere
        words = list(re.finditer(rf"(?<![a-z])(?:{_ROLE})(?![a-z])", before, re.IGNORECASE))
        if words:
            role = words[-1][0]
            before = before[: words[-1].start()] + before[words[-1].end() :]
        else:
            role = "label" if found["dimensions"] == "1" else "image"
    words_of_key = re.split(r"[-._ ]+", before.lower())
    key = "-".join(_SPLITS.get(word, word) for word in words_of_key if word)
    ending = (f"{found['gap']}idx" if found["idx"] else "") + (found["type"] or "") + (found["packed"] or "")
    return IdxName("labels" if role.lower().startswith("label") else "images", key, before + ending)


def open_idx(path: Path) -> np.ndarray:
    """Memory-map an uncompressed IDX file as a read-only array (N, ...). Raises DataError if it is not one."""
    dtype, shape = _read_header(path, gzipped=False)
    size, offset = path.stat().st_size, 4 + 4 * len(shape)
    expected = offset + dtype.itemsize * int(np.prod(shape, dtype=object))
    if size != expected:
        found = f"has {size} bytes, expected {expected} for shape {list(shape)}"
        raise DataError(found, place=path, advice=_AGAIN)
    if shape[0] == 0:
        raise DataError("holds no rows", place=path, advice="expected at least one")
    return np.memmap(path, dtype, "r", offset, shape)


def describe_idx(path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of an IDX file, gzipped or not; reads no values, so what is gzipped may yet be damaged.

    Raises DataError for what `open_idx` refuses, as far as it can be seen.
    """
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == GZIP_MAGIC
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", place=path) from None
    if gzipped:
        return _read_header(path, gzipped=True)
    values = open_idx(path)
    return values.dtype, values.shape


def _read_header(path: Path, *, gzipped: bool) -> tuple[np.dtype, tuple[int, ...]]:
    try:
        with gzip.open(path, "rb") if gzipped else open(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES or not head[3]:
                found = f"is not an IDX file (starts with {head!r})"
                raise DataError(found, place=path, advice="expected two zero bytes and a type")
            if head[3] > _MOST_DIMENSIONS:
                found = f"has {head[3]} dimensions, expected 1 to {_MOST_DIMENSIONS}"
                raise DataError(found, place=path, advice=_AGAIN)
            lengths = file.read(4 * head[3])
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is truncated or damaged ({error})", place=path, advice=_AGAIN) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", place=path) from None
    if len(lengths) < 4 * head[3]:
        raise DataError(f"is truncated in its header ({path.stat().st_size} bytes)", place=path, advice=_AGAIN)
    return np.dtype(_DTYPES[head[2]]), struct.unpack(f">{head[3]}I", lengths)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array (N, ...) as an uncompressed IDX file, in its own dtype.

    The format lacks some dtypes, such as int64: their values are written in the first of its types that holds them all.
    Raises DataError if none does; no value is changed.
    """
    code = next((code for code, kind in _DTYPES.items() if values.dtype.newbyteorder(">") == np.dtype(kind)), None)
    if code is None:
        code = next((code for code, kind in _DTYPES.items() if _holds(kind, values)), None)
    if code is None:
        names = ", ".join(np.dtype(kind).newbyteorder("=").name for kind in _DTYPES.values())
        raise DataError(
            f"{path}: no IDX type holds these values of type {values.dtype}; convert them to one of {names}"
        )
    head = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + values.astype(_DTYPES[code]).tobytes())


def _holds(kind: str, values: np.ndarray) -> bool:
    """Whether a cast to `kind` changes no value."""
    with np.errstate(all="ignore"):  # a value that does not fit is what this looks for
        there = values.astype(kind)
        # Equality alone compares int64 with float64 as floats; the way back alone does not see a sign that wraps.
        return bool((there == values).all() and (there.astype(values.dtype) == values).all())


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
                    found = f"unpacks to more than {limit} bytes"
                    raise DataError(found, place=source, advice="that is not the expected file")
                writer.write(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is truncated or damaged ({error})", place=source, advice=_AGAIN) from None
