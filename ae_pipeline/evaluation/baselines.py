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


def build_pca_codec(train: SampleSet, latent_size: int, levels: int, scaling: Scaling, folder: Path) -> CodecHeader:
    """Write PCA as a codec: a dense autoencoder without hidden layers and with a linear output.

    So it goes through the very same quantiser, layout and code as any other codec.
    The caller checks that a row has at most LARGEST_PCA values; latent_size beyond that count is cut to it.
    """
    mean, components = fit_pca(train, scaling)
    model = pca_model(mean, components[:latent_size], train.spec)
    quantiser = Quantiser.fit(pca_latents(model, train, scaling), levels)
    return save_pca(folder, model, quantiser, train, scaling)


def fit_pca(train: SampleSet, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Mean (values,) and all components (values, values) of scaled rows, in float64, the largest variance first.

    From the covariance of the train split (Jolliffe, "Principal Component Analysis", 2002, chapter 3).
    """
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
    return mean, np.linalg.eigh(covariance)[1][:, ::-1].T


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
