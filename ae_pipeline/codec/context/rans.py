"""Interleaved range asymmetric numeral systems (rANS): symbols and their chances to bytes, and back.

    stream = encode(starts, widths, sizes, lanes)
    reader = Reader(stream)
    symbols = reader.read(edges)            # one call for each of `sizes`, in order
    reader.finish()                         # ValueError unless all of it was used

A symbol's chance is `width` of 2 ** 15, and `start` the sum of those before it. After Duda, "Asymmetric numeral
systems" (arXiv:1311.2540), and Giesen, "Interleaved entropy coders" (arXiv:1402.3392): a state of 32 bits for each
lane, words of 16 bits. Symbol i of a call belongs to lane i % lanes. The last calls use `_TAIL` lanes only; the words
that they need are kept in the first states of the others, which would hold nothing else.

Layout: lanes and the first call of the tail (two uint16), a bit for each lane whose state has a fourth byte, three
bytes of each state, those fourth bytes, and the words; all little-endian.
"""

from collections.abc import Sequence

import numpy as np

BITS = 15
ONE = 1 << BITS
"""What the chances of all symbols add up to."""
MOST_CALLS = MOST_LANES = (1 << 16) - 1

_TAIL = 16
_LOW = np.uint32(1 << 16)  # states are from here to 2 ** 32
_STATE_BYTES = 3
_WORD, _CHANCE, _REST = np.uint32(16), np.uint32(BITS), np.uint32(32 - BITS)
_CHANCE_MASK, _WORD_MASK = np.uint32(ONE - 1), np.uint32(0xFFFF)
# States are drawn on by some bits more than the symbols say, because words are whole.
_SLACK_BITS = 20


