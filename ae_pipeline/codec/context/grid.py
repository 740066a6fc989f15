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

    @property
    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8: the lowest and the highest value that has each index."""
        middle = np.arange(len(self.values)) * self.step
        lowest, highest = np.maximum(middle - self.max_error, 0), np.minimum(middle + self.max_error, LARGEST)
        return lowest.astype(np.uint8), highest.astype(np.uint8)

    @property
    def restored_max_error(self) -> int:
        """No value within a bin is further than this from another."""
        lowest, highest = self.bins
        return int((highest - lowest).max())

    def indices(self, values: np.ndarray) -> np.ndarray:
        """uint8 values to uint8 indices, of any shape."""
        return ((values.astype(np.uint16) + np.uint16(self.max_error)) // np.uint16(self.step)).astype(np.uint8)
