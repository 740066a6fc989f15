"""Drift: how different a batch of encoded rows is from the rows that its codec was trained on.

    reference = read_reference(Path("reports/drift_reference.json"))
    drift = measure_store(LatentStore.open(path), reference, ["part-00003-....parquet"])
    drift.drifted, drift.describe()

Measured on what the store holds, without torch: no pixels, no labels, no network. Two statistics, both of values in
[0, 1], where 0 is the reference's distribution and 1 has nothing in common with it:

- `error_drift`: Kolmogorov-Smirnov distance D = sup |F_batch - F_train| of the column `error` (Smirnov, "Table for
  estimating the goodness of fit of empirical distributions", Ann. Math. Statist. 19, 1948). It finds rows that the
  codec cannot represent.
- `latent_drift`: mean over the latent dimensions of D of the integers in that dimension. It finds rows that are
  represented well, but mixed otherwise. One-dimensional tests on an autoencoder's latents are what Rabanser, Günnemann
  and Lipton ("Failing Loudly", NeurIPS 2019) found to work best among many; their mean replaces a test per dimension.

A batch has drifted if either statistic is above its threshold for that many rows. Thresholds come from held-out rows
(fit.py), not from a table: those also differ from the train rows, and the dimensions depend on each other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ae_pipeline.errors import CodecError, DataError, StoreError
from ae_pipeline.evaluation.drift.reference import DriftReference
from ae_pipeline.store.format.part_entries import PartEntry, ShardRows
from ae_pipeline.store.format.part_writer import round_error
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import LatentRows

_ROWS = 65_536
_SHOWN_DIMENSIONS = 3


@dataclass(frozen=True)
class Drift:
    """What was measured on a batch."""

    rows: int
    error_drift: float
    latent_drift: float
    error_threshold: float
    latent_threshold: float
    dimensions: tuple[float, ...]
    """D of each of the L latent dimensions; `latent_drift` is their mean."""

    @property
    def drifted(self) -> bool:
        """Whether either statistic is above its threshold."""
        return self.error_drift > self.error_threshold or self.latent_drift > self.latent_threshold

    @property
    def most_drifted(self) -> list[tuple[int, float]]:
        """The 3 latent dimensions (0 to L - 1) with the largest D, and it."""
        order = np.argsort(-np.array(self.dimensions), kind="stable")[:_SHOWN_DIMENSIONS]
        return [(int(dimension), self.dimensions[dimension]) for dimension in order]

    def describe(self) -> str:
        """One line for people."""
        found = [
            f"{name} {value:.3f} ({'above' if value > threshold else 'within'} {threshold:.3f})"
            for name, value, threshold in (
                ("error_drift", self.error_drift, self.error_threshold),
                ("latent_drift", self.latent_drift, self.latent_threshold),
            )
        ]
        worst = ", ".join(f"{dimension} ({value:.2f})" for dimension, value in self.most_drifted)
        verdict = "drifted" if self.drifted else "no drift"
        return f"{verdict}: {self.rows:,} rows, {', '.join(found)}; most drifted latents {worst}"


class BatchCounts:
    """Histograms of a batch in the reference's bins; rows are added piece by piece and not kept."""

    def __init__(self, edges: np.ndarray, latent_size: int, levels: int):
        self.error = np.zeros(2 * len(edges) + 1, np.int64)
        self.latents = np.zeros((latent_size, levels), np.int64)
        self._edges = edges

    @property
    def rows(self) -> int:
        """Rows that were added."""
        return int(self.error.sum())

    def add(self, latents: np.ndarray, error: np.ndarray) -> None:
        """Count int8 (n, L) latents and their float32 (n,) errors. Raises DataError for what does not fit."""
        size, levels = self.latents.shape
        if latents.dtype != np.int8 or latents.ndim != 2 or latents.shape[1] != size:
            raise DataError(
                f"latents are {latents.dtype} {latents.shape[1:]}, expected int8 ({size},) as the drift reference has; "
                "use the reference of the codec that encoded them"
            )
        if error.shape != (len(latents),):
            raise DataError(f"errors have shape {error.shape}, expected one for each of {len(latents)} rows")
        q = latent_bins(latents, levels)
        if len(q) and not 0 <= q.min() <= q.max() < levels:
            raise DataError(
                f"latents reach from {latents.min()} to {latents.max()}, which does not fit the drift reference's "
                f"{levels} levels; use the reference of the codec that encoded them"
            )
        self.error += np.bincount(error_bins(error, self._edges), minlength=len(self.error))
        flat = (q + levels * np.arange(size)).ravel()
        self.latents += np.bincount(flat, minlength=size * levels).reshape(size, levels)