def encode(starts: np.ndarray, widths: np.ndarray, sizes: Sequence[int], lanes: int) -> bytes:
    """The stream of symbols in the order in which they are decoded: int32 (n,) each; `sizes` add up to n.

    With few symbols, fewer lanes are used.
    """
    ends = np.cumsum(np.asarray(sizes, np.int64))
    begins = ends - np.asarray(sizes, np.int64)
    lanes, switch = _shared_out(widths, begins, lanes)
    starts, widths = np.ascontiguousarray(starts, np.uint32), np.ascontiguousarray(widths, np.uint32)
    states = np.full(lanes, _LOW, np.uint32)
    tail = min(_TAIL, lanes)

    def put(call: int, count: int, words: list[np.ndarray]) -> None:
        first, last = int(begins[call]), int(ends[call])
        if first == last:
            return
        for left in range(first + (last - first - 1) // count * count, first - 1, -count):
            right = min(left + count, last)
            width, state = widths[left:right], states[: right - left]
            full = state >= width << _REST
            if full.any():
                words.append((state[full] & _WORD_MASK).astype(np.uint16))
                state[full] >>= _WORD
            quotient = state // width
            state -= quotient * width
            state += (quotient << _CHANCE) + starts[left:right]

    late: list[np.ndarray] = []
    for call in range(len(sizes) - 1, switch - 1, -1):
        put(call, tail, late)
    kept = np.concatenate([np.empty(0, np.uint16), *late[::-1]])
    states[tail:] = _LOW + kept[: lanes - tail].astype(np.uint32)
    early: list[np.ndarray] = []
    for call in range(switch - 1, -1, -1):
        put(call, lanes, early)
    return _written(states, switch, np.concatenate([np.empty(0, np.uint16), *early[::-1], kept[lanes - tail :]]))


def _shared_out(widths: np.ndarray, begins: np.ndarray, lanes: int) -> tuple[int, int]:
    """How many lanes are used, and the first call of the tail: the shortest one that fills the other lanes' states."""
    lanes = min(lanes, MOST_LANES)
    bits = np.concatenate([[0.0], np.cumsum((BITS - np.log2(widths))[::-1])])
    while lanes > _TAIL:
        needed = int(np.searchsorted(bits, 16 * (lanes - _TAIL) + _SLACK_BITS * _TAIL))
        late = np.flatnonzero(len(widths) - begins >= needed)
        if needed <= len(widths) and len(late):
            return lanes, int(late[-1])
        lanes = max(_TAIL, lanes // 2)
    return lanes, len(begins)


def _written(states: np.ndarray, switch: int, words: np.ndarray) -> bytes:
    large = states >= 1 << (8 * _STATE_BYTES)
    in_bytes = states.astype("<u4").view(np.uint8).reshape(-1, 4)
    pieces = (np.array([len(states), switch], "<u2"), np.packbits(large), in_bytes[:, :_STATE_BYTES])
    rest = (in_bytes[large, _STATE_BYTES], words.astype("<u2"))
    return b"".join(piece.tobytes() for piece in (*pieces, *rest))


class Reader:
    """Gives symbols back. Raises ValueError for what `encode` cannot have written, as far as it can be told."""

    def __init__(self, stream: bytes | memoryview):
        if len(stream) < 4:
            raise ValueError(f"a stream of {len(stream)} bytes has no head")
        lanes, self._switch = (int(value) for value in np.frombuffer(stream, "<u2", 2))
        marks = -(-lanes // 8)
        place = 4 + marks
        if not lanes or len(stream) < place:
            raise ValueError(f"a stream of {len(stream)} bytes has not the {lanes} lanes that it says")
        bits = np.unpackbits(np.frombuffer(stream, np.uint8, marks, 4)).astype(bool)
        large = bits[:lanes]
        if bits[lanes:].any():
            raise ValueError(f"a stream marks more than the {lanes} lanes that it says")
        end = place + _STATE_BYTES * lanes + int(large.sum())
        if len(stream) < end or (len(stream) - end) % 2:
            raise ValueError(f"a stream of {len(stream)} bytes has not the {lanes} states that it says")
        in_bytes = np.zeros((lanes, 4), np.uint8)
        in_bytes[:, :_STATE_BYTES] = np.frombuffer(stream, np.uint8, _STATE_BYTES * lanes, place).reshape(lanes, -1)
        in_bytes[large, _STATE_BYTES] = np.frombuffer(stream, np.uint8, int(large.sum()), place + _STATE_BYTES * lanes)
        self._states = in_bytes.view("<u4")[:, 0].astype(np.uint32)
        if (self._states < _LOW).any():
            raise ValueError("a state of the stream is too small")
        self._words = np.frombuffer(stream[end:], "<u2").astype(np.uint32)
        self._place = self._calls = 0
        if self._switch == 0:
            self._begin_tail()

    def read(self, edges: np.ndarray) -> np.ndarray:
        """uint8 symbols (n,) of the next call; edges int32 (17, n): where each of 16 symbols begins, from 0 to ONE."""
        count = edges.shape[1]
        symbols = np.empty(count, np.uint8)
        flat, inner, lanes = edges.reshape(-1), edges[1:16], len(self._states)
        for left in range(0, count, lanes):
            right = min(left + lanes, count)
            state = self._states[: right - left]
            slot = (state & _CHANCE_MASK).view(np.int32)
            below = (inner[:, left:right] <= slot).view(np.uint8)
            symbols[left:right] = np.add.reduce(below, axis=0, dtype=np.uint8)
            place = symbols[left:right].astype(np.intp) * count + np.arange(left, right)
            start = flat.take(place)
            width = flat.take(place + count) - start
            state >>= _CHANCE
            state *= width.view(np.uint32)
            state += (slot - start).view(np.uint32)
            empty = np.flatnonzero(state < _LOW)
            if len(empty):
                taken = self._words[self._place : self._place + len(empty)]
                if len(taken) < len(empty):
                    raise ValueError("the stream ends too early")
                state[empty] = state[empty] << _WORD | taken
                self._place += len(empty)
        self._calls += 1
        if self._calls == self._switch:
            self._begin_tail()
        return symbols

    def finish(self) -> None:
        """Raise ValueError unless all is used up, and every lane is where it began."""
        if self._place != len(self._words) or (self._states != _LOW).any():
            raise ValueError("the stream is longer than its symbols, or was changed")

    def _begin_tail(self) -> None:
        if len(self._states) > _TAIL:
            others = self._states[_TAIL:]
            if (others >= 2 * _LOW).any():
                raise ValueError("the stream was changed: a lane ends where none can")
            self._words = np.concatenate([others & _WORD_MASK, self._words[self._place :]])
            self._place, self._states = 0, self._states[:_TAIL].copy()
