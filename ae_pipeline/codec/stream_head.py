"""The head of a stream, and what is kept where no network helps: the same for every sort of context codec.

    stream = smallest(plain, [(NETWORKS, coded), (ZSTD, compressed(plain)), (RAW, plain)], check)
    method, payload = opened(stream)              # ValueError for what is no stream
    values = kept(method, payload, size)          # of what no network made
    refuse_changed(stream, values)

A stream begins with how it was made (a byte) and with eight bytes of the SHA-256 of its values, by which damage is
found. What follows is raw, or zstd, or the entropy coder's.
"""

import hashlib
from collections.abc import Callable, Sequence

import pyarrow as pa

RAW, ZSTD, NETWORKS = 0, 1, 2
_DIGEST_BYTES = 8
_HEAD_BYTES = 1 + _DIGEST_BYTES
_THOROUGH = 19


def head(method: int, plain: bytes) -> bytes:
    """What a stream of these values begins with."""
    return bytes([method]) + _digest(plain)


def compressed(plain: bytes, level: int = _THOROUGH) -> bytes:
    """Bytes by zstd."""
    found: bytes = pa.Codec("zstd", compression_level=level).compress(plain, asbytes=True)
    return found


def smallest(plain: bytes, choices: Sequence[tuple[int, bytes]], check: Callable[[bytes], None]) -> bytes:
    """The stream of the smallest payload that `check` finds to hold the values; `choices` are methods and payloads.

    `check` raises ValueError for a stream that does not give the values back.
    """
    for method, payload in sorted(choices, key=lambda choice: len(choice[1])):
        stream = head(method, plain) + payload
        try:
            check(stream)
        except ValueError:
            continue
        return stream
    raise AssertionError("bytes that are kept as they are did not come back")


def opened(stream: bytes | memoryview) -> tuple[int, memoryview]:
    """How a stream was made, and what follows its head. Raises ValueError for what no version has written."""
    if len(stream) < _HEAD_BYTES:
        raise ValueError(f"a stream of {len(stream)} bytes has no head")
    if stream[0] not in (RAW, ZSTD, NETWORKS):
        raise ValueError(f"a stream was made in a way {stream[0]} that is not known; use a newer ae-pipeline")
    return stream[0], memoryview(stream)[_HEAD_BYTES:]


def kept(method: int, payload: memoryview, size: int) -> memoryview:
    """The `size` bytes of values of a stream that no network made. Raises ValueError if there are not as many."""
    if method == ZSTD:
        try:
            payload = memoryview(pa.Codec("zstd").decompress(payload, size, asbytes=True))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"a stream cannot be decompressed: {error}") from None
    if len(payload) != size:
        raise ValueError(f"a stream has {len(payload)} bytes of values, not {size}")
    return payload


def refuse_changed(stream: bytes | memoryview, values: bytes) -> None:
    """Raise ValueError unless a stream's digest is that of these values."""
    if _digest(values) != bytes(stream[1:_HEAD_BYTES]):
        raise ValueError("a stream was changed: its digest is not that of its values")


def _digest(plain: bytes) -> bytes:
    return hashlib.sha256(plain).digest()[:_DIGEST_BYTES]
