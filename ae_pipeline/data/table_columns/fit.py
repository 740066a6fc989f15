"""Which state suits the values of a column: seen block by block, so that memory does not grow with their number."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.table_columns.exceptions import scalar_of
from ae_pipeline.data.table_columns.fields import LARGEST, MOST_SYMBOLS
from ae_pipeline.data.table_columns.state import Category, Column, Constant, Missing, Number, Unchanged
from ae_pipeline.data.table_columns.whole import decimals_of, is_category, is_time, numbers_of

_MOST_DECIMALS = 9
_FINEST = 256
"""Places of the grid within the bound, on each side, of floats that are on no grid of decimals."""
# Numbers that are all different, this many at least, are names of rows.
_LEAST_IDS, _KEPT = 1000, 1 << 16
_ROWS_PER_VALUE = 4
# Values outside what all but a thousandth span, so many times as wide, would decide how wide all others are bounded.
_FAR_OUT, _RARE = 20, 0.001
# Three times as far, and twice that, is within int64.
_WIDEST = (1 << 63) // 8


class Bound:
    """How far a column's numbers may come back: a share of its range, or so much in its own units."""

    def __init__(self, share: float | None, absolute: float | None):
        self._share, self._absolute = share, absolute

    def of(self, width: float) -> float:
        """In the column's own units, for values that span `width`."""
        return self._absolute if self._absolute is not None else (self._share or 0.0) * width


class Categories:
    """A column of texts or truth values."""

    def __init__(self) -> None:
        self._rows = 0
        self._counts: dict[Any, int] | None = {}

    def add(self, column: pa.Array) -> None:
        """Take a block."""
        self._rows += len(column)
        if self._counts is None:
            return
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for found in pc.value_counts(plain).to_pylist():
            self._counts[found["values"]] = self._counts.get(found["values"], 0) + found["counts"]
        if len(self._counts) > _KEPT:
            self._counts = None

    def state(self) -> Column:
        """What suits them."""
        if self._counts is None or len(self._counts) > MOST_SYMBOLS:
            return Unchanged(reason=f"more than {MOST_SYMBOLS} different texts")
        if len(self._counts) == 1:
            return Constant(value=next(iter(self._counts)))
        if len(self._counts) * _ROWS_PER_VALUE > max(self._rows, 4 * _ROWS_PER_VALUE):
            return Unchanged(reason="most texts are there once")
        ordered = sorted(self._counts, key=lambda value: (-self._counts[value], value is not None, str(value)))  # type: ignore[index]
        return Category(values=tuple(ordered))


