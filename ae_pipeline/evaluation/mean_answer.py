"""How much a codec knows: its error beside that of the answer that knows nothing, each value's mean.

    answer = MeanAnswer(train_means)     # or None: of the rows measured alone
    answer.add(original, decoded)        # block by block; memory for a few numbers per value of a row
    answer.as_metrics(scale)             # mean_mse, r2, snr, and in how many values the mean is better

An error in units of a range says little where values use a small part of it: one outlier, a table whose columns have
other scales, a quiet recording. The variance is what there is to know, so it is the unit here:

- `r2` = 1 - MSE / variance, the coefficient of determination (Wright, "Correlation and causation", J. Agric. Res. 20,
  1921; over all values together, as scikit-learn's `r2_score` with `multioutput="variance_weighted"`, but errors in
  values without variance count, too). 1 is perfect, 0 is what the mean reaches. Without any variance it is 1 for what
  came back whole and 0 for anything else, as there.
- `snr` = 10 log10(variance / MSE), in decibel: the signal-to-noise ratio of quantisation (Jayant and Noll, "Digital
  Coding of Waveforms", 1984, chapter 4; Gray and Neuhoff, "Quantization", IEEE Trans. Inf. Theory 44, 1998).

A value's variance is about its mean in the train split, or about its mean in the rows measured (sample variance, n - 1)
where that is smaller: one outlier among train rows moves their mean far away from all others, and everything would be
better than that.
"""

from typing import Any

import numpy as np

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.value_range import ValueRange

# Values in float64 at once (8 MiB).
_BLOCK_VALUES = 1 << 20
# Squared distances below this share of the values' own squares are float32's rounding.
_ROUNDING = (4 * float(np.finfo(np.float32).eps)) ** 2
# Warned of: values decoded worse than by their mean, as a share of those that vary.
_MANY = 0.25
# A variance below this, for values in [0, 1], is warned of: PSNR is then 20 dB above SNR, or more.
_SMALL_VARIANCE = 0.01


class MeanAnswer:
    """Sums for each value of a row; rows are added and not kept. All distances are in the samples' own units."""

    def __init__(self, train_means: np.ndarray | None = None):
        self._train_means = train_means
        self._rows = 0
        self._means = self._squares = self._errors = self._power = np.zeros(0)
        self._first: tuple[np.ndarray, np.ndarray] | None = None
        self._varies = self._decoded_varies = np.zeros(0, bool)

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Rows (n, *shape) and what came back of them."""
        x, y = original.reshape(len(original), -1), decoded.reshape(len(decoded), -1)
        rows = max(1, _BLOCK_VALUES // x.shape[1])
        for start in range(0, len(x), rows):
            self._add(x[start : start + rows], y[start : start + rows])

    def _add(self, x: np.ndarray, y: np.ndarray) -> None:
        if self._first is None:
            self._first = x[0].copy(), y[0].copy()
            self._means, self._squares, self._errors, self._power = np.zeros((4, x.shape[1]))
            self._varies, self._decoded_varies = np.zeros((2, x.shape[1]), bool)
        self._varies |= (x != self._first[0]).any(axis=0)
        self._decoded_varies |= (y != self._first[1]).any(axis=0)
        values = x.astype(np.float64)
        self._power += _squares(values)
        self._errors += _squares(y - values)
        # Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
        means = values.mean(axis=0)
        apart = means - self._means
        total = self._rows + len(x)
        self._squares += _squares(values - means) + np.square(apart) * (self._rows * len(x) / total)
        self._means += apart * (len(x) / total)
        self._rows = total

    def as_metrics(self, scale: float) -> dict[str, float | int | None]:
        """Metrics of docs/metrics.md; `mean_mse` in units of `scale` squared. None: a single row, or no numbers."""
        varying = int(self._varies.sum())
        dead = int((self._varies & ~self._decoded_varies).sum())
        counts: dict[str, float | int | None] = {
            "mean_of_train": int(self._train_means is not None),
            "values_with_variance": varying,
            "values_decoded_constant": dead,
        }
        spread = self._spread()
        if spread is None or not np.isfinite(self._errors).all():
            return {"mean_mse": None, "r2": None, "snr": None, **counts, "values_worse_than_mean": None}
        lost, known, power = (float(sums.sum()) for sums in (self._errors, spread, self._power))
        if known > _ROUNDING * power:
            r2 = 1 - lost / known
            snr = float(10 * (np.log10(known) - np.log10(lost))) if lost > 0 else None
        else:
            r2, snr = float(lost <= _ROUNDING * power), None
        return {
            "mean_mse": known / (self._rows * len(spread)) / scale / scale,
            "r2": r2,
            "snr": snr,
            **counts,
            "values_worse_than_mean": int((self._varies & (self._errors > spread)).sum()),
        }

    def by_value(self, scale: float) -> np.ndarray | None:
        """For each value of a row, in units of `scale`: root of its mean squared error, and its standard deviation.

        (2, values) float64; None where `as_metrics` has no numbers.
        """
        spread = self._spread()
        if spread is None or not np.isfinite(self._errors).all():
            return None
        roots: np.ndarray = np.sqrt(np.stack([self._errors, spread]) / self._rows) / scale
        return roots

    def _spread(self) -> np.ndarray | None:
        """For each value, the sum over rows of squared distances from the mean that is nearer."""
        own = self._squares * (self._rows / (self._rows - 1)) if self._rows > 1 else None
        if self._train_means is None:
            return own
        train = self._squares + self._rows * np.square(self._means - self._train_means)
        return train if own is None else np.minimum(own, train)


def fit_means(samples: SampleSet) -> np.ndarray:
    """Mean of each value over all rows, (values,) in float64 and the samples' own units."""
    sums = np.zeros(samples.spec.size)
    for block in samples.all_blocks(2048):
        sums += block.pixels.reshape(len(block), -1).sum(axis=0, dtype=np.float64)
    return sums / samples.rows


