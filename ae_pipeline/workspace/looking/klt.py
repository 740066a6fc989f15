"""What a linear codec makes of some rows: PCA (the KLT) with one step for all components. It tells what to expect.

A codec that is trained with `train.rate_weight` makes MSE + rate_weight * bits small. At its optimum one bit less in a
component costs rate_weight of the mean squared error: a component of variance v takes log2(v / theta) / 2 bits and
leaves theta, for theta = rate_weight * values / (2 ln 2) (reverse water-filling: Cover and Thomas, "Elements of
Information Theory", 10.3.3), and a uniform quantiser of step sqrt(12 theta) leaves about that.
"""

import math
from dataclasses import dataclass

import numpy as np

# Rows that components are fitted on, and values of all rows together (float32).
_FIT_ROWS, _MOST_VALUES = 6000, 1 << 25
_LEAST_ROWS = 8
# Values that are looked at one by one.
_ALONE = 1024


@dataclass(frozen=True)
class LinearCodec:
    """At one rate weight: what PCA takes, and leaves, of rows that it was not fitted on."""

    bits: float
    """Bits a row: the entropy of each component's integers."""
    mse: float
    """Mean squared error of values in [0, 1]."""
    components: int
    """How many have more variance than the error that is left of each: the ones that take bits."""


class Klt:
    """PCA of some rows (n, *shape), scaled by `offset` and `scale`: half are fitted, at most, and the others measured.

    Raises ValueError for fewer than eight rows.
    """

    def __init__(self, rows: np.ndarray, offset: float, scale: float):
        if len(rows) < _LEAST_ROWS:
            raise ValueError(f"{len(rows)} rows")
        rows = rows[:: -(-len(rows) * math.prod(rows.shape[1:]) // _MOST_VALUES)]
        x = ((rows.reshape(len(rows), -1).astype(np.float32) - np.float32(offset)) / np.float32(scale)).astype(
            np.float32
        )
        self.values = x.shape[1]
        every = 4 if len(x) >= 4 * _LEAST_ROWS else 2
        measured = np.arange(len(x)) % every == 0
        fitted, self._held_out = x[~measured][:_FIT_ROWS], x[measured]
        self._held_out = self._held_out - fitted.mean(axis=0)
        self._variances, components = _principal(fitted - fitted.mean(axis=0))
        self._latents = self._held_out @ components
        outside = np.square(self._held_out, dtype=np.float64).sum() - np.square(self._latents, dtype=np.float64).sum()
        self._outside = max(0.0, float(outside) / len(self._held_out))

    @property
    def mean_mse(self) -> float:
        """What answering each value's mean leaves."""
        return float(np.square(self._held_out, dtype=np.float64).mean())

    def without_rate(self, components: int) -> float:
        """MSE of so many components that are not quantised, as the gate's `beat_pca` asks for."""
        left = np.square(self._latents[:, components:], dtype=np.float64).sum() / len(self._latents)
        return (self._outside + float(left)) / self.values

    def at(self, rate_weight: float) -> LinearCodec:
        """What it takes at this weight of the rate."""
        theta = rate_weight * self.values / (2 * math.log(2))
        step = math.sqrt(12 * theta)
        integers = np.rint(self._latents / step)
        error = np.square(self._latents - integers * step, dtype=np.float64).sum() / len(self._latents) + self._outside
        bits = sum(_entropy(column) for column in integers.T if column.any())
        return LinearCodec(bits, error / self.values, int((self._variances > theta).sum()))

    def alone_at(self, rate_weight: float) -> float:
        """Bits a row where each value is quantised by itself, with the same step; PCA saves what they share."""
        step = math.sqrt(12 * rate_weight * self.values / (2 * math.log(2)))
        some = self._held_out[:, :: -(-self.values // _ALONE)]
        return sum(_entropy(column) for column in np.rint(some / step).T) * self.values / some.shape[1]

    def at_error(self, mse: float, rate_weight: float) -> LinearCodec | None:
        """What it takes at this error, read between weights around `rate_weight`; None: it does not get there."""
        before: LinearCodec | None = None
        for halvings in range(-3, 9):
            found = self.at(rate_weight * 2.0**-halvings)
            if found.mse <= mse:
                if before is None or before.mse <= found.mse or not before.bits:
                    return found
                share = math.log(before.mse / mse) / math.log(before.mse / max(found.mse, 1e-300))
                return LinearCodec(before.bits * (found.bits / before.bits) ** share, mse, found.components)
            before = found
        return None


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances (k,), the largest first, and components (values, k) of centred rows (n, values)."""
    rows, values = x.shape
    if values <= rows:
        variances, vectors = np.linalg.eigh((x.T @ x / rows).astype(np.float64))
        return variances[::-1], np.ascontiguousarray(vectors[:, ::-1]).astype(np.float32)
    squares, left = np.linalg.eigh((x @ x.T).astype(np.float64))
    there = squares > squares[-1] * 1e-9
    squares, left = squares[there][::-1], left[:, there][:, ::-1]
    vectors = x.T @ (left / np.sqrt(np.maximum(squares, 1e-300))).astype(np.float32)
    return squares / rows, vectors


def _entropy(integers: np.ndarray) -> float:
    """Bits of each, by how often the values are there."""
    _, counts = np.unique(integers, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
