"""Row by row: decoded samples against the originals."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.blocks import Block
from ae_pipeline.data.samples import ID, SampleSet
from ae_pipeline.errors import DataError, StoreError
from ae_pipeline.evaluation.measures.metrics import METRICS, mse, of_rows, psnr_of
from ae_pipeline.store.latent_store import LatentStore

_ROWS = 2048
# The error column has 8 fraction bits (0.2%); the rest is room for another machine's rounding of a pixel.
_ERROR_TOLERANCE = 0.01


def measure_rows(
    original: np.ndarray, decoded: np.ndarray, scaling: Scaling, *, vectors: bool = True
) -> dict[str, np.ndarray]:
    """Every metric that has a value for each row, float64 (n,), of pixels (n, *shape).

    Some are of vectors alone, which rows of one dimension are, if `vectors`: the frames of a clip are none.
    """
    scaled = {"original": scale(original, scaling), "decoded": scale(decoded, scaling)}
    exact = differences(original, decoded, scaling) if original.dtype.kind == "f" else scaled
    found = {}
    for name, metric in of_rows().items():
        if METRICS[name].of_vectors:
            if vectors and original.ndim == 2:
                found[name] = metric(original=original, decoded=decoded)
        else:
            found[name] = metric(**(exact if METRICS[name].of_differences else scaled))
    return found


def joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Metrics of blocks of rows as those of all rows."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def means_of(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Mean of every metric over all rows, None where it does not apply, and the metrics that come of these means."""
    means = {name: None if np.isnan(rows).any() else float(rows.mean()) for name, rows in values.items()}
    return means | {name: metric.of_means(means) for name, metric in METRICS.items() if metric.of_means}


def row_mse(original: np.ndarray, decoded: np.ndarray, scaling: Scaling) -> np.ndarray:
    """MSE of each row (n,), of pixels (n, *shape)."""
    if original.dtype.kind == "f":
        return mse(**differences(original, decoded, scaling))
    return mse(original=scale(original, scaling), decoded=scale(decoded, scaling))


def differences(original: np.ndarray, decoded: np.ndarray, scaling: Scaling) -> dict[str, np.ndarray]:
    """Arguments for a metric of differences alone. Scaled first, floats far from the offset would all be the same."""
    apart = (decoded.astype(np.float64) - original) / scaling.scale
    return {"original": np.zeros_like(apart), "decoded": apart}


def round_trip(original: SampleSet, decoded: SampleSet, store: LatentStore) -> dict[str, Any]:
    """Compare decoded rows with the originals and with the store's `error` column, in constant memory.

    Raises StoreError if the store's own account of its errors does not hold, DataError where ids differ.
    """
    scaling = store.codec_header().scaling
    total, worst, deviation, rows = 0.0, 0.0, 0.0, 0
    compared = (row_mse(before.pixels, after.pixels, scaling) for before, after in pairs(original, decoded))
    errors = (rows.error for part in store.manifest.parts for rows in store.read_part(part, _ROWS))
    for found, stored in _aligned(compared, errors):
        total += float(found.sum())
        worst = max(worst, float(found.max()))
        deviation = max(deviation, float((np.abs(found - stored) / np.maximum(found, 1e-9)).max()))
        rows += len(found)
    if deviation > _ERROR_TOLERANCE:
        raise StoreError(
            f"{store.location}: a decoded row's error differs by {deviation:.1%} from the store's `error` column "
            f"(up to {_ERROR_TOLERANCE:.0%} is rounding); the store was not made from this data, or is damaged"
        )
    mean = total / rows
    return {
        "rows": rows,
        "mse": mean,
        "psnr": psnr_of(mean),
        "worst_row_mse": worst,
        "error_column_deviation": deviation,
    }


def pairs(original: SampleSet, decoded: SampleSet) -> Iterator[tuple[Block, Block]]:
    """Blocks of the same rows of both. Raises DataError where ids or row counts differ."""
    if original.rows != decoded.rows:
        raise DataError(
            f"{original.files[0].parent} has {original.rows} original rows, but there are {decoded.rows} decoded ones; "
            "compare with the data set that was encoded"
        )
    row = 0
    for before, after in _aligned(original.all_blocks(_ROWS), decoded.all_blocks(_ROWS)):
        if not before.attributes.column(ID).equals(after.attributes.column(ID)):
            raise DataError(
                f"{original.files[0].parent}: ids differ between original and decoded in rows {row} to "
                f"{row + len(before) - 1}; compare with the data set that was encoded, in its order"
            )
        yield before, after
        row += len(before)


def scale(pixels: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Pixels to float32 in [0, 1]; floats by way of double, as their differences may not fit float32."""
    if pixels.dtype.kind == "f":
        return ((pixels.astype(np.float64) - scaling.offset) / scaling.scale).astype(np.float32)
    return (pixels.astype(np.float32) - np.float32(scaling.offset)) / np.float32(scaling.scale)


def _aligned(*streams: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    """Cut streams of rows, which come in pieces of different lengths, into pieces of the same rows."""
    pieces = [next(stream, ()) for stream in streams]
    while rows := min(map(len, pieces)):
        yield tuple(piece[:rows] for piece in pieces)
        pieces = [
            piece[rows:] if len(piece) > rows else next(stream, ())
            for piece, stream in zip(pieces, streams, strict=True)
        ]
