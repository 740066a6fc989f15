"""PCA in the benchmark: many sizes, two kinds of quantiser, in the layouts and through the stores of our own codecs.

Most settings are bad ones. They are told by the rows' own arithmetic and one column of Parquet in memory; only those
that no other setting beats go through real stores.
"""

import math
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.header import Scaling
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.baselines import fit_pca, pca_latents, pca_model, save_pca
from ae_pipeline.experiments.benchmark.ours import measure_store
from ae_pipeline.experiments.benchmark.points import Point, Rows, Tell
from ae_pipeline.experiments.front import front
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import BenchParams
from ae_pipeline.store.format.layouts import LATENT, LAYOUTS, QUICK
from ae_pipeline.store.parts import column_bytes

FAMILY = "PCA"
# Steps that all components share, in standard deviations of the first one.
_STEPS = (2.0, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.0625)
# A setting must be this much better than the next smaller one to be worth a store of its own.
_WORTH = 0.97
# Rows that tell good settings from bad ones.
_TRIAL_ROWS = 2000


@dataclass(frozen=True, eq=False)
class Trial:
    """One setting; bits and error are those of the trial rows."""

    size: int
    model: Autoencoder
    quantiser: Quantiser
    kind: str
    layout: str
    bits: float
    mse: float
    codec_bytes: int


def measure_pca(
    rows: Rows,
    train: SampleSet,
    params: BenchParams,
    encode: EncodeParams,
    tell: Tell = lambda point: None,
    layouts: Collection[str] = QUICK,
) -> list[Point]:
    """The best settings through real stores, in the best of `layouts`."""
    points = []
    for trial in _without_beaten(list(_trials(rows, train, params, encode, layouts)), len(rows)):
        points.append(_measure(trial, rows, train, encode))
        tell(points[-1])
    best = [
        *front(points, lambda point: point.bits_per_row),
        *front(points, lambda point: point.bits_per_row_with_codec),
    ]
    return [point for point in points if point in best]


def _measure(trial: Trial, rows: Rows, train: SampleSet, encode: EncodeParams) -> Point:
    """Through a real store, in which the codec is larger than it need be: with the basis twice, and a header."""
    setting = f"{trial.size} components, {trial.kind}, {trial.layout}"
    with tempfile.TemporaryDirectory() as folder:
        codec = Path(folder) / "codec"
        save_pca(codec, trial.model, trial.quantiser, train, rows.scaling)
        layout = encode.model_copy(update={"layout": trial.layout})
        return measure_store(f"{FAMILY} {setting}", FAMILY, setting, codec, rows, layout, trial.codec_bytes)


def in_bytes(components: np.ndarray) -> np.ndarray:
    """Components (L, values) of 255 steps each, as our own codecs in integers have their weights; as floats."""
    steps = np.abs(components).max(axis=1, keepdims=True) / 127
    rounded: np.ndarray = np.round(components / steps) * steps
    return rounded


def codec_bytes(size: int, values: int) -> int:
    """What decoding needs: the basis once, in bytes, the mean in float16, and of each component three floats: the step
    of its basis, scale and zero point.
    """
    return values * size + 2 * values + 12 * size


def _without_beaten(trials: list[Trial], rows: int) -> list[Trial]:
    """The trials that no other beats, without the codec or with it; of near ones, the smaller."""
    best = []
    for shared in (math.inf, rows):
        error = math.inf
        for trial in front(trials, lambda trial, shared=shared: trial.bits + 8 * trial.codec_bytes / shared):  # type: ignore[misc]
            if trial.mse < _WORTH * error:
                error = trial.mse
                best.append(trial)
    return [trial for trial in trials if trial in best]


def _trials(
    rows: Rows, train: SampleSet, params: BenchParams, encode: EncodeParams, layouts: Collection[str] = QUICK
) -> Iterator[Trial]:
    mean, components = fit_pca(train, rows.scaling, max(params.pca_sizes))
    components = in_bytes(components)
    sizes = sorted({min(size, len(components)) for size in params.pca_sizes})
    models = {size: pca_model(mean, components[:size], train.spec) for size in sizes}
    # A component's latents are the same whatever comes after it: one pass for all sizes.
    largest = models[sizes[-1]]
    quantisers = _quantisers(pca_latents(largest, train, rows.scaling), params.pca_levels)
    pixels = rows.pixels[:_TRIAL_ROWS]
    with torch.inference_mode():
        z = largest.encode(scale_pixels(torch.from_numpy(pixels.astype(np.float32)), rows.scaling))
    for kind, whole in quantisers:
        for size, model in models.items():
            quantiser = Quantiser(whole.levels, whole.scale[:size], whole.zero_point[:size])
            q = quantiser.quantise(z[:, :size])
            lost = _error(model, quantiser.dequantise(q), pixels, rows.scaling)
            bits = {layout: column_bits(q.numpy(), layout, encode.row_group_rows) for layout in layouts}
            layout = min(bits, key=lambda name: bits[name])
            yield Trial(size, model, quantiser, kind, layout, bits[layout], lost, codec_bytes(size, len(mean)))


def _quantisers(z: torch.Tensor, levels: list[int]) -> list[tuple[str, Quantiser]]:
    """Our own, with a range for each component, and one step for all: the best for PCA where bits are plenty."""
    found = [(f"{count} levels", Quantiser.fit(z, count)) for count in levels]
    spread = max(float(z[:, 0].std()), 1e-6)
    for share in _STEPS:
        step = torch.full((z.shape[1],), share * spread)
        # Around 0, the mean of every component: those below half a step cost nearly nothing.
        found.append((f"step {share:g}", Quantiser(256, step, torch.zeros_like(step))))
    return found


@torch.inference_mode()
def _error(model: Autoencoder, z: torch.Tensor, pixels: np.ndarray, scaling: Scaling) -> float:
    """Mean squared error of values in [0, 1], as they come out of a codec: rounded and clipped if they are integers."""
    decoded = model.decode(z).mul_(scaling.scale).add_(scaling.offset).numpy()
    if pixels.dtype.kind != "f":
        limits = np.iinfo(pixels.dtype)
        decoded = np.clip(np.round(decoded), limits.min, limits.max)
    return float(np.square((decoded - pixels) / np.float32(scaling.scale)).mean(dtype=np.float64))


def column_bits(latents: np.ndarray, layout: str, row_group_rows: int) -> float:
    """Bits per row of int8 latents (n, L) in a store's latent column, without writing a store."""
    form = LAYOUTS[layout]
    schema = pa.schema([pa.field(LATENT, form.file_type(latents.shape[1]), nullable=False)])
    rows = form.to_arrow(np.ascontiguousarray(latents))
    groups = [form.to_file(rows.slice(start, row_group_rows)) for start in range(0, len(rows), row_group_rows)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table([pa.chunked_array(groups)], schema=schema),
        sink,
        row_group_rows,
        compression="zstd",
        compression_level=form.zstd_level,
        write_page_checksum=True,
        use_dictionary=list(form.dictionary_columns),
        write_statistics=False,
    )
    return 8 * column_bytes(pq.read_metadata(pa.BufferReader(sink.getvalue())), LATENT) / len(latents)
