"""Where the values of a data set lie, and which of them decide the scaling.

    found = samples.measure_range()
    found.describe()                       # 0 to 0.73, 99.8% of the values within 0.001 to 0.71
    found.warnings("data/train", *scaled_by(samples.spec.dtype, found))  # where most values use little of the scaling

Errors are measured in units of the scaling: for integers the range of their type, for floats from the least to the
greatest value of the train split. Where nearly all values lie in a small share of that, errors look small that are
not. The whole data set decides the ends; the percentiles are those of evenly spaced rows. Memory is constant.
"""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from math import ceil

import numpy as np

# This share of the values is left out of the robust range, below and again above.
_TAIL = 0.001
# Values that percentiles are taken over, in rows with equal steps between them.
_SAMPLED_VALUES = 1 << 20
# Below this share of the scaling, errors look at least 20 dB smaller than they are among the usual values.
_SMALL_SHARE = 0.1


@dataclass(frozen=True)
class ValueRange:
    """In the samples' own units: the least and the greatest value, and the percentiles 0.1 and 99.9."""

    minimum: float
    maximum: float
    low: float
    high: float

    def as_metrics(self) -> dict[str, float]:
        """The four values under their names in docs/metrics.md."""
        names = ("value_min", "value_max", "value_low", "value_high")
        return dict(zip(names, astuple(self), strict=True))

    def describe(self) -> str:
        """The range in words, for messages."""
        return (
            f"values from {self.minimum:g} to {self.maximum:g}, {1 - 2 * _TAIL:.1%} of them within {self.low:g} to "
            f"{self.high:g}"
        )

    def warnings(self, what: str, offset: float, scale: float) -> list[str]:
        """What is wrong with measuring errors of this data, named `what`, in units of `scale`; mostly nothing."""
        share = (self.high - self.low) / scale
        if share >= _SMALL_SHARE or self.minimum == self.maximum:
            return []
        return [
            f"{what} has {self.describe()}. That is {100 * share:.2g}% of the range by which values are scaled, "
            f"{offset:g} to {offset + scale:g}, so every error looks small, and psnr high. Judge by r2 and snr; "
            "if the ends are outliers, remove or repair these rows"
        ]

    def far_outside(self, what: str, train: "ValueRange") -> list[str]:
        """A warning where the ends lie further from the train split's range than that is wide; mostly nothing."""
        width = train.maximum - train.minimum
        if train.minimum - width <= self.minimum and self.maximum <= train.maximum + width:
            return []
        return [
            f"{what} has {self.describe()}, but the train split, by which values are scaled, only "
            f"{train.minimum:g} to {train.maximum:g}: a few such rows decide every mean error of this split. If they "
            "are outliers, remove or repair them"
        ]


@dataclass
class RangeWatch:
    """Counts rows with values outside the range that a codec scales by, while they are read."""

    offset: float
    scale: float
    rows: int = 0
    outside: int = 0
    least: float = np.inf
    greatest: float = -np.inf

    def add(self, pixels: np.ndarray) -> None:
        """Count the rows of a block, (n, *shape). Integers cannot be outside."""
        if pixels.dtype.kind != "f" or not pixels.size:
            return
        flat = pixels.reshape(len(pixels), -1)
        seen = RangeWatch(self.offset, self.scale, len(flat), 0, float(flat.min()), float(flat.max()))
        margin = 1e-9 * self.scale  # offset and scale are rounded
        low, high = self.offset - margin, self.offset + self.scale + margin
        if seen.least < low or seen.greatest > high:
            seen.outside = int(((flat.min(axis=1) < low) | (flat.max(axis=1) > high)).sum())
        self.join(seen)

    def join(self, other: "RangeWatch") -> None:
        """Count what another one has seen, of rows that were read elsewhere at the same time."""
        self.rows += other.rows
        self.outside += other.outside
        self.least, self.greatest = min(self.least, other.least), max(self.greatest, other.greatest)

    def warnings(self, what: str) -> list[str]:
        """A sentence if there were any such rows."""
        if not self.outside:
            return []
        return [
            f"{what}: {self.outside:,} of {self.rows:,} rows have values outside {self.offset:g} to "
            f"{self.offset + self.scale:g}, the range of the codec's train split (found: {self.least:g} to "
            f"{self.greatest:g}). The codec was not trained for these, and may cut them off; the column `error` tells "
            "how far they are off"
        ]


def scaled_by(dtype: str, found: ValueRange | None = None) -> tuple[float, float]:
    """Offset and scale of a codec trained on such samples: an integer type's range, or that of the floats `found`."""
    if np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        return float(limits.min), float(limits.max - limits.min)
    assert found is not None
    return found.minimum, found.maximum - found.minimum if found.maximum > found.minimum else 1.0


def range_of(blocks: Iterable[np.ndarray], values: int) -> ValueRange:
    """Range of blocks of pixels (n, *shape), together so many values."""
    least, greatest = np.inf, -np.inf
    kept: list[np.ndarray] = []
    for pixels in keep_some(blocks, ceil(values / _SAMPLED_VALUES), kept):
        least, greatest = min(least, float(pixels.min())), max(greatest, float(pixels.max()))
    rows = np.concatenate(kept)
    # A row that alone has more values than are sampled gives some of them.
    sampled = rows.reshape(len(rows), -1)[:, :: ceil(rows[0].size / _SAMPLED_VALUES)].astype(np.float64)
    low, high = np.quantile(sampled, [_TAIL, 1 - _TAIL])
    return ValueRange(least, greatest, float(low), float(high))


def keep_some(blocks: Iterable[np.ndarray], every: int, kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass blocks of rows on; every so manyth of all rows is copied into `kept`."""
    first = 0
    for rows in blocks:
        kept.append(rows[-first % every :: every].copy())
        first += len(rows)
        yield rows
