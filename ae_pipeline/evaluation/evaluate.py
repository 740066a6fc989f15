"""Measure a codec on held-out rows: through the quantiser, through real bytes, next to honest alternatives."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import Scaling, read_header
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import ID, SampleSet
from ae_pipeline.evaluation.baselines import build_pca_codec, zstd_bytes
from ae_pipeline.evaluation.compare import RowMetrics, compare_rows
from ae_pipeline.evaluation.mean_answer import fit_means
from ae_pipeline.evaluation.measures.metrics import Metrics
from ae_pipeline.evaluation.measures.records.pictured import PicturedRecord, picture_records
from ae_pipeline.evaluation.measures.row_errors import pairs, row_mse, scale
from ae_pipeline.evaluation.through_store import make_trip, store_metrics, store_sizes
from ae_pipeline.kinds import open_kind
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store

PICTURED_ROWS = 8
# The metric by which the best and the worst clip are chosen.
_BY_EAR = "log_mel_distance"


@dataclass(frozen=True)
class Pictured:
    """Some rows for the pictures: values in [0, 1], (n, *shape) each."""

    title: str
    ids: list[Any]
    original: np.ndarray
    decoded: np.ndarray
    mse: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured. `metrics` are explained in docs/metrics.md."""

    metrics: Metrics
    rows: RowMetrics
    pca_rows: RowMetrics | None
    pictured: list[Pictured]
    sounds: list[PicturedRecord] = field(default_factory=list)
    """Clips for the pictures, where the rows are their frames."""
    value_names: tuple[str, ...] = ()
    """The columns that a row's values are of, where columns were taken together."""

    def per_class(self) -> list[dict[str, Any]]:
        """Mean metrics of each value of the attribute `label`, if there is one; PCA's MSE beside them.

        Rows without a label are in no class.
        """
        if "label" not in self.rows.attributes.column_names:
            return []
        labels = self.rows.attributes.column("label")
        if pa.types.is_nested(labels.type) or labels.null_count == len(labels):
            return []
        known = sorted(pc.unique(labels.drop_null()).to_pylist())
        return [self.means_of(label, pc.equal(labels, label).fill_null(False).to_numpy()) for label in known]

    def means_of(self, label: Any, chosen: np.ndarray | slice) -> dict[str, Any]:
        """One such line for the chosen rows."""
        means = {"label": label, "rows": len(self.rows.values["mse"][chosen])}
        means |= {name: float(values[chosen].mean()) for name, values in self.rows.values.items()}
        if self.pca_rows is not None:
            means["pca_mse"] = float(self.pca_rows.values["mse"][chosen].mean())
        return means


def evaluate_codec(
    codec_path: Path, test: SampleSet, params: EncodeParams, *, train: SampleSet | None = None, seed: int = 0
) -> Evaluation:
    """Encode `test` into a temporary store, decode it, and measure what came back and what it took.

    With `train`, PCA of the same latent size is fitted on it and sent through the same quantiser and layout, and the
    means that errors are held against are those of its rows (mean_answer.py). A codec that promises a bound for every
    value is not held against PCA.
    `seed` chooses the random rows that are pictured.
    """
    header = read_header(codec_path)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        means = None if train is None else fit_means(train)
        trip = make_trip(codec_path, test, params, work / "codec")
        rows = compare_rows(test, trip.decoded, header.scaling, means, kind=header.kind)
        pictured = _pictured(test, trip.decoded, rows, header.scaling, seed)
        sounds = []
        if rows.records is not None and _BY_EAR in rows.records.table.column_names:
            sounds = picture_records(test, trip.decoded, header.kind, rows.records, _BY_EAR, seed)
        metrics = {**store_sizes(trip.store), "zstd_bits_per_row": 8 * zstd_bytes(test) / test.rows, **rows.means()}
        metrics |= {
            "unquantised_mse": _unquantised_mse(codec_path, test),
            "break_even_rows": _break_even_rows(metrics),
            **rows.beside_mean,
            **test.measure_range().as_metrics(),
            **({} if header.max_error is None else {"max_error": header.max_error}),
        }
        pca_rows = None
        if train is not None and header.max_error is None:
            build_pca_codec(
                train, header.model.latent_size, header.quantiser.levels, header.scaling, work / "pca_codec"
            )
            trip = make_trip(work / "pca_codec", test, params, work / "pca")
            pca_rows = compare_rows(test, trip.decoded, header.scaling, means, kind=header.kind)
            known = store_metrics(trip.store, pca_rows)
            names = (*pca_rows.means(), "r2", "bits_per_row", "bits_per_row_with_codec")
            metrics |= {f"pca_{name}": known[name] for name in names}
    # What was measured here counts, whatever the codec says of itself.
    metrics = {**header.provenance.get("metrics", {}), **metrics}
    return Evaluation(metrics, rows, pca_rows, pictured, sounds, _names_of_values(header.kind))


