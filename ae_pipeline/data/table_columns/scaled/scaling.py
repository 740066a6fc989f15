"""The scaling of a column of numbers: its usual range becomes 0 to 1, what lies outside stays in sight.

    found = usual_range(values, least, greatest)    # where nine of ten values lie
    y = scaled(values, found)                       # (n,) float64, mostly 0 to 1
    unscaled(y, found, values.dtype)                # (n,) in the column's own type

With w = high - low, a value v between the ends becomes (v - low) / w. One that lies e * w below or above them becomes
-g(g(e)) or 1 + g(g(e)), where g(e) = e up to 1, and grows by 1 with each further doubling of 1 + e:

    g(e) = k + m - 1    for 1 + e = m * 2 ** k with 1 <= m < 2

So whatever lies within one width of the range is scaled as the range is, and an outlier of 10,000 widths becomes 4.8
and not 10,001: it does not decide the scale of all others. g has an inverse, and takes additions and powers of two
only: every machine makes the same bits of the same values.

Values of a column that never changes become 0; another value there becomes 1 + g(g(e)) or -1 - g(g(e)), with w the
constant's own size (1 for 0). All that is decoded between -1 and 1 is the constant, exactly.
"""

import math
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from ae_pipeline.data.json_types import JsonModel

# This share of a column's values lies below its range, and again above.
_TAIL = 0.05
_WORD = 1 << 64
# More doublings than floats have.
_FARTHEST = 2000.0
_Whole = Annotated[int, Field(strict=True, ge=-(1 << 63), lt=_WORD)]
_Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Range(JsonModel):
    """The two ends, in the column's own units: integers for integers. Equal: the column never changes."""

    low: _Whole | _Float
    high: _Whole | _Float

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if type(self.low) is not type(self.high):
            raise ValueError("low and high must both be integers, or both floats")
        if not 0 <= self.high - self.low < math.inf:
            raise ValueError("high must be at least low, and not further from it than floats reach")
        return self

    @property
    def width(self) -> float:
        """What 1 on the common scale stands for."""
        return float(self.high - self.low) or abs(float(self.low)) or 1.0

    @property
    def is_constant(self) -> bool:
        """Whether all values were one."""
        return self.low == self.high

    def is_of(self, dtype: np.dtype) -> bool:
        """Whether the ends are values of a column of this type."""
        if dtype.kind == "f":
            return isinstance(self.low, float)
        least, most = _limits(dtype)
        return isinstance(self.low, int) and least <= self.low <= self.high <= most


def usual_range(values: np.ndarray, least: float, greatest: float) -> Range:
    """Where nine of ten of these finite values (n,) lie; `least` and `greatest` are the ends of all there are.

    A column that mostly has one value gets the range of the others, and that value. Raises ValueError where the range
    is wider than floats reach.
    """
    if least == greatest:
        return Range(low=least, high=least)
    rising = np.sort(values)
    low, high = _ends(rising)
    if low == high:
        others = rising[rising != low]
        first, last = _ends(others) if len(others) else (least, greatest)
        low, high = min(low, first), max(high, last)
    return Range(low=low, high=high)


def _ends(rising: np.ndarray) -> tuple[float, float]:
    """The values at both ends, but for the tails: one value of each at least, as far as there are others."""
    cut = min(math.ceil(_TAIL * len(rising)), (len(rising) - 1) // 2)
    return rising[cut].item(), rising[len(rising) - 1 - cut].item()


def scaled(values: np.ndarray, found: Range) -> np.ndarray:
    """Values (n,) of integers or floats on the common scale, float64; infinite where they are too far away for it."""
    with np.errstate(over="ignore"):
        above_low = _apart(values, found.low) / found.width
        above_high = _apart(values, found.high) / found.width
    if found.is_constant:
        return np.sign(above_low) * np.where(above_low == 0, 0, 1 + _shrunk(np.abs(above_low)))
    outside = np.where(above_low < 0, -_shrunk(-above_low), 1 + _shrunk(above_high))
    return np.where((above_low < 0) | (above_high > 0), outside, above_low)


def unscaled(y: np.ndarray, found: Range, dtype: np.dtype) -> np.ndarray:
    """The way back from `scaled`, (n,) of `dtype`: to the nearest integer, and to the nearest end of the type."""
    y = y.astype(np.float64)
    bottom = -1.0 if found.is_constant else 0.0
    is_above, is_below = y > 1, y < bottom
    excess = np.where(is_above, _grown(y - 1), -_grown(bottom - y))
    inside = np.zeros_like(y) if found.is_constant else y
    with np.errstate(over="ignore"):
        by = found.width * np.where(is_above | is_below, excess, inside)
    return np.where(is_above, _moved(found.high, by, dtype), _moved(found.low, by, dtype))


def _shrunk(excess: np.ndarray) -> np.ndarray:
    """g(g(e)) of the module, for e >= 0; what is below is taken for 0."""
    return _octaves(_octaves(np.maximum(excess, 0)))


def _grown(y: np.ndarray) -> np.ndarray:
    """The inverse of `_shrunk`, for y >= 0; what is below is taken for 0. Infinite beyond the reach of floats."""
    return _of_octaves(_of_octaves(np.maximum(y, 0)))


def _octaves(excess: np.ndarray) -> np.ndarray:
    halves, doublings = np.frexp(1 + excess)
    far = np.where(np.isinf(excess), np.inf, doublings + 2 * halves - 2)
    return np.where(excess <= 1, excess, far)


def _of_octaves(y: np.ndarray) -> np.ndarray:
    y = np.minimum(y, _FARTHEST)
    doublings = np.floor(y)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(y <= 1, y, np.ldexp(1 + y - doublings, doublings.astype(np.int32)) - 1)


def _apart(values: np.ndarray, end: float) -> np.ndarray:
    """How far values are above an end, float64; of integers the difference is exact before it becomes a float."""
    if values.dtype.kind == "f":
        return values.astype(np.float64) - end
    words, other = _words(values), np.uint64(int(end) % _WORD)
    with np.errstate(over="ignore"):  # modulo 2 ** 64, where the difference has the right sign already
        return np.where(values >= end, (words - other).astype(np.float64), -(other - words).astype(np.float64))


def _moved(end: float, by: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An end, moved, in the type of a column; of integers nothing is rounded but `by`."""
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        with np.errstate(over="ignore"):
            return np.clip(end + by, -limit, limit).astype(dtype)
    least, most = _limits(dtype)
    steps, start = np.rint(np.abs(by)), np.uint64(int(end) % _WORD)
    fits = steps < np.where(by < 0, float(int(end) - least), float(most - int(end)))
    whole = np.where(fits, steps, 0).astype(np.uint64)
    wide = np.uint64 if dtype.kind == "u" else np.int64
    with np.errstate(over="ignore"):
        words = np.where(by < 0, start - whole, start + whole).view(wide)
    ends = np.where(by < 0, np.array(least, wide), np.array(most, wide))
    return np.where(fits, words, ends).astype(dtype)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    """The least and the greatest value of a type of integers; truth values are 0 and 1."""
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def _words(values: np.ndarray) -> np.ndarray:
    """Integers modulo 2 ** 64."""
    return values.astype(np.uint64) if values.dtype.kind in "bu" else values.astype(np.int64).view(np.uint64)
