"""A block of rows as a stream of bytes, and back: exactly, or an error.

    coder = StreamCoder(networks, (28, 28), Grid(0))
    stream = coder.encode(indices)               # uint8 (n, height, width)
    indices = coder.decode(stream, n)            # ValueError for what is damaged

Each stream is read once more before it is given out, and takes the next simpler way (../stream_head.py) if that is
smaller, or if anything came back wrong. For the entropy coder's, what the networks say of each symbol is computed anew
from the values, in pieces of another size: encoding knows all values, and need not go wavefront by wavefront. A decoder
gets the same, since a context has nothing in it that comes later, and integers do not depend on what is computed beside
them; tests hold both.
"""

import numpy as np

from ae_pipeline.codec.context.calls import Calls
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.masks import Masks
from ae_pipeline.codec.context.networks import Networks
from ae_pipeline.codec.context.rans import MOST_CALLS, Reader, encode
from ae_pipeline.codec.context.values import Values
from ae_pipeline.codec.stream_head import NETWORKS, RAW, ZSTD, compressed, kept, opened, refuse_changed, smallest

# A level of zstd. The usual one takes as long as all the rest, and is tried where this is not surely beaten.
_QUICK, _SURELY = 3, 0.7
# Values of the pictures that are coded together, and when a stream is checked.
_AT_ONCE, _CHECKED_AT_ONCE = 1 << 18, 3 << 16
_MOST_LANES = 512
_SIGN = np.uint8(128)  # int8 of an index less 128 has all its bits but this one


class StreamCoder:
    """Ready to be used; nothing in it changes."""

    def __init__(self, networks: Networks, sides: tuple[int, int], grid: Grid):
        self._sides, self._grid = sides, grid
        height, width = even(sides)
        self._masks = Masks(networks, height, width)
        self._values = Values(networks, height, width, grid) if len(grid.values) > 2 else None

    def encode(self, indices: np.ndarray) -> bytes:
        """The stream of uint8 (n, height, width), n > 0."""
        plain = np.ascontiguousarray(indices).tobytes()
        choices = [(NETWORKS, self._coded(indices)), (ZSTD, compressed(plain, _QUICK)), (RAW, plain)]
        if len(choices[0][1]) > _SURELY * len(choices[1][1]):
            choices[1] = (ZSTD, compressed(plain))
        return smallest(plain, choices, lambda stream: self._check(stream, indices))

    def _check(self, stream: bytes, indices: np.ndarray) -> None:
        """Raise ValueError unless these indices are what the stream has.

        The entropy coder's bytes are read with chances that are computed once more, of other pictures together.
        """
        method, payload = opened(stream)
        if method != NETWORKS:
            if not np.array_equal(self.decode(stream, len(indices)), indices):
                raise ValueError("the stream has other values")
            return
        reader, calls = Reader(payload), self._calls(indices, _CHECKED_AT_ONCE)
        for start, width in zip(calls.starts, calls.widths, strict=True):
            reader.expect(start, width)
        reader.finish()

    def decode(self, stream: bytes | memoryview, count: int) -> np.ndarray:
        """uint8 (count, height, width). Raises ValueError for what `encode` cannot have written."""
        height, width = self._sides
        method, payload = opened(stream)
        if method == NETWORKS:
            found = self._decoded(payload, count)
        else:
            values = kept(method, payload, count * height * width)
            found = np.frombuffer(values, np.uint8).reshape(count, height, width)
        refuse_changed(stream, found.tobytes())
        return found

    def encode_latents(self, latents: np.ndarray) -> bytes:
        """The stream of int8 latents (n, height * width), as codecs have them: indices less 128."""
        return self.encode((latents.view(np.uint8) ^ _SIGN).reshape(-1, *self._sides))

    def decode_latents(self, stream: bytes | memoryview, count: int) -> np.ndarray:
        """Undo `encode_latents`. Raises ValueError as `decode`."""
        return (self.decode(stream, count).reshape(count, -1) ^ _SIGN).view(np.int8)

    def _coded(self, indices: np.ndarray) -> bytes:
        calls = self._calls(indices, _AT_ONCE)
        if len(calls.sizes) > MOST_CALLS:
            return b""
        return encode(*calls.joined(), calls.sizes, min(_MOST_LANES, max(1, len(indices) // 4)))

    def _calls(self, indices: np.ndarray, values: int) -> Calls:
        """The chances of all symbols of indices (n, height, width), computed of so many values at a time."""
        (height, width), (tall, wide) = self._sides, even(self._sides)
        indices = np.pad(indices, ((0, 0), (0, tall - height), (0, wide - width)))
        mask, at_once = indices > 0, max(1, values // (tall * wide))
        calls = self._masks.chances(mask, at_once)
        if self._values:
            calls.extend(self._values.chances(indices, mask, at_once))
        return calls

    def _decoded(self, payload: memoryview, count: int) -> np.ndarray:
        reader = Reader(payload)
        mask = self._masks.decode(reader, count)
        found = self._values.decode(reader, mask) if self._values else mask.astype(np.uint8)
        reader.finish()
        height, width = self._sides
        return np.ascontiguousarray(found[:, :height, :width])


def even(sides: tuple[int, int]) -> tuple[int, int]:
    """Height and width as they are coded: what is beyond an odd side is 0."""
    return sides[0] + sides[0] % 2, sides[1] + sides[1] % 2
