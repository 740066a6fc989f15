"""What `drift` compares with: the train rows' distributions, and the thresholds that held-out rows give.

Held-out rows differ from train rows, since the codec was fitted to those; that gap is part of every threshold. Batches
are drawn from the held-out rows with replacement (the bootstrap: Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993). Without, a batch of nearly all of them would hardly vary, which new rows do. How much the held-out
rows themselves vary is added where a threshold is looked up (`DriftReference.thresholds`).

Thresholds lie far in the tail: 1 batch in 2,000 for each statistic at a confidence of 0.999. To count those would take
a hundred thousand draws. The tail of D is that of exp(-2 n x^2) (Smirnov 1948; Massart, "The tight constant in the
Dvoretzky-Kiefer-Wolfowitz inequality", Ann. Probab. 18, 1990), exponential in x^2, so an exponential is fitted to the
squares of the largest tenth of the draws (peaks over a threshold: Pickands, "Statistical inference using extreme order
statistics", Ann. Statist. 3, 1975). `bench/drift.py` counts the false alarms that come out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.errors import DataError
from ae_pipeline.evaluation.drift.measure import BatchCounts, error_bins, ks_distance, latent_bins
from ae_pipeline.evaluation.drift.reference import Calibrated, DriftReference
from ae_pipeline.params.operation import DriftParams
from ae_pipeline.store.format.part_writer import round_error
from ae_pipeline.store.writing.checks import check_samples

if TYPE_CHECKING:
    from ae_pipeline.store.executors.lent import Borrowed

_EDGES = 1024
_MOST_HELD_OUT = 20_000
# The smallest calibrated batch has 50 to 99 rows.
_SMALLEST = 50
# Draws of the largest batch; twice as many of half its size, four times as many of all smaller ones.
_DRAWS = 1000
_MOST_BLOCKS = 4
_TAIL = 0.1


def fit_reference(
    codec_path: Path,
    train: SampleSet,
    held_out: SampleSet,
    params: DriftParams,
    seed: int,
    *,
    device: str = "auto",
) -> DriftReference:
    """Measure the reference of a codec on rows of `train`, and calibrate its thresholds on `held_out`.

    Rows are taken evenly over a split: `params.reference_rows` of train, at most 20,000 held-out ones. `seed` draws
    the batches. Raises CodecError for samples of another codec, DataError for errors that are not finite.
    """
    header = read_header(codec_path)
    levels = header.quantiser.levels
    for samples in (train, held_out):
        check_samples(samples, header, codec_path)
    latents, error = _encode(codec_path, train, params.reference_rows, device)
    if not np.isfinite(error).all():
        raise DataError(
            f"{int((~np.isfinite(error)).sum())} train rows have no finite error, so nothing can be compared; look "
            " for values in the data that the codec's scaling does not cover"
        )
    edges = _edges(error)
    counts = BatchCounts(edges, header.model.latent_size, levels)
    counts.add(latents, error)
    held_out_latents, held_out_error = _encode(codec_path, held_out, _MOST_HELD_OUT, device)
    # One column per distribution: the bin of each row in it, counted through all of them.
    dimensions = len(counts.error) + levels * np.arange(header.model.latent_size)
    bins = np.column_stack([error_bins(held_out_error, edges), latent_bins(held_out_latents, levels) + dimensions])
    return DriftReference(
        codec_fingerprint=header.fingerprint,
        levels=levels,
        train_rows=len(error),
        held_out_rows=len(held_out_error),
        confidence=params.confidence,
        error_edges=edges.tolist(),
        error_counts=counts.error.tolist(),
        latent_counts=counts.latents.tolist(),
        calibration=_calibrate(bins, counts, params.confidence, np.random.default_rng(seed)),
    )


def _encode(codec_path: Path, samples: SampleSet, most: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` rows, evenly over the data set, to int8 (n, L) latents and float32 (n,) errors."""
    # torch: a second, which measuring does not need
    from ae_pipeline.codec.codec import Codec
    from ae_pipeline.codec.devices import choose_device
    from ae_pipeline.store.executors import run_shards
    from ae_pipeline.store.executors.lent import lent

    codec = Codec.load(codec_path, choose_device(device))
    chosen = _Chosen(min(most, samples.rows), samples.rows)
    groups = list(_groups(samples.shards, chosen))
    with lent(codec) as borrowed:
        items = ([samples.only(shard) for shard in group] for group in groups)
        encoded = run_shards(_Encoding(borrowed, chosen), items, len(groups), codec.device)
    latents, errors = zip(*encoded, strict=True)
    return np.concatenate(latents), np.concatenate(errors)


@dataclass(frozen=True)
class _Chosen:
    """Which rows of a data set are encoded: `most` of its `rows`, with equal steps between them."""

    most: int
    rows: int

    def before(self, row: int | np.ndarray) -> int | np.ndarray:
        """How many of the rows before this one are chosen."""
        return row * self.most // self.rows


@dataclass(frozen=True)
class _Encoding:
    """What is done with some shards in a row, each a data set: their chosen rows to latents (n, L) and errors (n,)."""

    codec: "Borrowed"
    chosen: _Chosen

    def __call__(self, shards: list[SampleSet]) -> tuple[np.ndarray, np.ndarray]:
        codec = self.codec.codec()
        latents, errors = [], []
        for block in _evenly(shards, self.chosen):
            q, error = codec.encode_block(block, measure=True)
            assert error is not None
            latents.append(q)
            errors.append(error)
        return np.concatenate(latents), np.concatenate(errors)


