"""Whether an autoencoder pays: what else keeps such rows, in how many bits, and from how many rows on a codec is less.

The others are measured on the rows that were looked at, image codecs at the error that is expected of ours. What ours
takes is a guess (choice.py). `ae-pipeline bench` measures it all, after a training.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.experiments.benchmark.image_codecs import Grid, why_no_images
from ae_pipeline.experiments.benchmark.image_formats import FORMATS, ImageFormat, Setting, decode_image, encode_image
from ae_pipeline.experiments.benchmark.pca import codec_bytes as pca_bytes
from ae_pipeline.experiments.presets import TILES
from ae_pipeline.workspace.looking.choice import Expected
from ae_pipeline.workspace.looking.klt import Klt

_ZSTD_LEVEL, _ZSTD_BYTES = 19, 8 << 20
# Our bits beside PCA's where searches find as many neighbours: docs/kinds/vector.md.
_OF_PCA_AT_RECALL = 0.91
# AVIF of whole pictures beside our tiles, at equal error: docs/kinds/image.md.
_AVIF_OF_TILES = 1 / 3
_FORMATS = ("WebP", "AVIF")
_MOSAIC_PIXELS, _MOSAIC_SIDE = 1 << 18, 4096


@dataclass(frozen=True)
class Alternative:
    """Another way to keep the same rows."""

    name: str
    bits: float
    """A row."""
    codec_bytes: int = 0
    pays_from: int | None = None
    """Rows from which on our store and codec together are smaller; None: never."""


@dataclass(frozen=True)
class Worth:
    """What is expected of our codec, beside the others."""

    expected: Expected
    mean_mse: float
    """What answering each value's mean leaves."""
    alternatives: tuple[Alternative, ...]

    @property
    def break_even(self) -> int | None:
        """Rows from which on ours is the smallest of all; None: never."""
        found = [one.pays_from for one in self.alternatives]
        return None if None in found else max((rows for rows in found if rows is not None), default=None)


def measure_worth(
    expects: Expected,
    spec: SampleSpec,
    rows: np.ndarray,
    klt: Klt,
    rate_weight: float,
    file_bits: float | None,
    kind: str,
) -> Worth:
    """Measure the others on rows (n, *shape); `file_bits`: what the person's own files take for each row."""
    others = [] if kind == "audio" else [Alternative("zstd 19 (lossless)", _zstd_bits(rows))]
    if file_bits is not None:
        others.append(Alternative("the files as they are", file_bits))
    if (linear := klt.at_error(expects.mse, rate_weight)) is not None:
        bytes_of_pca = pca_bytes(linear.components, spec.size)
        others.append(Alternative("PCA at equal error", linear.bits, bytes_of_pca))
        if kind == "vector":
            others.append(Alternative("PCA at equal recall (a guess)", expects.bits / _OF_PCA_AT_RECALL, bytes_of_pca))
    if kind == TILES:
        others.append(Alternative("AVIF of whole pictures (a guess)", expects.bits * _AVIF_OF_TILES))
    elif why_no_images(spec) is None:
        for form in FORMATS:
            if form.name in _FORMATS and form.missing() is None:
                bits = _image_bits(form, rows, expects.mse)
                others += [] if bits is None else [Alternative(f"{form.name} at equal error", bits)]
    return Worth(expects, klt.mean_mse, tuple(_compared(other, expects) for other in others))


def _compared(other: Alternative, ours: Expected) -> Alternative:
    saved, more = other.bits - ours.bits, ours.codec_bytes - other.codec_bytes
    pays_from = None if saved <= 0 else max(1, math.ceil(8 * more / saved))
    return Alternative(other.name, other.bits, other.codec_bytes, pays_from)


def _zstd_bits(rows: np.ndarray) -> float:
    """All rows as one stream, as far as some megabytes go."""
    some = rows[: max(1, _ZSTD_BYTES // rows[0].nbytes)]
    packed = pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(np.ascontiguousarray(some).tobytes())
    return 8 * len(packed) / len(some)


def _image_bits(form: ImageFormat, rows: np.ndarray, mse: float) -> float | None:
    """Bits a row at this error, in a mosaic of some rows, read between two qualities; None: beyond the qualities."""
    grey = rows.shape[3:] != (3,)
    height, width = rows.shape[1:3]
    some = rows[:: -(-len(rows) // max(1, _MOSAIC_PIXELS // (height * width)))]
    grid = Grid.of(len(some), height, width, _MOSAIC_SIDE)
    some = some[: grid.images]
    picture = grid.join(some)
    settings = [setting for setting in form.settings("best", grey) if "4:4:4" not in setting.name]
    low, high = -1, len(settings)
    found: dict[int, tuple[float, float]] = {}
    while high - low > 1:
        middle = (low + high) // 2
        found[middle] = _of_mosaic(form, settings[middle], picture, len(some), grey=grey)
        low, high = (low, middle) if found[middle][1] <= mse else (middle, high)
    if high == len(settings):
        return None
    better = found[high]
    worse = found.get(low)
    if worse is None or not better[1] or worse[1] <= better[1]:
        return better[0]
    share = math.log(worse[1] / mse) / math.log(worse[1] / better[1])
    return float(worse[0] * (better[0] / worse[0]) ** share)


def _of_mosaic(
    form: ImageFormat, setting: Setting, picture: np.ndarray, rows: int, *, grey: bool
) -> tuple[float, float]:
    """Bits a row, and the mean squared error of values in [0, 1]."""
    data = encode_image(picture, form, setting)
    decoded = decode_image(data, form, grey=grey).reshape(picture.shape)
    return 8 * len(data) / rows, float(np.square((decoded.astype(np.float32) - picture) / 255).mean(dtype=np.float64))
