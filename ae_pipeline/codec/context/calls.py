"""What the entropy coder is called with: the chance of every symbol, a call after the other."""

from typing import NamedTuple

import numpy as np


class Calls(NamedTuple):
    """Start and width of each symbol, int32, and how many symbols each call has."""

    starts: list[np.ndarray]
    widths: list[np.ndarray]
    sizes: list[int]

    def add(self, start: np.ndarray, width: np.ndarray) -> None:
        """Put a call at the end. There is none for no symbols."""
        if len(start):
            self.starts.append(start)
            self.widths.append(width)
            self.sizes.append(len(start))

    def extend(self, others: "Calls") -> None:
        """Put others at the end."""
        self.starts.extend(others.starts)
        self.widths.extend(others.widths)
        self.sizes.extend(others.sizes)

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and width, int32 (n,), of all symbols."""
        return np.concatenate(self.starts), np.concatenate(self.widths)
