"""One line of the benchmark's table, and how far decoded rows are from the originals."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import first_rows
from ae_pipeline.evaluation.mean_answer import MeanAnswer
from ae_pipeline.evaluation.metrics import Metrics, psnr_of, reported
from ae_pipeline.evaluation.neighbours import Neighbours
from ae_pipeline.evaluation.row_errors import joined, means_of, measure_rows
from ae_pipeline.experiments.benchmark.whole_pictures import (
    WholePictures,
    rows_of_whole_pictures,
    tile_of,
    whole_pictures,
)

OURS = "autoencoder"
"""The family of our own points."""
_ROWS = 2048
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Quality:
    """What two ways of keeping rows are held to be equal in, as an error: 0 where nothing is lost."""

    metric: str
    """The metric that a point must have."""
    error: Callable[[float], float]
    """It makes the metric's value an error."""
    words: Callable[[float], str]
    """An error, for people."""
    perfect: str
    """What is said of an error of 0."""

    def of(self, points: list["Point"]) -> list["Point"]:
        """The points that have the metric, to be judged by it."""
        return [replace(point, quality=self) for point in points if point.metrics.get(self.metric) is not None]


def _mse_words(error: float) -> str:
    decibel = psnr_of(error)
    return f"MSE {error:.5f}" + ("" if decibel is None else f" ({decibel:.1f} dB)")


MSE = Quality("mse", lambda value: value, _mse_words, "loses nothing")
RECALL = Quality(
    "recall_at_10", lambda value: 1 - value, lambda error: f"recall at 10 of {1 - error:.3f}", "finds every neighbour"
)
"""Vectors have it; see evaluation/neighbours.py."""


@dataclass(frozen=True)
class Point:
    """One way to keep the rows: what it takes, and what comes back."""

    name: str
    """Unique in the table."""
    family: str
    """What makes one curve, e.g. `WebP mosaic`."""
    setting: str
    bits_per_row: float
    """Bits of the rows' own bytes."""
    bits_per_row_with_codec: float
    """Bits of the rows and of what all rows of the benchmark share, such as the codec."""
    metrics: Metrics
    """The metrics of the table that this report has."""
    encode_rows_per_s: float
    decode_rows_per_s: float
    codec_bytes: int = 0
    measured_rows: int = 0
    """Rows that sizes and errors are means over."""
    store_bits_per_row: float | None = None
    """Bits of a store's Parquet files as a whole: latents, ids, attributes, errors and footers."""
    quality: Quality = MSE
    """What it is judged by."""

    @property
    def error(self) -> float:
        """How far it is from perfect, by its quality."""
        value = self.metrics[self.quality.metric]
        assert value is not None
        return self.quality.error(float(value))

    @property
    def decibel(self) -> float | None:
        """The error in decibel, the PSNR of an MSE; None if there is none."""
        return psnr_of(self.error)

    @property
    def mse(self) -> float:
        """Mean squared error of values in [0, 1]."""
        return float(self.metrics["mse"] or 0.0)

    @property
    def psnr(self) -> float | None:
        """The MSE in decibel; None if nothing was lost."""
        return self.metrics["psnr"]

    def as_dict(self) -> dict[str, Any]:
        """JSON values, each metric under its own name."""
        found: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name != "quality":
                found |= value if name == "metrics" else {name: value}
        return found

    def bits_at(self, rows: float) -> float:
        """Bits per row when so many rows share the codec; infinitely many leave the rows' own."""
        return self.bits_per_row + 8 * self.codec_bytes / rows


Tell = Callable[[Point], None]


@dataclass(frozen=True)
class Rows:
    """The rows that everything is measured on, in memory and on disk."""

    samples: SampleSet
    pixels: np.ndarray
    """(n, *shape), the samples' dtype."""
    scaling: Scaling
    """The map from pixels to [0, 1], for every error."""
    pictures: WholePictures | None = None
    """What the rows are tiles of, if they are."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def are_vectors(self) -> bool:
        """Whether neighbours count."""
        return self.pixels.ndim == 2

    def mean_mse(self) -> float:
        """MSE of answering each value by its mean over these rows: who is not better knows nothing of them."""
        answer = MeanAnswer()
        answer.add(self.pixels, self.pixels)
        return answer.as_metrics(self.scaling.scale)["mean_mse"] or 0.0

    def metrics(self, decoded: np.ndarray, chosen: slice | np.ndarray = slice(None)) -> Metrics:
        """Metrics of decoded rows, (n, *shape); of the `chosen` ones if these are not all."""
        original = self.pixels[chosen]
        blocks = [slice(start, start + _ROWS) for start in range(0, len(original), _ROWS)]
        found = means_of(joined([measure_rows(original[block], decoded[block], self.scaling) for block in blocks]))
        if self.are_vectors:
            neighbours = Neighbours()
            neighbours.add(original, decoded)
            found["recall_at_10"] = neighbours.recall()
        return {metric.name: found[metric.name] for metric in reported("bench") if metric.name in found}

    def point(
        self,
        name: str,
        family: str,
        setting: str,
        bits: float,
        decoded: np.ndarray,
        seconds: tuple[float, float],
        codec_bytes: int = 0,
        chosen: slice | np.ndarray = slice(None),
    ) -> Point:
        """What keeping rows in `bits` per row gave back as `decoded`, (n, *shape); these, or the `chosen` ones.

        `seconds` are those of encoding and of decoding.
        """
        return Point(
            name=name,
            family=family,
            setting=setting,
            bits_per_row=bits,
            bits_per_row_with_codec=bits + 8 * codec_bytes / len(self),
            metrics=self.metrics(decoded, chosen),
            encode_rows_per_s=len(decoded) / seconds[0],
            decode_rows_per_s=len(decoded) / seconds[1],
            codec_bytes=codec_bytes,
            measured_rows=len(decoded),
        )


def take_rows(samples: SampleSet, rows: int, scaling: Scaling, folder: Path) -> Rows:
    """The first `rows` rows of a data set, in memory; fewer than all of them are written to `folder`.

    Of tiles, those of whole pictures.
    """
    tile = tile_of(samples)
    taken = first_rows(samples, rows if tile is None else rows_of_whole_pictures(samples, rows), folder)
    loaded = taken.load()
    pictures = None if tile is None else whole_pictures(loaded.pixels, loaded.attributes, tile)
    return Rows(taken, loaded.pixels, scaling, pictures)


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """What `work` returns, and how many seconds of wall time it took."""
    start = time.perf_counter()
    result = work()
    return result, max(time.perf_counter() - start, 1e-9)
