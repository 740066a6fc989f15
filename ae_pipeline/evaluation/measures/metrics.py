"""The table of metrics: how good what comes back is, on values scaled to [0, 1], and what it takes.

To add one: a line in METRICS, and the function that it names. It then is in metrics.json, MLflow and the flows' tables,
in the reports of promotion, `sweep` and `bench`, and may be limited by name: `max_<name>` or `min_<name>` in
evaluate.gate and in sweep (params.yaml). tests/house/test_contracts.py runs on every line, and
tests/evaluation/test_metric_table.py finds a new one in each of these places.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ae_pipeline.evaluation.measures.records.measure import RecordMetric
from ae_pipeline.evaluation.measures.records.pictures import PicturePsnr, PictureSsim
from ae_pipeline.evaluation.measures.records.similarity import similarities, window_of
from ae_pipeline.evaluation.measures.records.sound import LogMelDistance, SegmentalSnr, SoundSnr

if TYPE_CHECKING:
    pass

Metrics = dict[str, float | int | None]
RowMetric = Callable[..., np.ndarray]
Report = Literal["promotion", "sweep", "bench"]

# Half a step of an 8-bit pixel: a decoded 0 or 1 stands for everything that rounds to it, and its logarithm is finite.
_BCE_MARGIN = 0.5 / 255


def mse(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Mean squared error of each row."""
    # A float far outside the scaling has a square that float32 cannot hold.
    return _flat((decoded - original).astype(np.float64), np.square)


