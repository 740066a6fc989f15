"""What a source gives and `prepare` takes: the rows of one split."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RawSplit:
    """One split as the source has it. May be a memory map: nothing is read until rows are taken."""

    pixels: np.ndarray
    """(rows, *shape) of a dtype in `pixels.DTYPES`."""
    attributes: dict[str, np.ndarray]
    """(rows,) each, e.g. `label`."""
    first_id: int
    """Rows have the ids first_id, first_id + 1, ...: unique over all splits and the same for ever."""
