"""How well nearest neighbours survive: what a search in decoded vectors finds of what one in the originals finds.

    kept = Neighbours()
    kept.add(original, decoded)          # block by block; only vectors are kept, and at most 10,000 of them
    kept.recall()

`recall_at_10`: for 1,000 queries (evenly spaced rows, as they were), the share of the ten decoded rows of the highest
cosine similarity that are among the ten nearest originals, the query's own row not counted. An original that is as near
as the tenth counts as one of the ten, so that equal vectors do no harm. Neighbours are exact: all rows are compared, in
blocks.
"""

import numpy as np

MOST_ROWS = 10_000
"""The first rows, which are searched; fewer where they take more than 128 MiB."""
_QUERIES = 1_000
_TOP = 10
_MOST_VALUES = 1 << 25
_BLOCK = 64


class Neighbours:
    """The first vectors of a data set, and what came back of them, float32."""

    def __init__(self) -> None:
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self._rows = 0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Rows (n, *shape) and what came back of them; rows that are no vectors are not kept."""
        if original.ndim != 2:
            return
        room = min(MOST_ROWS, _MOST_VALUES // original.shape[1]) - self._rows
        if room > 0:
            self._blocks.append((_directions(original[:room]), _directions(decoded[:room])))
            self._rows += len(self._blocks[-1][0])

    def recall(self) -> float | None:
        """`recall_at_10`; None for too few rows, or rows that are no vectors."""
        if self._rows <= _TOP:
            return None
        originals, decoded = (np.concatenate(some) for some in zip(*self._blocks, strict=True))
        queries = np.unique(np.linspace(0, self._rows - 1, min(_QUERIES, self._rows)).astype(int))
        blocks = (queries[start : start + _BLOCK] for start in range(0, len(queries), _BLOCK))
        return sum(_found(originals, decoded, block) for block in blocks) / (_TOP * len(queries))


def _found(originals: np.ndarray, decoded: np.ndarray, queries: np.ndarray) -> int:
    """How many of the neighbours of some queries are found, _TOP for each at most."""
    exact, answer = (originals[queries] @ rows.T for rows in (originals, decoded))
    for similar in (exact, answer):
        similar[np.arange(len(queries)), queries] = -np.inf
    tenth = np.partition(exact, -_TOP, axis=1)[:, -_TOP]
    nearest = np.argpartition(answer, -_TOP, axis=1)[:, -_TOP:]
    return int((np.take_along_axis(exact, nearest, axis=1) >= tenth[:, None]).sum())


def _directions(rows: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float32; a vector of zeros stays as it is."""
    values = rows.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(lengths > 0, lengths, 1)).astype(np.float32)
