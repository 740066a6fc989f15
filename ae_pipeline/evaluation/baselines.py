"""The alternatives that every codec is measured against: PCA in the same file layout, and zstd of the raw rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ae_pipeline.codec.codec import freeze, save_codec
from ae_pipeline.codec.header import CodecHeader, Scaling
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.measures.row_errors import scale
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Autoencoder

ZSTD_LEVEL = 19
_ZSTD_PIECE = 64 << 20
_QUANTISER_ROWS = 50_000
# PCA of rows of more values comes from products of rows, not of values: of so many rows, and values in all.
_LARGEST_COVARIANCE, _GRAM_ROWS, _GRAM_VALUES = 8192, 4096, 1 << 26
# Eigenvalues below this share of the largest one are what rounding left.
_NO_VARIANCE = 1e-6


def build_pca_codec(train: SampleSet, latent_size: int, levels: int, scaling: Scaling, folder: Path) -> CodecHeader:
    """Write PCA as a codec: a dense autoencoder without hidden layers and with a linear output.

    So it goes through the very same quantiser, layout and code as any other codec.
    latent_size beyond the number of components is cut to it.
    """
    mean, components = fit_pca(train, scaling, latent_size)
    model = pca_model(mean, components[:latent_size], train.spec)
    quantiser = Quantiser.fit(pca_latents(model, train, scaling), levels)
    return save_pca(folder, model, quantiser, train, scaling)


def fit_pca(train: SampleSet, scaling: Scaling, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (values,) and components (at most `most`, values) of scaled rows, float64, the largest variance first.

    From the covariance of the train split (Jolliffe, "Principal Component Analysis", 2002, chapter 3), or where that
    would be too large, from at most 4,096 of its rows, evenly spaced: then there are fewer components than those rows.
    """
    if train.spec.size > _LARGEST_COVARIANCE:
        return _pca_of_rows(train, scaling, most)
    size = train.spec.size
    total, products = np.zeros(size), np.zeros((size, size))
    for block in train.all_blocks(8192):
        x = scale(block.pixels, scaling).reshape(len(block), size)
        total += x.sum(axis=0, dtype=np.float64)
        # Products of one block in float32: 8 thousand terms each; the sum over blocks in float64.
        products += x.T @ x
    mean = total / train.rows
    covariance = products / train.rows - np.outer(mean, mean)
    # eigh sorts by rising eigenvalue.
    return mean, np.linalg.eigh(covariance)[1][:, ::-1].T[:most]


def _pca_of_rows(train: SampleSet, scaling: Scaling, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Find them by products of rows with rows (Sirovich, "Turbulence and the dynamics of coherent structures", 1987).

    An eigenvector v of X X' with eigenvalue e > 0 gives the component X' v / sqrt(e), where rows of X have mean 0.
    """
    step = -(-train.rows // min(_GRAM_ROWS, max(2, _GRAM_VALUES // train.spec.size)))
    chosen, first = [], 0
    for block in train.all_blocks(256):
        chosen.append(scale(block.pixels[-first % step :: step], scaling).reshape(-1, train.spec.size))
        first += len(block)
    x = np.concatenate(chosen)
    mean = x.mean(axis=0, dtype=np.float64)
    x -= mean.astype(np.float32)
    values, vectors = np.linalg.eigh((x @ x.T).astype(np.float64))
    kept = max(1, int((values > _NO_VARIANCE * values[-1]).sum()))  # one, of length 0, where all rows are alike
    vectors = vectors[:, ::-1][:, : min(kept, most)].astype(np.float32)
    components = (x.T @ vectors).T.astype(np.float64)
    return mean, components / np.maximum(np.linalg.norm(components, axis=1, keepdims=True), _NO_VARIANCE)


def pca_model(mean: np.ndarray, components: np.ndarray, spec: SampleSpec) -> Autoencoder:
    """The frozen model of components (L, values)."""
    options: dict[str, Any] = {
        "hidden_sizes": [],
        "encoder_hidden_sizes": None,
        "hidden_norm": "none",
        "activation": "identity",
        "latent_activation": "identity",
        "latent_norm": "none",
        "output_activation": "linear",
        "dropout": 0.0,
        "linear_path": False,
    }
    model = build_model("dense", spec.shape, len(components), options)
    state = {
        "encoder.linear0.weight": components,
        "encoder.linear0.bias": -components @ mean,
        "decoder.linear0.weight": components.T,
        "decoder.linear0.bias": mean,
    }
    # A single value counts as contiguous whatever its stride, and torch takes no negative one.
    model.load_state_dict({name: torch.from_numpy(value.copy(order="C")) for name, value in state.items()})
    return freeze(model, "dense")


def save_pca(folder: Path, model: Autoencoder, quantiser: Quantiser, train: SampleSet, scaling: Scaling) -> CodecHeader:
    """Write the codec folder of a `pca_model` that was fitted on `train`."""
    return save_codec(
        folder,
        model=model,
        model_name="dense",
        quantiser=quantiser,
        spec=train.spec,
        scaling=scaling,
        provenance={"method": "PCA", "data": {"digest": train.digest, "rows": train.rows}},
    )


def zstd_bytes(samples: SampleSet) -> int:
    """Bytes of all pixels under zstd at level 19, in pieces of 64 MB: what a good general compressor makes of them."""
    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    total = 0
    pending = bytearray()
    for block in samples.all_blocks(8192):
        pending += block.pixels.tobytes()
        if len(pending) >= _ZSTD_PIECE:
            total += len(codec.compress(bytes(pending)))
            pending.clear()
    return total + (len(codec.compress(bytes(pending))) if pending else 0)


@torch.inference_mode()
def pca_latents(model: Autoencoder, samples: SampleSet, scaling: Scaling) -> torch.Tensor:
    """Latents (n, L) of at most 50,000 evenly spaced rows, to fit a quantiser to."""
    step = -(-samples.rows // _QUANTISER_ROWS)
    rows = (scale(block.pixels[::step], scaling) for block in samples.all_blocks(8192))
    return torch.cat([model.encode(torch.from_numpy(x)) for x in rows])
