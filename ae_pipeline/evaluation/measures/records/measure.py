"""What measures one record: it is given the record and what came back of it, piece by piece, and keeps little of them.

measure = SegmentalSnr(line)                  # `line`: the columns of the record's first row, e.g. its rate
measure.add(original, decoded)                # float64 (n, ...) each, as `Kind.restored` gives them
measure.value()
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np


class RecordMeasure(Protocol):
    """One metric of one record. Memory must not grow with the record."""

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Pieces of the same place in the record, along its first axis, one after the other."""

    def value(self) -> float:
        """The metric of all that was added. NaN: it does not apply; infinity: nothing was lost, where that has none."""


RecordMetric = Callable[[Mapping[str, Any]], RecordMeasure]
"""Makes the measure of a record, from the columns of its first row."""
