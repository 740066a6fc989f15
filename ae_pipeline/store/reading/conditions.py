"""Conditions on columns, each in two forms: an Arrow expression for rows, and what a row group's statistics allow.

    seven = compare("label", pa.uint8(), "=", 7)
    table.filter(seven.expression)
    seven.outcomes({"label": Range(0, 3, nulls=False)})     # {False}: no row of this group can satisfy it

As in SQL a condition on null is null, and neither it nor its opposite gives the row. NaN is unequal to everything and
neither smaller nor greater than anything. (Arrow's own use of statistics forgets NaN, and gives up where there are
nulls.)
"""

import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, localcontext
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.parquet.columns import flat_columns

Number = int | float | Decimal
Outcomes = frozenset[bool | None]
ANY: Outcomes = frozenset({True, False, None})


@dataclass(frozen=True)
class Range:
    """The values of a column in one row group: `low` and `high` over all that are neither null nor NaN."""

    low: Any
    high: Any
    nulls: bool
    nan: bool = False


Ranges = Mapping[str, Range]
"""Ranges by column; a column without one can hold anything."""


@dataclass(frozen=True)
class Condition:
    """`expression` decides for a row; `outcomes` says what it can be (true, false, null) for rows of such ranges."""

    expression: pc.Expression
    outcomes: Callable[[Ranges], Outcomes] = lambda ranges: ANY

    def __and__(self, other: "Condition") -> "Condition":
        return Condition(self.expression & other.expression, _both(self, other, _and))

    def __or__(self, other: "Condition") -> "Condition":
        return Condition(self.expression | other.expression, _both(self, other, _or))

    def __invert__(self) -> "Condition":
        return Condition(~self.expression, lambda ranges: frozenset(_not(found) for found in self.outcomes(ranges)))


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(name: str, kind: pa.DataType, sign: str, value: Any) -> Condition:
    """A column with a constant (bool, int, float, Decimal or str).

    Numbers compare as numbers: no integer is 6.5 or beyond its type, and no decimal of one digit is 0.15. A column of
    32-bit floats is compared with the constant as a 32-bit float, so that `error = 0.1` finds what was written as 0.1.
    Raises ValueError if the constant cannot be one of the column's type.
    """
    if _is_exact(kind) and _is_number(value):
        return _compare_exactly(name, kind, sign, value)
    constant = _constant(value, kind)
    test = COMPARISONS[sign]
    return Condition(test(pc.field(name), constant), lambda ranges: _of_range(ranges.get(name), sign, constant.as_py()))


def among(name: str, kind: pa.DataType, values: Collection[Any]) -> Condition:
    """A column with a set of constants, as SQL's IN. Raises ValueError as `compare`."""
    if _is_exact(kind) and all(_is_number(value) for value in values):
        held = (_floored(value, kind) for value in values)
        values = [floor for floor, equal in held if equal]  # no other can be in such a column
    scalars = [_constant(value, kind) for value in values]
    if pa.types.is_floating(kind) and any(scalar.as_py() == 0 for scalar in scalars):
        scalars += [pa.scalar(0.0, kind), pa.scalar(-0.0, kind)]  # equal, but a set tells them apart
    constants = [scalar.as_py() for scalar in scalars]
    # Arrow says false for null; null it must be, or NOT IN would give the rows that have none.
    unknown = pc.field(name).is_null() & pa.scalar(None, pa.bool_())
    found = pc.field(name).isin(pa.array(scalars, kind))

    def outcomes(ranges: Ranges) -> Outcomes:
        known = ranges.get(name)
        if known is None or not all(_is_comparable(value) for value in constants):
            return ANY
        inside = [value for value in constants if known.low <= value <= known.high]
        possible: set[bool | None] = {None} if known.nulls else set()
        possible |= {True} if inside else set()
        possible |= set() if inside and known.low == known.high and not known.nan else {False}
        return frozenset(possible)

    return Condition(found | unknown, outcomes)


def is_null(name: str) -> Condition:
    """Rows that have no value in a column."""

    def outcomes(ranges: Ranges) -> Outcomes:
        known = ranges.get(name)
        return frozenset({True, False} if known is None or known.nulls else {False})

    return Condition(pc.field(name).is_null(), outcomes)


def ranges_of(metadata: Any, group: int, names: Collection[str]) -> Ranges:
    """The ranges of these columns in a row group of a Parquet file, by its statistics."""
    found = {}
    row_group = metadata.row_group(group)
    for name, place in flat_columns(metadata).items():
        statistics = row_group.column(place).statistics if name in names else None
        if statistics is None or not statistics.has_min_max:
            continue
        try:
            if not _is_comparable(statistics.min):
                continue
        except (OverflowError, ValueError):  # a date of a year that Python does not have
            continue
        nulls = not statistics.has_null_count or statistics.null_count > 0
        nan = isinstance(statistics.min, float)  # statistics pass over NaN: there may be some
        if not nan or not (math.isnan(statistics.min) or math.isnan(statistics.max)):
            found[name] = Range(statistics.min, statistics.max, nulls, nan)
    return found


