"""Values as indices of a grid: 0 is on it, and no value is further than the bound from the nearest one.

With a bound of E the grid is 0, 2E + 1, 2 (2E + 1), ..., cut off at the largest value; a bound of 0 leaves every value.
"""

from dataclasses import dataclass

import numpy as np

LARGEST = 255


@dataclass(frozen=True)
class Grid:
    """The grid of uint8 values within `max_error` of each."""

    max_error: int

    @property
    def step(self) -> int:
        """Distance of two grid values."""
        return 2 * self.max_error + 1

    @property
    def values(self) -> np.ndarray:
        """uint8: the value of each index."""
        count = (LARGEST + self.max_error) // self.step + 1
        return np.minimum(np.arange(count) * self.step, LARGEST).astype(np.uint8)

    def indices(self, values: np.ndarray) -> np.ndarray:
        """uint8 values to uint8 indices, of any shape."""
        return ((values.astype(np.uint16) + np.uint16(self.max_error)) // np.uint16(self.step)).astype(np.uint8)
