"""Which records are held out for the test: each is drawn by the seed, its file's name and its number in the file.

So a record stays in its split for ever, whatever files come or go beside it. About the wanted share is drawn, and at
least one record for each split.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np

_BLOCK = 1 << 16
# The finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
_STEP, _FIRST, _SECOND = (np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Drawing(ABC):
    """Says of records whether they are drawn for the test."""

    @abstractmethod
    def of(self, name: str, first: int, records: int) -> np.ndarray:
        """(records,) Whether each is drawn, of the records of a file from number `first` on."""


class RecordDrawing(Drawing):
    """Draws each record by itself. `files` are names and numbers of records."""

    def __init__(self, files: Iterable[tuple[str, int]], fraction: float, seed: int):
        self._seed = seed
        # A fraction below 1 is at most 1 - 2**-53, so this is below 2**64.
        self._limit = int(fraction * 2**64)
        least, most = 2**64, -1
        for name, records in files:
            for numbers in self._numbers(name, records):
                least, most = min(least, int(numbers.min())), max(most, int(numbers.max()))
        # All numbers below the limit are drawn; one at least is, and one is not.
        self._limit = min(max(self._limit, least + 1), most)

    def of(self, name: str, first: int, records: int) -> np.ndarray:
        drawn: np.ndarray = self._hashed(name, first, first + records) < np.uint64(self._limit)
        return drawn

    def _numbers(self, name: str, records: int) -> Iterator[np.ndarray]:
        for first in range(0, records, _BLOCK):
            yield self._hashed(name, first, min(first + _BLOCK, records))

    def _hashed(self, name: str, first: int, end: int) -> np.ndarray:
        """Evenly spread uint64 numbers of records `first` to `end`, the end not included."""
        digest = hashlib.sha256(f"{self._seed}\0{name}".encode()).digest()
        start = np.uint64(int.from_bytes(digest[:8], "little"))
        with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what it is made of
            mixed = start + _STEP * np.arange(first + 1, end + 1, dtype=np.uint64)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
            mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
            return mixed ^ (mixed >> np.uint64(31))
