"""Quality and size through a real store: evaluation, promotion, sweep and benchmark measure what a user gets."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.metrics import Metrics
from ae_pipeline.evaluation.row_errors import RowMetrics, compare_rows
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.encoding import encode_samples


@dataclass(frozen=True)
class Trip:
    """Rows encoded into a store and decoded again, from Parquet to Parquet, and the seconds of either way."""

    store: LatentStore
    decoded: SampleSet
    encode_seconds: float
    decode_seconds: float


def make_trip(codec: Path, samples: SampleSet, params: EncodeParams, work: Path) -> Trip:
    """Encode `samples` into a store below `work`, and decode that, with the commands' own functions."""
    start = time.perf_counter()
    store = encode_samples(samples, codec, work / "store", params, name="test", git={})
    encoded = time.perf_counter()
    decoded = decode_store(store, work / "decoded", device=params.device)
    return Trip(store, decoded, encoded - start, time.perf_counter() - encoded)


@dataclass(frozen=True)
class Measured:
    """A trip, and every metric of what came back."""

    store: LatentStore
    decoded: SampleSet
    rows: RowMetrics

    def metrics(self) -> Metrics:
        """What the store takes, the error, and the error beside that of answering each value's mean."""
        return {**store_sizes(self.store), **self.rows.means(), **self.rows.beside_mean}


def through_store(
    codec: Path,
    samples: SampleSet,
    params: EncodeParams,
    work: Path,
    scaling: Scaling | None = None,
    train_means: np.ndarray | None = None,
) -> Measured:
    """Make the trip, and compare row by row.

    Errors are in units of `scaling` (default: the codec's own, which for floats is the range of its train split).
    """
    trip = make_trip(codec, samples, params, work)
    units = scaling or trip.store.codec_header().scaling
    return Measured(trip.store, trip.decoded, compare_rows(samples, trip.decoded, units, train_means))


def store_sizes(store: LatentStore) -> Metrics:
    """What a store takes on disk, in bytes and in bits per row, with and without the codec in it."""
    totals = store.manifest.totals
    return {
        "rows": totals.rows,
        "bytes_in": totals.bytes_in,
        "bytes_out": store.nbytes,
        "codec_bytes": store.manifest.codec.bytes,
        "ratio": totals.bytes_in / store.nbytes,
        "raw_bits_per_row": 8 * totals.bytes_in / totals.rows,
        "bits_per_row": 8 * totals.bytes_parts / totals.rows,
        "bits_per_row_with_codec": 8 * store.nbytes / totals.rows,
        "latent_bits_per_row": 8 * store.latent_bytes() / totals.rows,
    }