def _names_of_values(entry: KindEntry | None) -> tuple[str, ...]:
    """The columns that make a row together; none where one column holds it."""
    if entry is None:
        return ()
    kind, state = open_kind(entry, "the codec")
    return kind.value_names(state)


def evaluate_store(store: LatentStore, samples: SampleSet, device: str) -> Metrics:
    """Metrics of a store that `samples` were encoded into: what it takes, and what comes back."""
    with tempfile.TemporaryDirectory() as folder:
        decoded = decode_store(store, Path(folder, "decoded"), device=device)
        header = store.codec_header()
        rows = compare_rows(samples, decoded, header.scaling, kind=header.kind)
        return {**store_metrics(store, rows), **samples.measure_range().as_metrics()}


def _break_even_rows(metrics: Metrics) -> int | None:
    """Rows from which store and codec together are smaller than zstd of the raw rows; None if they never are."""
    zstd, own, codec = (metrics[name] for name in ("zstd_bits_per_row", "bits_per_row", "codec_bytes"))
    if zstd is None or own is None or codec is None or zstd <= own:
        return None
    return int(np.ceil(8 * codec / (zstd - own)))


def lossless_warnings(metrics: Metrics) -> Iterator[str]:
    """Where rows that come back as they were take no less than zstd's, which do as well."""
    own, zstd = metrics["latent_bits_per_row"], metrics["zstd_bits_per_row"]
    if metrics.get("max_error") == 0 and own is not None and zstd is not None and own >= zstd:
        yield (
            f"zstd keeps every value of these rows as it was in {zstd:.0f} bits each, this codec in {own:.0f}: keep "
            "them by zstd, or set codec.max_error to what a value may be off"
        )


def _unquantised_mse(codec_path: Path, test: SampleSet) -> float:
    codec = Codec.load(codec_path)
    scaling = codec.header.scaling
    blocks = (block.pixels for block in test.all_blocks(2048))
    errors = (row_mse(pixels, codec.reconstruct_unquantised(pixels), scaling) for pixels in blocks)
    return sum(float(error.sum()) for error in errors) / test.rows


def _pictured(test: SampleSet, decoded: SampleSet, measured: RowMetrics, scaling: Scaling, seed: int) -> list[Pictured]:
    """Random, best and worst rows."""
    row_mse = measured.values["mse"]
    order = np.argsort(row_mse, kind="stable")
    count = min(PICTURED_ROWS, len(order))
    random = np.random.default_rng(seed).choice(len(order), count, replace=False)
    chosen = {"random": random, "best": order[:count], "worst": order[::-1][:count]}
    wanted = np.unique(np.concatenate(list(chosen.values())))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    first = 0
    for original, answer in pairs(test, decoded):
        for row in wanted[(wanted >= first) & (wanted < first + len(original))]:
            found[row] = scale(original.pixels[row - first], scaling), scale(answer.pixels[row - first], scaling)
        first += len(original)
    pictured = []
    for title, rows in chosen.items():
        ids = measured.attributes.column(ID).take(rows).to_pylist()
        before, after = (np.stack(images) for images in zip(*(found[row] for row in rows), strict=True))
        pictured.append(Pictured(title, ids, before, after, row_mse[rows]))
    return pictured


def family(metrics: Metrics) -> str:
    """What the codec is called in tables and pictures."""
    return "context codec" if "max_error" in metrics else "autoencoder"


def rate_distortion(metrics: Metrics) -> list[dict[str, Any]]:
    """The codec's and PCA's points, for the table and the picture."""
    points = []
    for name, prefix in ((family(metrics), ""), ("PCA", "pca_")):
        if metrics.get(f"{prefix}mse") is not None:
            shown = ["bits_per_row", "bits_per_row_with_codec", "mse", "psnr"]
            shown += ["recall_at_10"] if "recall_at_10" in metrics else []
            points.append({"name": name, **{key: metrics[f"{prefix}{key}"] for key in shown}})
    return points
