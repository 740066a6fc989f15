"""One line of the benchmark's table, and how far decoded rows are from the originals."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import first_rows
from ae_pipeline.evaluation.mean_answer import MeanAnswer
from ae_pipeline.evaluation.metrics import psnr_of, ssim
from ae_pipeline.evaluation.row_errors import row_mse, scale

OURS = "autoencoder"
"""The family of our own points."""
_ROWS = 2048
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Distortion:
    """Means over rows of values in [0, 1]; `psnr` of the mean MSE, None if nothing was lost, `ssim` of images only."""

    mse: float
    psnr: float | None
    ssim: float | None


@dataclass(frozen=True)
class Point:
    """One way to keep the rows: what it takes, and what comes back."""

    name: str
    """Unique in the table."""
    family: str
    """What makes one curve, e.g. `WebP mosaic`."""
    setting: str
    bits_per_row: float
    """Of the rows' own bytes."""
    bits_per_row_with_codec: float
    """And of what has to be kept beside them, once, shared by the rows of the benchmark."""
    mse: float
    psnr: float | None
    ssim: float | None
    encode_rows_per_s: float
    decode_rows_per_s: float
    codec_bytes: int = 0
    measured_rows: int = 0
    """Rows that sizes and errors are means over."""
    store_bits_per_row: float | None = None
    """Of a store's Parquet files as a whole: latents, ids, attributes, errors and footers."""

    def bits_at(self, rows: float) -> float:
        """Bits per row when so many rows share the codec; infinitely many leave the rows' own."""
        return self.bits_per_row + 8 * self.codec_bytes / rows


@dataclass(frozen=True)
class Rows:
    """The rows that everything is measured on, in memory and on disk."""

    samples: SampleSet
    pixels: np.ndarray
    """(n, *shape), the samples' dtype."""
    scaling: Scaling
    """From pixels to [0, 1], for every error."""

    def __len__(self) -> int:
        return len(self.pixels)

    def mean_mse(self) -> float:
        """MSE of answering each value by its mean over these rows: who is not better knows nothing of them."""
        answer = MeanAnswer()
        answer.add(self.pixels, self.pixels)
        return answer.as_metrics(self.scaling.scale)["mean_mse"] or 0.0

    def distortion(self, decoded: np.ndarray, chosen: slice | np.ndarray = slice(None)) -> Distortion:
        """Of decoded rows, (n, *shape); of the `chosen` ones if these are not all."""
        return distortion(self.pixels[chosen], decoded, self.scaling)


def take_rows(samples: SampleSet, rows: int, scaling: Scaling, folder: Path) -> Rows:
    """The first `rows` rows of a data set, in memory; fewer than all of them are written to `folder`."""
    samples = first_rows(samples, rows, folder)
    return Rows(samples, samples.load().pixels, scaling)


def distortion(original: np.ndarray, decoded: np.ndarray, scaling: Scaling) -> Distortion:
    """Rows (n, *shape) against what came back of them, with the metrics that `evaluate` reports."""
    errors, similarities = [], []
    for start in range(0, len(original), _ROWS):
        block = slice(start, start + _ROWS)
        pair = {"original": scale(original[block], scaling), "decoded": scale(decoded[block], scaling)}
        errors.append(row_mse(original[block], decoded[block], scaling))
        similarities.append(ssim(**pair))
    error, similarity = float(np.concatenate(errors).mean()), np.concatenate(similarities)
    return Distortion(error, psnr_of(error), None if np.isnan(similarity).any() else float(similarity.mean()))


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """What `work` returns, and how many seconds of wall time it took."""
    start = time.perf_counter()
    result = work()
    return result, max(time.perf_counter() - start, 1e-9)