def _compare_exactly(name: str, kind: pa.DataType, sign: str, value: Number) -> Condition:
    """A number with integers or decimals, which Arrow would round without a word to what the column can hold.

    It becomes a comparison with a value that the column can hold, or one that is always the same.
    """
    floor, equal = _floored(value, kind)
    if floor is None:
        beyond = () if not _is_finite(value) and math.isnan(value) else ("<", "<=") if value > 0 else (">", ">=")
        return _constantly(name, sign in ("<>", *beyond))
    if not equal:
        if sign in ("=", "<>"):
            return _constantly(name, sign == "<>")
        # Nothing lies between a value of the column and the number above it.
        sign = "<=" if sign in ("<", "<=") else ">"
    test = COMPARISONS[sign]
    return Condition(
        test(pc.field(name), pa.scalar(floor, kind)), lambda ranges: _of_range(ranges.get(name), sign, floor)
    )


def as_decimal(value: Number) -> Decimal:
    """A number as it is written: 0.1 is a tenth."""
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _floored(value: Number, kind: pa.DataType) -> tuple[int | Decimal | None, bool]:
    """The greatest integer or decimal of the column's that is not above a number, and whether it equals the number.

    None for NaN, and for a number that is beyond all that the column can hold.
    """
    if not _is_finite(value):
        return None, False
    if pa.types.is_integer(kind):
        limits, whole = np.iinfo(kind.to_pandas_dtype()), math.floor(value)
        return (whole, whole == value) if limits.min <= whole <= limits.max else (None, False)
    exact = as_decimal(value)
    if exact and exact.adjusted() + 1 + kind.scale > kind.precision:
        return None, False
    with localcontext(prec=kind.precision + 1):
        floor = exact.quantize(Decimal(1).scaleb(-kind.scale), rounding=ROUND_FLOOR)
    fits = not floor or floor.adjusted() + 1 + kind.scale <= kind.precision
    return (floor, floor == exact) if fits else (None, False)


def _constantly(name: str, result: bool) -> Condition:
    """Null where the column is null, otherwise always the same."""
    expression = pc.field(name) == pc.field(name)
    certain: Outcomes = frozenset({result})

    def outcomes(ranges: Ranges) -> Outcomes:
        known = ranges.get(name)
        return certain | {None} if known is None or known.nulls else certain

    return Condition(expression if result else ~expression, outcomes)


def _of_range(known: Range | None, sign: str, value: Any) -> Outcomes:
    """What comparing the values of a range with a constant can give."""
    if known is None or not _is_comparable(value):
        return ANY
    low, high = known.low, known.high
    can_be = {
        "=": low <= value <= high,
        "<>": not low == value == high,
        "<": low < value,
        "<=": low <= value,
        ">": high > value,
        ">=": high >= value,
    }
    found: set[bool | None] = {None} if known.nulls else set()
    found |= {True} if can_be[sign] or (known.nan and sign == "<>") else set()
    found |= {False} if can_be[_OPPOSITE[sign]] or (known.nan and sign != "<>") else set()
    return frozenset(found)


_OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _constant(value: Any, kind: pa.DataType) -> pa.Scalar:
    """A constant as a value of the column's type. Raises ValueError."""
    fits = {
        bool: pa.types.is_boolean(kind),
        int: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        float: pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        Decimal: pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        str: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_temporal(kind),
    }
    if not fits[type(value)]:
        raise ValueError(f"{value!r} with a column of type {kind}")
    try:
        if pa.types.is_float32(kind):
            with np.errstate(over="ignore"):
                return pa.scalar(float(np.float32(value)), kind)
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            return pa.scalar(float(value) if pa.types.is_floating(kind) else value, kind)
        return pa.scalar(value, kind) if isinstance(value, Decimal) else pa.scalar(value).cast(kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        raise ValueError(f"{value!r} with a column of type {kind}") from None


def _is_exact(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def _is_finite(value: Number) -> bool:
    """Neither NaN nor infinite, as no integer is, however large."""
    return isinstance(value, int) or math.isfinite(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_comparable(value: Any) -> bool:
    """Whether Python orders such values as Parquet's statistics do (strings: by code point)."""
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _both(first: Condition, second: Condition, join: Callable[..., bool | None]) -> Callable[[Ranges], Outcomes]:
    return lambda ranges: frozenset(join(*pair) for pair in product(first.outcomes(ranges), second.outcomes(ranges)))


def _and(first: bool | None, second: bool | None) -> bool | None:
    if False in (first, second):
        return False
    return None if None in (first, second) else True


def _or(first: bool | None, second: bool | None) -> bool | None:
    return _not(_and(_not(first), _not(second)))


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value
