"""In which order fields are coded, and how each: estimated from the products of all columns, before any training.

A field costs what is left of it after linear regression on those before it, their squares and cubes, as they come back.
Categories, of which there are few bits to be had so, come first, in the order of the row; numbers are ordered so that
the estimated bits of all are as few as possible: those that others imply come after these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ae_pipeline.codec.tables.networks import FARTHEST, MOST_ONE_HOT, inputs_of
from ae_pipeline.codec.tables.options import MOST_SPAN, ColumnOptions
from ae_pipeline.data.table_columns.fields import FieldOptions
from ae_pipeline.training.context.tables.codebook import fit_codebook

MOST_ROWS = 20_000
"""Rows that the plan is made from, evenly spaced."""
_MOST_CELLS = 96
_LEAST_USUAL = 0.8
_POWERS = 3
_RIDGE = 1e-6
# The search looks at every place for every number, which takes the square of their count.
_MOST_SEARCHED, _ROUNDS = 24, 4
# Below this share of a cell, a prediction saves more than a codebook: most rows take nothing.
_SURE = 0.35
# A codebook takes at least this share of what a prediction takes, however its numbers stand together.
_CLUSTERED = 0.6
_SPAN_SIGMAS, _MOST_SIGMA = 4.0, 3.0


@dataclass(frozen=True)
class Way:
    """A way of coding a field."""

    column: ColumnOptions
    """Its hidden layers are not chosen yet."""
    ends: np.ndarray | None = None
    """int64 (cells, 2): the codebook, if it is one."""


@dataclass(frozen=True)
class Planned:
    """How a field can be coded."""

    ways: tuple[Way, ...]
    """A category has one; a number is coded around a prediction, or by a codebook, if there can be one."""
    bits: float
    """Estimated, of a row, of the better one."""


def plan(places: np.ndarray, fields: Sequence[FieldOptions]) -> list[Planned]:
    """The plan for k, int64 (rows, fields), in coding order."""
    some = places[:: -(-len(places) // MOST_ROWS)]
    left = _Left(some[_usual(some, fields)], fields)
    first = [number for number, field in enumerate(fields) if field.is_category]
    order = _ordered(left, first, [number for number, field in enumerate(fields) if not field.is_category])
    planned = []
    for place, number in enumerate(order):
        if fields[number].is_category:
            planned.append(Planned((Way(ColumnOptions(field=number)),), left.category_bits(number)))
        else:
            planned.append(left.number(number, tuple(order[:place])))
    return planned


class _Left:
    """What is left of each field after regression on others."""

    def __init__(self, places: np.ndarray, fields: Sequence[FieldOptions]):
        self._places, self._fields = places, fields
        inputs, self._of = [np.ones((len(places), 1))], []
        for number, field in enumerate(fields):
            start = sum(block.shape[1] for block in inputs)
            inputs.append(_inputs(places[:, number], field))
            self._of.append(range(start, start + inputs[-1].shape[1]))
        there = [_there(places, field) for field in fields]
        self._means = np.array([places[t, n].mean() if t.any() else 0.0 for n, t in enumerate(there)])
        self._spreads = np.array([places[t, n].std() if t.any() else 0.0 for n, t in enumerate(there)])
        aims = np.stack([np.where(t, places[:, n] - self._means[n], 0) for n, t in enumerate(there)], 1)
        aims /= np.array([field.cell for field in fields])
        everything = np.concatenate(inputs, 1)
        self._gram = everything.T @ everything / len(places)
        self._with = everything.T @ aims / len(places)
        self._squares = np.square(aims).mean(axis=0)
        self._shares = np.array([max(t.mean(), 1 / len(places)) for t in there])
        self._codebooks: dict[int, tuple[list[tuple[int, int]], float] | None] = {}
        self._there = there
        self.bits = lru_cache(maxsize=None)(self._bits)

    def category_bits(self, number: int) -> float:
        """Entropy of a category."""
        return _entropy(np.unique(self._places[:, number], return_counts=True)[1])

    def deviation(self, number: int, before: tuple[int, ...]) -> float:
        """Standard deviation, in cells, of what is left of a number where it is there."""
        used = [0, *(place for other in before for place in self._of[other])]
        gram = self._gram[np.ix_(used, used)]
        ridge = _RIDGE * np.diag(np.diag(gram) + 1e-12)
        wanted = self._with[used, number]
        explained = float(wanted @ np.linalg.solve(gram + ridge, wanted))
        return math.sqrt(max(0.0, float(self._squares[number]) - explained) / float(self._shares[number]))

    def _bits(self, number: int, before: frozenset[int]) -> float:
        """Estimated bits of a number, the better of both ways."""
        sigma = self.deviation(number, tuple(sorted(before)))
        found = _rounded_normal(sigma)
        if (codebook := self._codebook(number)) is not None:
            found = min(found, self._codebook_bits(number, codebook[1], sigma))
        return found * float(self._shares[number])

    def _codebook_bits(self, number: int, entropy: float, sigma: float) -> float:
        spread = max(self._spreads[number] / self._fields[number].cell, 1e-9)
        if sigma < _SURE:
            return math.inf
        return max(_CLUSTERED * _rounded_normal(sigma), entropy - math.log2(max(1.0, spread / sigma)))

    def number(self, number: int, before: tuple[int, ...]) -> Planned:
        """How a number is coded after these."""
        sigma = self.deviation(number, before)
        scale = {
            "mean": int(np.rint(2 * self._means[number])),
            "spread": max(1, int(np.rint(2 * self._spreads[number]))),
        }
        low_bits = max(0, math.ceil(math.log2(max(sigma, 1e-9) / _MOST_SIGMA)))
        span = min(MOST_SPAN, max(1, math.ceil(_SPAN_SIGMAS * sigma / (1 << low_bits))))
        ways = [Way(ColumnOptions(field=number, span=span, low_bits=low_bits, linear=bool(before), **scale))]
        if (codebook := self._codebook(number)) is not None:
            ends = np.array(codebook[0], np.int64)
            ways.append(Way(ColumnOptions(field=number, cells=len(ends), **scale), ends))
        return Planned(tuple(ways), self.bits(number, frozenset(before)))

    def _codebook(self, number: int) -> tuple[list[tuple[int, int]], float] | None:
        if number not in self._codebooks:
            field, values = self._fields[number], self._places[self._there[number], number]
            cells = fit_codebook(values, field.cell, _MOST_CELLS) if len(values) else None
            self._codebooks[number] = None
            if cells:
                counts = np.bincount(np.searchsorted([last for _, last in cells], values))
                self._codebooks[number] = cells, _entropy(counts)
        return self._codebooks[number]


def _usual(places: np.ndarray, fields: Sequence[FieldOptions]) -> np.ndarray:
    """(rows,) Which rows have no number far from the others of its column; all, where that leaves too few."""
    usual = np.ones(len(places), bool)
    for number, field in enumerate(fields):
        there = _there(places, field)
        if not field.is_category and there.any():
            values = places[:, number]
            usual &= ~there | (np.abs(values - values[there].mean()) <= FARTHEST * max(values[there].std(), 1e-9))
    return usual if usual.mean() > _LEAST_USUAL else np.ones(len(places), bool)


def _there(places: np.ndarray, field: FieldOptions) -> np.ndarray:
    """(rows,) Where a field has a value."""
    return np.ones(len(places), bool) if field.present is None else places[:, field.present] == 0


def _inputs(places: np.ndarray, field: FieldOptions) -> np.ndarray:
    """A field as regression sees it: (rows, inputs)."""
    if field.is_category:
        return (places[:, np.newaxis] == np.arange(min(inputs_of(field), MOST_ONE_HOT) - 1)).astype(np.float64)
    rounded = places // field.cell * field.cell
    away = np.clip((rounded - rounded.mean()) / max(float(rounded.std()), 1e-9), -FARTHEST, FARTHEST)
    return np.stack([away**power for power in range(1, _POWERS + 1)], 1)


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _rounded_normal(sigma: float) -> float:
    """Entropy of a normal distribution of this deviation, rounded to whole numbers around its mean."""
    if sigma < 0.05:
        return 0.0
    if sigma > 2:
        return math.log2(sigma * math.sqrt(2 * math.pi * math.e))
    ends = [0.5 * (1 + math.erf((place + 0.5) / (sigma * math.sqrt(2)))) for place in range(-12, 13)]
    shares = np.diff(ends)
    return _entropy(shares)


def _ordered(left: _Left, first: list[int], numbers: list[int]) -> list[int]:
    """Fields in coding order: `first`, then the numbers."""
    remaining, last = list(numbers), []
    if len(numbers) > _MOST_SEARCHED:
        return [*first, *sorted(numbers, key=lambda number: -left.bits(number, frozenset(first)))]
    while remaining:  # from the end: what all others imply
        others = {number: frozenset([*first, *remaining]) - {number} for number in remaining}
        chosen = min(remaining, key=lambda number: left.bits(number, others[number]))
        remaining.remove(chosen)
        last.append(chosen)
    best = last[::-1]
    for _ in range(_ROUNDS):
        before = best
        for number in numbers:
            rest = [other for other in best if other != number]
            tried = [[*rest[:place], number, *rest[place:]] for place in range(len(best))]
            best = min([best, *tried], key=lambda order: _total(left, first, order))
        if best == before:
            break
    return [*first, *best]


def _total(left: _Left, first: list[int], order: list[int]) -> float:
    return sum(left.bits(number, frozenset([*first, *order[:place]])) for place, number in enumerate(order))
