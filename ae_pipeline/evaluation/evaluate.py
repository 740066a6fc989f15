"""Measure a codec on held-out rows: through the quantiser, through real bytes, next to honest alternatives."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import Scaling, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.value_range import measure_range
from ae_pipeline.errors import GateError
from ae_pipeline.evaluation.baselines import build_pca_codec, zstd_bytes
from ae_pipeline.evaluation.mean_answer import fit_means, not_better_than_mean
from ae_pipeline.evaluation.metrics import psnr_of
from ae_pipeline.evaluation.row_errors import RowMetrics, compare_rows, pairs, row_mse, scale
from ae_pipeline.params import LARGEST_PCA, EncodeParams, GateParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.encoding import encode_samples

Metrics = dict[str, float | int | None]
PICTURED_ROWS = 8


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

    def per_class(self) -> list[dict[str, Any]]:
        """Mean metrics of each value of the attribute `label`, if there is one; PCA's MSE beside them.

        Rows without a label are in no class.
        """
        if "label" not in self.rows.attributes.column_names:
            return []
        labels = self.rows.attributes.column("label")
        if pa.types.is_nested(labels.type) or labels.null_count == len(labels):
            return []
        table = []
        for label in sorted(pc.unique(labels.drop_null()).to_pylist()):
            chosen = pc.equal(labels, label).fill_null(False).to_numpy()
            table.append({"label": label, **self._means(chosen)})
        return table

    def all_rows(self) -> dict[str, Any]:
        """One such line for all rows together, labelled `all`."""
        return {"label": "all", **self._means(np.ones(len(self.rows.attributes), bool))}

    def _means(self, chosen: np.ndarray) -> dict[str, Any]:
        means: dict[str, Any] = {"rows": int(chosen.sum())}
        means |= {name: float(values[chosen].mean()) for name, values in self.rows.values.items()}
        if self.pca_rows is not None:
            means["pca_mse"] = float(self.pca_rows.values["mse"][chosen].mean())
        return means


def evaluate_codec(
    codec_path: Path, test: SampleSet, params: EncodeParams, *, train: SampleSet | None = None, seed: int = 0
) -> Evaluation:
    """Encode `test` into a temporary store, decode it, and measure what came back and what it took.

    With `train`, PCA of the same latent size is fitted on it and sent through the same quantiser and layout, and the
    means that errors are held against are those of its rows (mean_answer.py).
    `seed` chooses the random rows that are pictured.
    """
    header = read_header(codec_path)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        means = None if train is None else fit_means(train)
        rows, store, decoded = through_store(codec_path, test, params, work / "codec", train_means=means)
        pictured = _pictured(test, decoded, store, rows.values["mse"], seed)
        metrics = {**store_sizes(store), "zstd_bits_per_row": 8 * zstd_bytes(test) / test.rows, **rows.means()}
        metrics["unquantised_mse"] = _unquantised_mse(codec_path, test)
        metrics |= {
            "break_even_rows": _break_even_rows(metrics),
            **rows.beside_mean,
            **measure_range(test).as_metrics(),
        }
        pca_rows = None
        if train is not None and test.spec.size <= LARGEST_PCA:
            build_pca_codec(
                train, header.model.latent_size, header.quantiser.levels, header.scaling, work / "pca_codec"
            )
            pca_rows, pca_store, _ = through_store(work / "pca_codec", test, params, work / "pca", train_means=means)
            metrics |= {f"pca_{name}": value for name, value in pca_rows.means().items()}
            metrics["pca_r2"] = pca_rows.beside_mean["r2"]
            sizes = store_sizes(pca_store)
            metrics |= {f"pca_{name}": sizes[name] for name in ("bits_per_row", "bits_per_row_with_codec")}
    # What was measured here counts, whatever the codec says of itself.
    metrics = {**header.provenance.get("metrics", {}), **metrics}
    return Evaluation(metrics, rows, pca_rows, pictured)


def evaluate_store(store: LatentStore, samples: SampleSet, device: str) -> Metrics:
    """Metrics of a store that `samples` were encoded into: what it takes, and what comes back."""
    with tempfile.TemporaryDirectory() as folder:
        decoded = decode_store(store, Path(folder, "decoded"), device=device)
        rows = compare_rows(samples, decoded, store.codec_header().scaling)
        return {**store_sizes(store), **rows.means(), **rows.beside_mean, **measure_range(samples).as_metrics()}


def check_gate(metrics: Metrics, gate: GateParams) -> None:
    """Raise GateError with all conditions that do not hold, and the numbers.

    Whatever the gate asks for, a codec that is not better than answering each value's mean never passes.
    """
    failed = []
    if metrics["mse"] is None:
        failed.append("decoded rows are not numbers")
    if (reason := not_better_than_mean(metrics)) is not None:
        failed.append(reason)
    for limit, name, sign in (
        (gate.max_mse, "mse", 1),
        (gate.min_psnr, "psnr", -1),
        (gate.max_bits_per_row, "bits_per_row", 1),
    ):
        value = metrics[name]
        # A PSNR of None means that nothing was lost.
        if limit is not None and value is not None and sign * value > sign * limit:
            failed.append(f"{name} is {value:.6g}, the gate asks for {'at most' if sign > 0 else 'at least'} {limit:g}")
    if gate.beat_pca:
        pca, own = metrics.get("pca_mse"), metrics["mse"]
        if pca is None:
            failed.append(f"PCA was not computed (rows of more than {LARGEST_PCA} values); set beat_pca: false")
        elif own is not None and own >= pca:
            failed.append(f"mse is {own:.6g}, not below PCA's {pca:.6g} at the same latent size (beat_pca)")
    if failed:
        # No gate lets what knows nothing pass.
        other = "look for outliers in the data, which widen its range" if reason else "change the gate in params.yaml"
        raise GateError(f"the codec does not pass evaluate.gate: {'; '.join(failed)}. Improve the training, or {other}")


def through_store(
    codec_path: Path,
    test: SampleSet,
    params: EncodeParams,
    work: Path,
    scaling: Scaling | None = None,
    train_means: np.ndarray | None = None,
) -> tuple[RowMetrics, LatentStore, SampleSet]:
    """Encode `test` into a store below `work`, decode that, and compare row by row; the decoded rows come last.

    Errors are in units of `scaling` (default: the codec's own, which for floats is the range of its train split).
    """
    store = encode_samples(test, codec_path, work / "store", params, name="test", git={})
    decoded = decode_store(store, work / "decoded", device=params.device)
    return compare_rows(test, decoded, scaling or store.codec_header().scaling, train_means), store, decoded


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


def _break_even_rows(metrics: Metrics) -> int | None:
    """Rows from which store and codec together are smaller than zstd of the raw rows; None if they never are."""
    zstd, own, codec = (metrics[name] for name in ("zstd_bits_per_row", "bits_per_row", "codec_bytes"))
    if zstd is None or own is None or codec is None or zstd <= own:
        return None
    return int(np.ceil(8 * codec / (zstd - own)))


def _unquantised_mse(codec_path: Path, test: SampleSet) -> float:
    codec = Codec.load(codec_path)
    scaling = codec.header.scaling
    total = 0.0
    for shard in test.shards:
        for block in test.blocks(shard, 2048):
            decoded = codec.reconstruct_unquantised(block.pixels)
            total += float(row_mse(block.pixels, decoded, scaling).sum())
    return total / test.rows


def _pictured(
    test: SampleSet, decoded: SampleSet, store: LatentStore, row_mse: np.ndarray, seed: int
) -> list[Pictured]:
    """Random, best and worst rows."""
    order = np.argsort(row_mse, kind="stable")
    count = min(PICTURED_ROWS, len(order))
    random = np.random.default_rng(seed).choice(len(order), count, replace=False)
    chosen = {"random": random, "best": order[:count], "worst": order[::-1][:count]}
    wanted = np.unique(np.concatenate(list(chosen.values())))
    scaling = store.codec_header().scaling
    found: dict[int, tuple[Any, np.ndarray, np.ndarray]] = {}
    first = 0
    for before, after in pairs(test, decoded):
        rows = len(before.pixels)
        for row in wanted[(wanted >= first) & (wanted < first + rows)]:
            at = row - first
            ids = before.attributes.column(0)[at].as_py()
            found[row] = (ids, scale(before.pixels[at], scaling), scale(after.pixels[at], scaling))
        first += rows
    return [
        Pictured(
            title,
            [found[row][0] for row in rows],
            np.stack([found[row][1] for row in rows]),
            np.stack([found[row][2] for row in rows]),
            row_mse[rows],
        )
        for title, rows in chosen.items()
    ]


def rate_distortion(metrics: Metrics) -> list[dict[str, Any]]:
    """The codec's and PCA's points, for the table and the picture."""
    points = []
    for name, prefix in (("autoencoder", ""), ("PCA", "pca_")):
        if metrics.get(f"{prefix}mse") is not None:
            points.append(
                {
                    "name": name,
                    "bits_per_row": metrics[f"{prefix}bits_per_row"],
                    "bits_per_row_with_codec": metrics[f"{prefix}bits_per_row_with_codec"],
                    "mse": metrics[f"{prefix}mse"],
                    "psnr": metrics[f"{prefix}psnr"] or psnr_of(0.0),
                }
            )
    return points