def _evenly(shards: Iterable[SampleSet], chosen: _Chosen) -> Iterator[np.ndarray]:
    """The chosen rows (n, *shape) of shards, each a data set of its own, BLOCK_ROWS at a time."""
    from ae_pipeline.codec.codec import BLOCK_ROWS

    pending: list[np.ndarray] = []
    waiting = 0
    for samples in shards:
        first = samples.shards[0].first_row
        for block in samples.all_blocks(BLOCK_ROWS):
            # A row is taken where the number of chosen rows goes up.
            taken = block.pixels[np.diff(chosen.before(np.arange(first, first + len(block) + 1))) > 0]
            first += len(block)
            pending.append(taken)
            waiting += len(taken)
            if waiting >= BLOCK_ROWS:
                rows = np.concatenate(pending)
                yield rows[:BLOCK_ROWS]
                pending, waiting = [rows[BLOCK_ROWS:]], waiting - BLOCK_ROWS
    if waiting:
        yield np.concatenate(pending)


def _groups(shards: Iterable[Shard], chosen: _Chosen) -> Iterator[list[Shard]]:
    """Shards in a row that together have a block of chosen rows or more: a block costs the same with few rows in it."""
    from ae_pipeline.codec.codec import BLOCK_ROWS

    group: list[Shard] = []
    for shard in shards:
        group.append(shard)
        count = chosen.before(shard.first_row + shard.rows) - chosen.before(group[0].first_row)
        if count >= BLOCK_ROWS:
            yield group
            group = []
    if group and chosen.before(group[-1].first_row + group[-1].rows) > chosen.before(group[0].first_row):
        yield group


def _edges(error: np.ndarray) -> np.ndarray:
    """At most 1,024 rising float32 quantiles of the rounded errors (n,), the least and the largest among them."""
    shares = np.linspace(0, 1, _EDGES)
    return np.unique(np.quantile(round_error(error), shares, method="inverted_cdf"))


def _calibrate(
    bins: np.ndarray, train: BatchCounts, confidence: float, random: np.random.Generator
) -> list[Calibrated]:
    """Thresholds for batches of halving sizes, from all held-out rows down to 50 to 99.

    `bins` (n, 1 + L) is the bin of every held-out row in every distribution. Both statistics are to stay below
    their threshold together, so each gets half of what may lie above (Bonferroni's inequality).
    """
    drawn = _draw(bins, train, random)
    each = 1 - (1 - confidence) / 2
    # A smaller batch never has the lower threshold: a fit may say so where little depends on the size.
    found = np.array([[_quantile(values, each) for values in drawn[size].T] for size in sorted(drawn)])
    found = np.maximum.accumulate(found[::-1])[::-1]
    return [
        Calibrated(rows=size, error_drift=float(error), latent_drift=float(latent))
        for size, (error, latent) in zip(sorted(drawn), found, strict=True)
    ]


def _draw(bins: np.ndarray, train: BatchCounts, random: np.random.Generator) -> dict[int, np.ndarray]:
    """For each batch size, (draws, 2) values of error_drift and latent_drift.

    One draw of the largest size is cut into batches of all others: each size's are independent of each other.
    """
    halvings = max(0, int(np.log2(len(bins) / _SMALLEST)))
    largest = len(bins) >> halvings << halvings
    drawn: dict[int, list[np.ndarray]] = {largest >> halving: [] for halving in range(halvings + 1)}
    width = train.error.size + train.latents.size
    for _ in range(_DRAWS):
        rows = bins[random.integers(0, len(bins), largest)]
        counts: dict[int, np.ndarray] = {}
        for size in drawn:  # largest first
            if largest // size >= min(_MOST_BLOCKS, 1 << halvings):
                blocks = rows[: _MOST_BLOCKS * size].reshape(-1, size, rows.shape[1])
                counts[size] = np.stack([np.bincount(block.ravel(), minlength=width) for block in blocks])
        for size in reversed(drawn):
            if size not in counts:  # two of half the size
                counts[size] = counts[size // 2].reshape(-1, 2, width).sum(1)
            drawn[size].append(_statistics(counts[size], train))
    return {size: np.concatenate(values) for size, values in drawn.items()}


def _statistics(counts: np.ndarray, train: BatchCounts) -> np.ndarray:
    """(batches, bins of all distributions) to (batches, 2): error_drift and latent_drift."""
    error, latents = counts[:, : train.error.size], counts[:, train.error.size :]
    dimensions = ks_distance(latents.reshape(-1, *train.latents.shape), train.latents)
    return np.stack([ks_distance(error, train.error), dimensions.mean(-1)], -1)


def _quantile(values: np.ndarray, share: float) -> float:
    """Estimate the value that `share` of all draws stay below, from (n,) of them; from the edges' resolution to 1."""
    squares = values**2
    tail = max(_TAIL, 1 - share)
    start = np.quantile(squares, 1 - tail)
    excess = squares[squares > start] - start
    mean = excess.mean() if len(excess) else 0.0
    return float(np.clip(np.sqrt(start + mean * np.log(tail / (1 - share))), 1 / _EDGES, 1))
