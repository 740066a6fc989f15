"""What one keeps vectors in for a search, beside PCA: numbers of 8 and 4 bits, product quantisation, optimised or not.

All are fitted to the same train split, and their rows stand in a Parquet column as ours do, in the smallest layout.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.experiments.benchmark.image_formats import INSTALL
from ae_pipeline.experiments.benchmark.pca import column_bits
from ae_pipeline.experiments.benchmark.points import Point, Rows, Tell, timed
from ae_pipeline.params import LARGEST_PCA
from ae_pipeline.params.operation import BenchParams
from ae_pipeline.store.format.layouts import QUICK

# Rows that codes are fitted to, evenly spaced: faiss takes no more.
_TRAIN_ROWS = 65_536
_CENTROIDS = 256
_BLOCK = 8192


def measure_vector_codes(
    rows: Rows, train: SampleSet, params: BenchParams, row_group_rows: int, tell: Tell = lambda point: None
) -> tuple[list[Point], list[str]]:
    """A point for each code of rows that are vectors, and what was left out, with the reason."""
    known = _some_rows(train)
    points = []
    for levels in (256, 16):
        points.append(_measure_integers(rows, known, levels, row_group_rows))
        tell(points[-1])
    try:
        import faiss
    except ImportError:
        return points, [f"PQ, OPQ: the package faiss-cpu is not installed; {INSTALL}"]
    if len(known) < _CENTROIDS:
        return points, [f"PQ, OPQ: {len(known)} train rows, but a code book has {_CENTROIDS} entries; use more rows"]
    left_out = []
    for pieces in sorted({_pieces(rows.samples.spec.size, bits) for bits in params.pq_bits}):
        points.append(_measure_pq(rows, known, faiss, pieces, row_group_rows))
        tell(points[-1])
        if rows.samples.spec.size <= LARGEST_PCA:
            points.append(_measure_pq(rows, known, faiss, pieces, row_group_rows, turned=True))
            tell(points[-1])
    if rows.samples.spec.size > LARGEST_PCA:
        left_out.append(f"OPQ: rows have {rows.samples.spec.size} values, at most {LARGEST_PCA} are supported")
    return points, left_out


def _pieces(values: int, bits: int) -> int:
    """Count the pieces, of one length each, that a vector is cut into so that a byte for each makes about `bits`."""
    return min(
        (count for count in range(1, values + 1) if values % count == 0), key=lambda count: abs(8 * count - bits)
    )


def _measure_integers(rows: Rows, known: np.ndarray, levels: int, row_group_rows: int) -> Point:
    """Every value by itself, in equal steps over its own range: the range that has the least error on train rows."""
    quantiser = Quantiser.fit(torch.from_numpy(known), levels)
    codes, encoding = timed(lambda: quantiser.quantise(torch.from_numpy(_floats(rows.pixels))).numpy())
    decoded, decoding = timed(lambda: quantiser.dequantise(torch.from_numpy(codes)).numpy())
    name = f"int{levels.bit_length() - 1}"
    shared = 8 * codes.shape[1]  # scale and zero point, in float32
    return _point(rows, name, "integers", name, codes, decoded, (encoding, decoding), shared, row_group_rows)


def _measure_pq(
    rows: Rows, known: np.ndarray, faiss: Any, pieces: int, row_group_rows: int, *, turned: bool = False
) -> Point:
    """Product quantisation: for each piece of a vector the nearest of 256 (Jégou, Douze and Schmid, PAMI 2011).

    `turned`: after a rotation that suits it (OPQ: Ge, He, Ke and Sun, CVPR 2013). Code books and rotation are kept in
    float16, as our weights are.
    """
    values = known.shape[1]
    turn, turn_back = _rotation(faiss, known, pieces) if turned else (_same, _same)
    quantiser = faiss.ProductQuantizer(values, pieces, 8)
    quantiser.train(turn(known))
    books = faiss.vector_to_array(quantiser.centroids).astype(np.float16).astype(np.float32)
    faiss.copy_array_to_vector(books, quantiser.centroids)
    vectors = _floats(rows.pixels)
    codes, encoding = timed(lambda: quantiser.compute_codes(turn(vectors)))
    decoded, decoding = timed(lambda: turn_back(quantiser.decode(codes)))
    family = "OPQ" if turned else "PQ"
    setting = f"{pieces}x8"
    shared = 2 * _CENTROIDS * values + (2 * values * values if turned else 0)
    latents = codes.view(np.int8)
    seconds = (encoding, decoding)
    return _point(rows, f"{family} {setting}", family, setting, latents, decoded, seconds, shared, row_group_rows)


def _rotation(
    faiss: Any, known: np.ndarray, pieces: int
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """The rotation that suits product quantisation into so many pieces, and the way back."""
    rotation = faiss.OPQMatrix(known.shape[1], pieces)
    rotation.train(known)
    matrix = faiss.vector_to_array(rotation.A).astype(np.float16).astype(np.float32).reshape(2 * known.shape[1:])
    return (lambda x: np.ascontiguousarray(x @ matrix.T)), (lambda x: x @ matrix)


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _point(
    rows: Rows,
    name: str,
    family: str,
    setting: str,
    codes: np.ndarray,
    decoded: np.ndarray,
    seconds: tuple[float, float],
    shared: int,
    row_group_rows: int,
) -> Point:
    """`codes` are int8 (n, bytes) of all rows; `shared` bytes are kept once."""
    bits = min(column_bits(codes, layout, row_group_rows) for layout in QUICK)
    dtype = rows.pixels.dtype
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        decoded = np.clip(np.round(decoded), limits.min, limits.max)
    return rows.point(name, family, setting, bits, decoded.astype(dtype), seconds, shared)


def _some_rows(train: SampleSet) -> np.ndarray:
    """Evenly spaced train rows, float32 (n, values)."""
    step = -(-train.rows // _TRAIN_ROWS)
    kept, first = [], 0
    for block in train.all_blocks(_BLOCK):
        kept.append(_floats(block.pixels[-first % step :: step]))
        first += len(block)
    return np.concatenate(kept)


def _floats(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels, np.float32)
