"""Blocks of sound that lap over each other, so that what is decoded block by block has no clicks at the edges.

Cut hard, a block that comes back with an error ends where the next one begins with another error: one hears a click,
and pays for the edge. Here half a block on either side of each edge is turned into its neighbour's: samples at equal
distance from the edge are rotated by an angle that goes from 45 degrees at the edge to none half a block away. That is
the window and the folding of the MDCT (Princen, Johnson and Bradley, "Subband/transform coding using filter bank
designs based on time domain aliasing cancellation", ICASSP 1987; the sine window) without its cosines, which are a
codec's business. A rotation is orthogonal: as many values as samples, the squared error of the values is that of the
samples, and the way back is the rotation by the negative angle. An error at an edge fades into the next block.

    for frames in lap(pieces, samples, frame, block): ...      # (n, channels) pieces to (k, frame, channels)
    for piece in unlap(frames, block): ...                     # and back

A frame is a row: one or more blocks. Silence fills the last one. Both go piece by piece, and how a sound is cut into
pieces changes no value.
"""

from collections.abc import Iterable, Iterator

import numpy as np


def frames_of(samples: int, frame: int) -> int:
    """How many frames a sound has: one at least."""
    return max(1, -(-samples // frame))


def lap(pieces: Iterable[np.ndarray], samples: int, frame: int, block: int, most: int) -> Iterator[np.ndarray]:
    """`samples` samples, float64 (n, channels) a piece, as frames (k, frame, channels), at most `most` at once.

    There is one piece at least, if an empty one.
    """
    left = frames_of(samples, frame)
    held: np.ndarray | None = None
    source = iter(pieces)
    while left:
        count = min(left, most)
        is_last = count == left
        needed = count * frame + (0 if is_last else block // 2)
        held = _filled(held, source, needed)
        _rotate(held, range(block, count * frame + (0 if is_last else 1), block), block, forwards=True)
        yield held[: count * frame].reshape(count, frame, -1)
        held, left = held[count * frame :], left - count


def unlap(frames: Iterable[np.ndarray], block: int) -> Iterator[np.ndarray]:
    """Frames (k, frame, channels) as float64 samples (n, channels); those that fill the last frame are among them."""
    half = block // 2
    held: np.ndarray | None = None
    for some in frames:
        new = some.reshape(-1, some.shape[2]).astype(np.float64)
        # What is held is half a block, whose other half comes now; at the very start there is no edge.
        first = half if held is not None else block
        joined = new if held is None else np.concatenate([held, new])
        _rotate(joined, range(first, len(joined), block), block, forwards=False)
        yield joined[:-half]
        held = joined[-half:]
    if held is not None:
        yield held


def _filled(held: np.ndarray | None, source: Iterator[np.ndarray], needed: int) -> np.ndarray:
    """What is held and more of the source, at least `needed` samples; zeros where it has ended."""
    parts = [] if held is None else [held]
    have = sum(map(len, parts))
    while have < needed and (piece := next(source, None)) is not None:
        parts.append(piece)
        have += len(piece)
    if have < needed:
        parts.append(np.zeros((needed - have, parts[0].shape[1])))
    return np.concatenate(parts)


def _rotate(samples: np.ndarray, edges: range, block: int, *, forwards: bool) -> None:
    """Rotate samples (n, channels) around each edge, in place."""
    half = block // 2
    at = np.array(edges, np.int64)[:, None]
    after = at + np.arange(half)
    before = 2 * at - 1 - after
    angle = np.pi / 4 * (1 + (np.arange(half) + 0.5) / half)
    own, other = np.sin(angle)[:, None], np.cos(angle)[:, None] * (1 if forwards else -1)
    right, left = samples[after], samples[before]
    samples[after] = own * right + other * left
    samples[before] = own * left - other * right
