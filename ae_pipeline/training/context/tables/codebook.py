"""A codebook for a number whose values stand in clusters: cells, each within the bound, that take the fewest bits."""

import numpy as np

_CELL_BITS = 40.0
"""What one cell more costs in the codec: its ends, and a row of weights."""
_MOST_VALUES = 50_000


def fit_codebook(places: np.ndarray, cell: int, most: int) -> list[tuple[int, int]] | None:
    """First and last number of each cell of at most `cell` places; places are int64 (n,).

    Dynamic programming over the distinct numbers finds the cells of least entropy, each `_CELL_BITS` included. None
    where that takes more than `most` cells, or where there are too many distinct numbers to try.
    """
    numbers, counts = np.unique(places, return_counts=True)
    if len(numbers) > _MOST_VALUES:
        return None
    sums = np.concatenate([[0], np.cumsum(counts)])
    total = float(sums[-1])
    best, first = np.zeros(len(numbers) + 1), np.zeros(len(numbers) + 1, np.int64)
    begins = np.searchsorted(numbers, numbers - cell + 1)
    for end in range(1, len(numbers) + 1):
        starts = np.arange(begins[end - 1], end)
        inside = sums[end] - sums[starts]
        costs = best[starts] - inside * np.log2(inside / total) + _CELL_BITS
        chosen = int(costs.argmin())
        best[end], first[end] = costs[chosen], starts[chosen]
    cells, end = [], len(numbers)
    while end:
        cells.append((int(numbers[first[end]]), int(numbers[end - 1])))
        end = int(first[end])
    return cells[::-1] if len(cells) <= most else None
