"""One line of the benchmark's table, and how far decoded rows are from the originals."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.blocks import Block
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import first_rows
from ae_pipeline.evaluation.mean_answer import MeanAnswer
from ae_pipeline.evaluation.measures.metrics import Metrics, psnr_of, reported
from ae_pipeline.evaluation.measures.records.errors import measure_blocks, record_bounds, several_kind, whole_records
from ae_pipeline.evaluation.measures.row_errors import joined, means_of, measure_rows
from ae_pipeline.evaluation.neighbours import Neighbours
from ae_pipeline.experiments.benchmark.whole_pictures import WholePictures, tile_of, whole_pictures
from ae_pipeline.kinds.audio import AudioKind
from ae_pipeline.kinds.base import Kind
from ae_pipeline.kinds.sound.clips import RATE, SAMPLES
from ae_pipeline.kinds.state import KindState
from ae_pipeline.store.reading.own_form import RECORD

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
LOG_MEL = Quality(
    "log_mel_distance", lambda value: value, lambda error: f"a log-mel distance of {error:.2f} dB", "loses nothing"
)
"""Clips of sound have it: how alike they are to hear; see evaluation/measures/records/sound.py."""
RECALL = Quality(
    "recall_at_10", lambda value: 1 - value, lambda error: f"recall at 10 of {1 - error:.3f}", "finds every neighbour"
)
"""Vectors have it; see evaluation/neighbours.py."""


def snr_quality(mean_mse: float) -> Quality:
    """The MSE of sound as its SNR: rows are the same for all, so that equal ones are equal."""

    def words(error: float) -> str:
        return f"an SNR of {snr_of(error, mean_mse):.1f} dB" if error else "no error"

    return Quality("mse", lambda value: value, words, "loses nothing")


def snr_of(mse: float, mean_mse: float) -> float | None:
    """SNR in dB of an MSE where answering each value's mean has `mean_mse`; None if nothing was lost."""
    lost, known = psnr_of(mse), psnr_of(mean_mse)
    return None if lost is None or known is None else lost - known


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
    rows_per_second: float | None = None
    """How many rows a second of sound has, so that its bits per row are kbit/s, too."""
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
    attributes: pa.Table = field(default_factory=lambda: pa.table({}))
    """Columns beside the pixels, (n,)."""
    pictures: WholePictures | None = None
    """What the rows are tiles of, if they are."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def are_vectors(self) -> bool:
        """Whether neighbours count."""
        return self.pixels.ndim == 2 and self.several is None

    @cached_property
    def several(self) -> tuple[Kind, KindState] | None:
        """The kind and its state, where a record has several rows: all of them are here."""
        return several_kind(self.samples.kind) if RECORD in self.attributes.column_names else None

    @property
    def are_sound(self) -> bool:
        """Whether they are the frames of clips."""
        return self.several is not None and isinstance(self.several[0], AudioKind)

    @cached_property
    def rows_per_second(self) -> float | None:
        """How many rows a second of sound has, of all channels; None where they are no sound."""
        if not self.are_sound:
            return None
        lines = self.attributes.take(pa.array([start for start, _ in record_bounds(self.attributes)]))
        lengths, rates = (lines.column(name).to_numpy() for name in (SAMPLES, RATE))
        return len(self) / max(float((lengths / rates).sum()), 1e-9)

    @cached_property
    def mean_mse(self) -> float:
        """MSE of answering each value by its mean over these rows: who is not better knows nothing of them."""
        answer = MeanAnswer()
        answer.add(self.pixels, self.pixels)
        return answer.as_metrics(self.scaling.scale)["mean_mse"] or 0.0

    def metrics(self, decoded: np.ndarray, chosen: slice | np.ndarray = slice(None)) -> Metrics:
        """Metrics of decoded rows, (n, *shape); of the `chosen` ones if these are not all."""
        original = self.pixels[chosen]
        measure = partial(measure_rows, vectors=self.are_vectors)
        blocks = [slice(start, start + _ROWS) for start in range(0, len(original), _ROWS)]
        found = means_of(joined([measure(original[block], decoded[block], self.scaling) for block in blocks]))
        if self.are_vectors:
            neighbours = Neighbours()
            neighbours.add(original, decoded)
            found["recall_at_10"] = neighbours.recall()
        if self.several is not None and len(decoded) == len(self):
            found |= self._of_records(decoded)
        if self.are_sound:
            found["snr"] = snr_of(found["mse"] or 0.0, self.mean_mse)
        return {metric.name: found[metric.name] for metric in reported("bench") if metric.name in found}

    def _of_records(self, decoded: np.ndarray) -> Metrics:
        assert self.several is not None
        assert self.samples.kind is not None
        pairs = ((Block(self.attributes, self.pixels), Block(self.attributes, decoded)),)
        return measure_blocks(pairs, self.scaling, self.samples.kind.name, *self.several).means()

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
            rows_per_second=self.rows_per_second,
        )


def take_rows(samples: SampleSet, rows: int, scaling: Scaling, folder: Path) -> Rows:
    """The first `rows` rows of a data set, in memory; fewer than all of them are written to `folder`.

    Records of several rows are taken whole; the first one is, however many rows it has.
    """
    several = several_kind(samples.kind) is not None and RECORD in samples.attributes_schema.names
    taken = first_rows(samples, whole_records(samples, rows) if several else rows, folder)
    loaded = taken.load()
    tile = tile_of(samples)
    pictures = None if tile is None else whole_pictures(loaded.pixels, loaded.attributes, tile)
    return Rows(taken, loaded.pixels, scaling, loaded.attributes, pictures)


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """What `work` returns, and how many seconds of wall time it took."""
    start = time.perf_counter()
    result = work()
    return result, max(time.perf_counter() - start, 1e-9)