def measure(reference: DriftReference, batch: Iterable[tuple[np.ndarray, np.ndarray]]) -> Drift:
    """Drift of a batch in pieces: int8 (n, L) latents and their float32 (n,) errors, as in a store.

    An error that is not a number counts as larger than any of the train rows'. Raises DataError for what does not fit,
    and for a batch without rows.
    """
    counts = BatchCounts(np.array(reference.error_edges, np.float32), reference.latent_size, reference.levels)
    for latents, error in batch:
        counts.add(latents, error)
    if not counts.rows:
        raise DataError("a batch without rows has no drift; measure at least one row")
    dimensions = ks_distance(counts.latents, np.array(reference.latent_counts))
    error_threshold, latent_threshold = reference.thresholds(counts.rows)
    return Drift(
        rows=counts.rows,
        error_drift=float(ks_distance(counts.error, np.array(reference.error_counts))),
        latent_drift=float(dimensions.mean()),
        error_threshold=error_threshold,
        latent_threshold=latent_threshold,
        dimensions=tuple(dimensions.tolist()),
    )


def measure_store(
    store: LatentStore, reference: DriftReference, parts: Sequence[str | ShardRows] | None = None
) -> Drift:
    """Drift of the rows in a store, or in the parts of these names, or of these shards; constant memory.

    Raises CodecError if the reference is another codec's, StoreError for parts that are not there or are damaged.
    """
    if store.manifest.codec.fingerprint != reference.codec_fingerprint:
        raise CodecError(
            f"{store.location} was encoded by codec {store.manifest.codec.fingerprint[:12]}..., but the drift "
            f"reference is of {reference.codec_fingerprint[:12]}...; use the one that was published with it"
        )
    return measure(reference, ((rows.latents, rows.error) for rows in _rows(store, parts)))


def read_errors(store: LatentStore, parts: Sequence[str | ShardRows] | None = None) -> np.ndarray:
    """float32 (n,): the column `error` of a store, or of the parts of these names, or of shards. Raises StoreError."""
    return np.concatenate([rows.error for rows in _rows(store, parts)])


def ks_distance(counts: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of histograms over the same bins: (..., bins) each, broadcast, to (...)."""
    one, two = (histogram.cumsum(-1) / histogram.sum(-1, keepdims=True) for histogram in (counts, other))
    return np.abs(one - two).max(-1)


def error_bins(error: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Bin of each error (n,), rounded as in a store, to intp (n,): 2k between edges k - 1 and k, 2k + 1 on edge k.

    Bins of their own for the edges keep D within 1/K of that of the values themselves, also where many are equal:
    between two neighbouring quantiles lies less than 1/K of the reference.
    """
    rounded = round_error(error)
    return np.searchsorted(edges, rounded, "left") + np.searchsorted(edges, rounded, "right")


def latent_bins(latents: np.ndarray, levels: int) -> np.ndarray:
    """int8 latents to intp that count from 0; see quantiser.py for the range."""
    return latents.astype(np.intp) + levels // 2


def _rows(store: LatentStore, parts: Sequence[str | ShardRows] | None) -> Iterator[LatentRows]:
    entries: dict[str, PartEntry] = {part.name: part for part in store.manifest.parts}
    for name in entries if parts is None else parts:
        if isinstance(name, ShardRows):
            yield from store.read_shard(name, _ROWS)
            continue
        if name not in entries:
            raise StoreError(f"{store.location} has no part {name}; open it again, or name one of its manifest's")
        yield from store.read_part(entries[name], _ROWS)