def mae(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Mean absolute error of each row."""
    return _flat(decoded - original, np.abs)


def bce(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each row in nats per value; decoded values are kept half an 8-bit step from 0 and 1.

    Originals outside [0, 1] (floats beyond the range of the train split) count as 0 or 1.
    """
    x, y = np.clip(original, 0, 1), np.clip(decoded, _BCE_MARGIN, 1 - _BCE_MARGIN)
    return -_flat(x * np.log(y) + (1 - x) * np.log1p(-y))


def ssim(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Structural similarity of each image, mean over pixels (and channels): 1 is perfect, NaN for rows that are none.

    The window is 11x11, or the largest odd one that fits; see similarity.py.
    """
    if original.ndim not in (3, 4) or min(original.shape[1:3]) < 3:
        return np.full(len(original), np.nan)
    size = window_of(*original.shape[1:3])
    per_image: np.ndarray = similarities(original, decoded, size).mean(dim=(1, 2, 3)).numpy()
    return per_image


def cosine(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Cosine similarity of each row with what came back of it: 1 is perfect, -1 its opposite.

    Between two rows of zeros it is 1; between zeros and anything else 0.
    """
    x, y = (values.reshape(len(values), -1).astype(np.float64) for values in (original, decoded))
    lengths = [np.linalg.norm(values, axis=1) for values in (x, y)]
    product = lengths[0] * lengths[1]
    similar = np.einsum("nv,nv->n", x, y) / np.where(product > 0, product, 1)
    return np.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, similar)


def psnr_of(mean_mse: float) -> float | None:
    """Peak signal-to-noise ratio in decibel for a data range of 1, of the mean MSE; None when nothing was lost."""
    return float(-10 * np.log10(mean_mse)) if mean_mse > 0 else None


@dataclass(frozen=True)
class Metric:
    """One line of the table. Without an `of_...` of its own it is measured beside: of the store, or of the mean."""

    name: str
    better: Literal["lower", "higher"]
    title: str
    """Its name and unit for people, as the head of a column."""
    digits: int
    """Behind the point, in a report."""
    of_rows: RowMetric | None = None
    """(original, decoded), float32 (n, *shape) each, to float64 (n,), whose mean over all rows is the metric. NaN: it
    does not apply to such rows, and the metric is None."""
    of_means: Callable[[Mapping[str, Any]], float | None] | None = None
    """The metric, from the means of those that have a value for each row."""
    of_records: RecordMetric | None = None
    """It measures a whole record of several rows; the mean over all records is the metric. See records/measure.py."""
    of_kind: str = ""
    """The kind whose records `of_records` is for."""
    of_differences: bool = False
    """Whether `of_rows` needs decoded - original alone: of floats that is taken before it is rounded to float32."""
    of_vectors: bool = False
    """Whether it counts for vectors alone, and is of their values as they are, not scaled."""
    none: str = ""
    """What a report says for None."""
    reports: tuple[Report, ...] = ("promotion", "sweep", "bench")
    """The reports that have it, beside metrics.json; those where another metric says the same are left out."""

    @property
    def limit(self) -> str:
        """The name of its limit in params.yaml."""
        return f"{'max' if self.better == 'lower' else 'min'}_{self.name}"

    def loss(self, value: float) -> float:
        """The value, or its negative: lower is better."""
        return value if self.better == "lower" else -value

    def words(self, value: float | None) -> str:
        """A value for people, in a column."""
        return self.none if value is None else f"{value:.{self.digits}f}"

    @property
    def short(self) -> str:
        """The title without the unit."""
        return self.title.partition(", ")[0]

    @property
    def asks(self) -> str:
        """What a limit asks for."""
        return "at most" if self.better == "lower" else "at least"


def _psnr(found: Mapping[str, Any]) -> float | None:
    return None if found["mse"] is None else psnr_of(found["mse"])


_of_sound = partial(Metric, of_kind="audio", reports=("promotion", "bench"))
_of_pictures = partial(Metric, of_kind="image", reports=("bench",))

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("mse", "lower", "MSE", 5, of_rows=mse, of_differences=True),
        Metric("psnr", "higher", "PSNR, dB", 2, of_means=_psnr, none="lossless", reports=("sweep", "bench")),
        Metric("mae", "lower", "MAE", 5, of_rows=mae, of_differences=True, reports=()),
        Metric("bce", "lower", "BCE, nats", 5, of_rows=bce, reports=()),
        Metric("ssim", "higher", "SSIM", 4, of_rows=ssim, reports=("bench",)),
        Metric("cosine", "higher", "cosine", 4, of_rows=cosine, of_vectors=True, reports=("bench",)),
        # Measured beside: of all vectors together (neighbours.py), of the store (through_store.py), and of what knows
        # nothing (mean_answer.py).
        Metric("recall_at_10", "higher", "recall at 10", 4, of_vectors=True, reports=("bench",)),
        Metric("r2", "higher", "R2", 4, reports=()),
        Metric("snr", "higher", "SNR, dB", 2, none="lossless", reports=("bench",)),
        # Whole clips of sound have these.
        _of_sound("clip_snr", "higher", "SNR of a clip, dB", 2, of_records=SoundSnr, none="lossless", reports=()),
        _of_sound("segmental_snr", "higher", "segmental SNR, dB", 2, of_records=SegmentalSnr),
        _of_sound("log_mel_distance", "lower", "log-mel distance, dB", 2, of_records=LogMelDistance),
        # Whole pictures that are cut into tiles have these.
        _of_pictures("picture_psnr", "higher", "PSNR of a picture, dB", 2, of_records=PicturePsnr, none="lossless"),
        _of_pictures("picture_ssim", "higher", "SSIM of a picture", 4, of_records=PictureSsim),
        Metric("bits_per_row", "lower", "bits per row", 1, reports=()),
        Metric("bits_per_row_with_codec", "lower", "with codec", 1, reports=()),
    )
}


def of_rows() -> dict[str, RowMetric]:
    """The metrics that have a value for each row."""
    return {name: metric.of_rows for name, metric in METRICS.items() if metric.of_rows is not None}


def reported(report: Report) -> list[Metric]:
    """The metrics that a report has, in the order of the table."""
    return [metric for metric in METRICS.values() if report in metric.reports]


def _flat(values: np.ndarray, of: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    mean: np.ndarray = of(values).reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return mean
