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
# The tail is looked for in so many symbols at the end, and only then among all.
_LOOKED_AT = 1 << 16


def encode(starts: np.ndarray, widths: np.ndarray, sizes: Sequence[int], lanes: int) -> bytes:
    """The stream of symbols in the order in which they are decoded: int32 (n,) each; `sizes` add up to n.

    With few symbols, fewer lanes are used.
    """
    ends = np.cumsum(np.asarray(sizes, np.int64))
    begins = ends - np.asarray(sizes, np.int64)
    lanes, switch = _shared_out(widths, begins, lanes)
    starts, widths = np.ascontiguousarray(starts, np.uint32), np.ascontiguousarray(widths, np.uint32)
    limits, gains = widths << _REST, np.uint32(ONE) - widths
    states = np.full(lanes, _LOW, np.uint32)
    tail = min(_TAIL, lanes)

    def put(call: int, count: int, words: list[np.ndarray]) -> None:
        first, last = int(begins[call]), int(ends[call])
        if first == last:
            return
        for left in range(first + (last - first - 1) // count * count, first - 1, -count):
            right = min(left + count, last)
            state = states[: right - left]
            full = (state >= limits[left:right]).nonzero()[0]
            large = state.take(full)
            words.append(large)
            state[full] = large >> _WORD
            # quotient * ONE + remainder + start
            quotient = state // widths[left:right]
            quotient *= gains[left:right]
            state += quotient
            state += starts[left:right]

    late: list[np.ndarray] = []
    for call in range(len(sizes) - 1, switch - 1, -1):
        put(call, tail, late)
    kept = _words(late)
    states[tail:] = _LOW + kept[: lanes - tail].astype(np.uint32)
    early: list[np.ndarray] = []
    for call in range(switch - 1, -1, -1):
        put(call, lanes, early)
    return _written(states, switch, np.concatenate([_words(early), kept[lanes - tail :]]))


def _words(states: list[np.ndarray]) -> np.ndarray:
    """The low words of what was put last, then of what was put before: uint16."""
    return (np.concatenate([np.empty(0, np.uint32), *states[::-1]]) & _WORD_MASK).astype(np.uint16)


def _shared_out(widths: np.ndarray, begins: np.ndarray, lanes: int) -> tuple[int, int]:
    """How many lanes are used, and the first call of the tail: the shortest one that fills the other lanes' states."""
    lanes = min(lanes, MOST_LANES)
    bits = _from_the_end(widths[-_LOOKED_AT:])
    if bits[-1] < 16 * lanes + _SLACK_BITS * _TAIL:
        bits = _from_the_end(widths)
    while lanes > _TAIL:
        needed = int(np.searchsorted(bits, 16 * (lanes - _TAIL) + _SLACK_BITS * _TAIL))
        late = np.flatnonzero(len(widths) - begins >= needed)
        if needed < len(bits) and len(late):
            return lanes, int(late[-1])
        lanes = max(_TAIL, lanes // 2)
    return lanes, len(begins)


def _from_the_end(widths: np.ndarray) -> np.ndarray:
    """Bits of no symbol, of the last one, of the last two, ...: float64."""
    return np.concatenate([[0.0], np.cumsum((BITS - np.log2(widths))[::-1])])


def _written(states: np.ndarray, switch: int, words: np.ndarray) -> bytes:
    large = states >= 1 << (8 * _STATE_BYTES)
    in_bytes = states.astype("<u4").view(np.uint8).reshape(-1, 4)
    pieces = (np.array([len(states), switch], "<u2"), np.packbits(large), in_bytes[:, :_STATE_BYTES])
    rest = (in_bytes[large, _STATE_BYTES], words.astype("<u2"))
    return b"".join(piece.tobytes() for piece in (*pieces, *rest))


def picked(edges: np.ndarray, symbols: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and width, int32, of uint8 symbols: those of `edges` (17, n) in the columns that are said for each."""
    count, flat = edges.shape[1], edges.reshape(-1)
    place = symbols * np.intp(count)
    place += columns
    start = flat.take(place)
    place += count
    width = flat.take(place)
    width -= start
    return start, width


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
        """uint8 symbols (n,) of the next call; edges int32 (symbols + 1, n): where each begins, from 0 to ONE.

        There are at most 256 symbols.
        """
        count = edges.shape[1]
        symbols, columns = np.empty(count, np.uint8), np.arange(count)
        inner, lanes = edges[1:-1], len(self._states)
        for left in range(0, count, lanes):
            right = min(left + lanes, count)
            state, found = self._states[: right - left], symbols[left:right]
            slot = (state & _CHANCE_MASK).view(np.int32)
            np.add.reduce((inner[:, left:right] <= slot).view(np.uint8), axis=0, dtype=np.uint8, out=found)
            start, width = picked(edges, found, columns[left:right])
            slot -= start
            self._move_on(state, width.view(np.uint32), slot.view(np.uint32))
        self._end_call()
        return symbols

    def expect(self, starts: np.ndarray, widths: np.ndarray) -> None:
        """Read the next call, of symbols of which start and width, int32 (n,), are known; ValueError for others."""
        lanes = len(self._states)
        starts, widths = starts.view(np.uint32), widths.view(np.uint32)
        for left in range(0, len(starts), lanes):
            right = min(left + lanes, len(starts))
            state, width = self._states[: right - left], widths[left:right]
            within = (state & _CHANCE_MASK) - starts[left:right]  # what is below the start becomes very large
            if (within >= width).any():
                raise ValueError("the stream has another symbol")
            self._move_on(state, width, within)
        self._end_call()

    def _move_on(self, state: np.ndarray, width: np.ndarray, within: np.ndarray) -> None:
        """Take symbols of this width from states, uint32 (n,) each; `within` is how far the slot is in them."""
        state >>= _CHANCE
        state *= width
        state += within
        empty = (state < _LOW).nonzero()[0]
        taken = self._words[self._place : self._place + len(empty)]
        if len(taken) < len(empty):
            raise ValueError("the stream ends too early")
        longer = state.take(empty)
        longer <<= _WORD
        longer |= taken
        state[empty] = longer
        self._place += len(empty)

    def _end_call(self) -> None:
        self._calls += 1
        if self._calls == self._switch:
            self._begin_tail()

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