def not_better_than_mean(metrics: dict[str, Any]) -> str | None:
    """Why a codec with these metrics knows nothing of the rows; None if it does, or where that was not measured."""
    reasons = []
    varying, dead = metrics.get("values_with_variance"), metrics.get("values_decoded_constant")
    if varying and dead == varying:
        reasons.append(f"every decoded row is the same, though {varying:,.0f} values of the rows vary")
    r2 = metrics.get("r2")
    if r2 is not None and r2 <= 0 and not varying:
        reasons.append(f"the rows do not vary and do not come back as they are (mse {metrics['mse']:.6g})")
    elif r2 is not None and r2 <= 0:
        reasons.append(
            f"mse is {metrics['mse']:.6g}, not better than the {metrics['mean_mse']:.6g} of answering each value's "
            f"mean (r2 {r2:.3g})"
        )
    return "; ".join(reasons) or None


def warnings_of(metrics: dict[str, Any], scaling: Any, what: str) -> list[str]:
    """What someone who reads only `mse` and `psnr` would miss of metrics of the data `what`.

    `scaling` is the codec's, with offset and scale. Metrics of before there was this have no warnings.
    """
    found = []
    if "value_min" in metrics:
        ends = [metrics[name] for name in ("value_min", "value_max", "value_low", "value_high")]
        found += ValueRange(*ends).warnings(what, scaling.offset, scaling.scale)
    if (reason := not_better_than_mean(metrics)) is not None:
        found.append(reason)
    if (metrics.get("pca_r2") or 1) <= 0:
        found.append(f"PCA is not better than answering each value's mean, either (pca_r2 {metrics['pca_r2']:.3g})")
    varying = metrics.get("values_with_variance") or 0
    for name, lost in (
        ("values_worse_than_mean", "come back worse than if each were answered by its mean"),
        ("values_decoded_constant", "come back the same in every row"),
    ):
        count = metrics.get(name) or 0
        if count > _MANY * varying:
            found.append(f"{count:,.0f} of the {varying:,.0f} values of a row that vary {lost} ({name})")
    if metrics.get("snr") is not None and metrics["mean_mse"] < _SMALL_VARIANCE and metrics.get("psnr") is not None:
        found.append(
            f"psnr is {metrics['psnr']:.1f} dB, but snr {metrics['snr']:.1f} dB: the values vary little within the "
            "range they are scaled by, so judge by snr and r2"
        )
    return found


def _squares(values: np.ndarray) -> np.ndarray:
    """Sum over rows, (n, values) to (values,)."""
    sums: np.ndarray = np.einsum("nv,nv->v", values, values)
    return sums
