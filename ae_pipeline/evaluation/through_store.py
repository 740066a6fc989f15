"""Quality and size through a real store: evaluation, promotion, sweep and benchmark measure what a user gets."""

import time
from dataclasses import dataclass
from pathlib import Path

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.compare import RowMetrics
from ae_pipeline.evaluation.measures.metrics import Metrics
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


def store_metrics(store: LatentStore, rows: RowMetrics) -> Metrics:
    """What a store takes, the error of its rows, and the error beside that of answering each value's mean."""
    return {**store_sizes(store), **rows.means(), **rows.beside_mean}


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
