"""Values that no field of a row holds, as JSON beside the row: `{"price": 123456.5, "cut": "Rough"}`.

A float is a number of JSON, or one of the texts `nan`, `inf`, `-inf` in an object; whole numbers stand for decimals and
times in their own unit. All come back as they were, but for which of its bits say that a NaN is one.
"""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa

NAME = "exceptions"
"""The column of the store that has them; most rows have none."""
_FLOAT = "float"


def scalar_of(value: Any) -> Any:
    """A value as JSON has it: text, truth value, whole number, float or None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    return value


def of_scalar(found: Any) -> Any:
    """Undo `scalar_of`. Raises ValueError for anything else."""
    if isinstance(found, dict | list):
        text = found.get(_FLOAT) if isinstance(found, dict) else None
        if len(found) != 1 or text not in ("nan", "inf", "-inf"):
            raise ValueError(f"{str(found)[:80]} stands for no value")
        return float(text)
    return found


class Exceptions:
    """Gathers those of some rows."""

    def __init__(self, rows: int):
        self._rows: dict[int, dict[str, Any]] = {}
        self._count = rows

    def add(self, column: str, rows: np.ndarray, values: list[Any]) -> None:
        """Keep the values (n,) of a column in these rows (n,)."""
        for row, value in zip(rows.tolist(), values, strict=True):
            self._rows.setdefault(row, {})[column] = scalar_of(value)

    def column(self) -> pa.Array:
        """A column of texts; null: the row has none."""
        made: list[str | None] = [None] * self._count
        for row, values in self._rows.items():
            made[row] = json.dumps(values, ensure_ascii=False, allow_nan=False)
        return pa.array(made, pa.string())


def read_exceptions(column: pa.ChunkedArray) -> dict[str, tuple[np.ndarray, list[Any]]]:
    """By column, the rows that have an exception there, and their values. Raises ValueError for what is none."""
    found: dict[str, tuple[list[int], list[Any]]] = {}
    there = np.flatnonzero(column.is_valid().to_numpy())
    for row, text in zip(there.tolist(), column.take(pa.array(there)).to_pylist(), strict=True):
        for name, value in dict(json.loads(text)).items():
            rows, kept = found.setdefault(name, ([], []))
            rows.append(row)
            kept.append(of_scalar(value))
    return {name: (np.array(rows, np.int64), kept) for name, (rows, kept) in found.items()}