class Numbers:
    """A column of numbers or times."""

    def __init__(self, kind: pa.DataType, bound: Bound):
        self._kind, self._bound = kind, bound
        self._rows = 0
        self._missing: dict[Missing, int] = {"null": 0, "nan": 0}
        self._least: Any = None
        self._most: Any = None
        self._gcd = 0
        self._decimals: int | None = 0
        self._kept: list[np.ndarray] = []
        self._every = 1
        self._too_wide = False

    def add(self, column: pa.Array) -> None:
        """Take a block."""
        try:
            values, there = numbers_of(column)
        except OverflowError:
            self._too_wide = True
            return
        self._rows += len(values)
        self._missing["null"] += int((~there).sum())
        values = values[there]
        if values.dtype.kind == "f":
            self._missing["nan"] += int(np.isnan(values).sum())
            values = values[np.isfinite(values)]
        if not len(values):
            return
        least, most = values.min().item(), values.max().item()
        first = self._least is None
        self._least, self._most = (least, most) if first else (min(least, self._least), max(most, self._most))
        self._keep(values)
        if values.dtype.kind == "f":
            self._look_for_decimals(values)
        else:
            # Python's whole numbers: a difference of two of 64 bits may take 65.
            apart = np.unique(values).astype(object) - int(self._kept[0][0])
            self._gcd = math.gcd(self._gcd, *apart.tolist())

    def _keep(self, values: np.ndarray) -> None:
        """Keep every so many-th value of each block, fewer the more there are."""
        self._kept.append(values[:: self._every])
        if sum(map(len, self._kept)) > 2 * _KEPT:
            self._kept, self._every = [kept[::2] for kept in self._kept], 2 * self._every

    def _without_outliers(self) -> None:
        """Let the range be that of nearly all values, where a few lie far outside it: those become exceptions."""
        found = np.sort(np.concatenate(self._kept))
        rare = int(_RARE * len(found)) + 1
        if len(found) <= 2 * rare:
            return
        low, high = found[rare].item(), found[-1 - rare].item()
        if 0 < _FAR_OUT * (high - low) < self._most - self._least:
            near = found[(found >= low - (high - low)) & (found <= high + (high - low))]
            self._least, self._most = near[0].item(), near[-1].item()

    def _look_for_decimals(self, values: np.ndarray) -> None:
        while self._decimals is not None:
            _, exact = decimals_of(np.unique(values), self._decimals)
            if exact.all():
                return
            self._decimals = self._decimals + 1 if self._decimals < _MOST_DECIMALS else None

    def state(self) -> Column:
        """What suits them."""
        if self._too_wide:
            return Unchanged(reason="whole numbers beyond int64")
        missing: tuple[Missing, ...] = tuple(name for name, count in self._missing.items() if count)
        if self._least is None:
            one = {(): None, ("null",): None, ("nan",): math.nan}.get(missing, 0)
            return Unchanged(reason="no numbers") if one == 0 else Constant(value=scalar_of(one))
        if self._least == self._most and not missing:
            return Constant(value=scalar_of(self._least))
        self._without_outliers()
        if self._are_ids():
            return Unchanged(reason="whole numbers that are all different")
        if pa.types.is_floating(self._kind):
            return self._floats(missing)
        return self._on_whole_numbers(missing, int(self._least), int(self._most), 0)

    def _are_ids(self) -> bool:
        found = np.concatenate(self._kept)
        is_plain = pa.types.is_integer(self._kind)
        return is_plain and len(found) >= _LEAST_IDS and len(np.unique(found)) == len(found)

    def _floats(self, missing: tuple[Missing, ...]) -> Column:
        if self._decimals is not None:
            ends, _ = decimals_of(np.array([self._least, self._most]), self._decimals)
            found = self._on_whole_numbers(missing, int(ends[0]), int(ends[1]), self._decimals)
            if isinstance(found, Number):
                return found
        bound = self._bound_of(self._most - self._least)
        if not bound > 0 or not math.isfinite(bound):
            return Unchanged(reason="floats that are on no grid of decimals, to be kept exactly")
        return self._on_steps(missing, bound, "floats")

    def _on_steps(self, missing: tuple[Missing, ...], bound: float, what: str) -> Column:
        """Values on a grid that is finer than the bound."""
        width = self._most - self._least
        for places in (_FINEST, 64, 16, 4):
            step = bound / places
            if max(width, step) / step <= LARGEST - 1:
                largest, cell = max(1, math.ceil(width / step)), 2 * (places - 1) + 1
                break
        else:
            step, cell = 2 * bound * (1 - 2**-20), 1
            largest = max(1, math.ceil(width / step))
            if largest > LARGEST:
                return Unchanged(reason=f"{what} whose bound is too narrow for a model")
        return Number(
            low=float(self._least),
            step=float(step),
            decimals=None,
            largest=largest,
            cell=cell,
            rounds=True,
            missing=missing,
            bound=float(bound),
        )

    def _on_whole_numbers(self, missing: tuple[Missing, ...], least: int, most: int, decimals: int) -> Column:
        """Values on the grid of whole numbers of this many decimals."""
        unit = 10.0**-decimals
        step = max(1, self._gcd) if decimals == 0 and not pa.types.is_floating(self._kind) else 1
        bound = self._bound_of((most - least) * unit)
        rounds = False
        if most - least > _WIDEST:
            return Unchanged(reason="whole numbers that are too far apart for a model")
        if (most - least) // step > LARGEST:
            coarse = int(bound / unit / _FINEST)
            if coarse <= step or (most - least) // coarse >= LARGEST:
                return Unchanged(reason="whole numbers that are too far apart for a model of so narrow a bound")
            step, rounds = coarse, True
        slack = bound / unit / step - (0.5 if rounds else 0.0)
        slack = math.floor(slack * (1 + 1e-12)) if not pa.types.is_floating(self._kind) else slack
        cell = math.floor(2 * slack * (1 + 1e-12)) + 1 if bound else 1
        largest = max(1, -(-(most - least) // step))
        return Number(
            low=least,
            step=step,
            decimals=decimals,
            largest=largest,
            cell=min(cell, LARGEST),
            rounds=rounds,
            missing=missing,
            bound=float(bound),
        )

    def _bound_of(self, width: float) -> float:
        if is_time(self._kind):
            return 0.0
        if pa.types.is_decimal(self._kind):
            scale = 10.0**self._kind.scale
            return self._bound.of(width / scale) * scale
        bound = self._bound.of(width)
        if pa.types.is_floating(self._kind) and self._kind.bit_width < 64 and bound:
            # Values are rounded to the column's own type in the end.
            size = max(abs(float(self._least)), abs(float(self._most)))
            bound -= size * float(np.finfo(self._kind.to_pandas_dtype()).eps) / 2
        return max(0.0, bound)


def seer_of(kind: pa.DataType, bound: Bound) -> Categories | Numbers:
    """What looks at the values of a column of this type."""
    return Categories() if is_category(kind) else Numbers(kind, bound)
