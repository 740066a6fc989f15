"""Small real things made by hand: codecs with untrained weights, data sets with any columns, stores of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.codec import Codec, freeze, save_codec
from ae_pipeline.codec.header import HEADER_NAME, Scaling, fingerprint
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import SampleSpec, from_numpy
from ae_pipeline.data.sample_schema import sample_schema
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.models import build_model
from ae_pipeline.models.conv import Options as ConvOptions
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.models.grid import Options as GridOptions
from ae_pipeline.models.patches import Options as PatchOptions
from ae_pipeline.params import EncodeParams, WeightBits
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.training.batches import MemoryRows
from ae_pipeline.training.integers.to_integers import RoundedNetwork


def random_pixels(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """(rows, *shape) over the whole range of an integer type, or from -3 to 5."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.uniform(-3, 5, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def random_codec(
    folder: Path,
    shape: tuple[int, ...] = (5, 4),
    dtype: str = "uint8",
    *,
    model_name: str = "dense",
    hidden_size: int = 7,
    latent_size: int = 3,
    levels: int = 16,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    integer: bool = False,
    weight_bits: WeightBits = 16,
    kind: KindEntry | None = None,
) -> Codec:
    """Save an untrained codec in `folder`; returns the one in memory, which was never loaded (in integers: it was)."""
    usual = {
        "dense": DenseOptions(hidden_sizes=[hidden_size]),
        "conv": ConvOptions(channels=[2, 3]),
        "patches": PatchOptions(encoder_channels=[3], decoder_channels=[4, 3]),
        "grid": GridOptions(patch_size=2, encoder_channels=[3, 4], decoder_channels=[4, 3, 3]),
    }[model_name]
    usual = usual.model_copy(update={"activation": "relu"}) if integer else usual
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(model_name, shape, latent_size, options or dict(usual)).eval()
        model = freeze(model, model_name, weight_bits=weight_bits)
    pixels = random_pixels((200, *shape), dtype, seed)
    scaling = scaling_of(pixels)
    latents = model.encode(scale_pixels(torch.from_numpy(pixels.astype(np.float32)), scaling))
    quantiser = _fitted(latents, levels, model.latent_channels)
    integers = None
    if integer:
        network = RoundedNetwork(model, quantiser)
        network.calibrate(MemoryRows(pixels, torch.device("cpu")))
        integers = network.integers()
    header = save_codec(
        folder,
        model=model,
        model_name=model_name,
        quantiser=quantiser,
        spec=SampleSpec(shape, dtype),
        scaling=scaling,
        provenance={"method": "untrained"},
        integers=integers,
        weight_bits=weight_bits,
        kind=kind,
    )
    return Codec.load(folder) if integer else Codec(header, model)


def _fitted(latents: torch.Tensor, levels: int, channels: int) -> Quantiser:
    """Fit it as training does; where latents have channels, each of these gets a step."""
    if not channels:
        return Quantiser.fit(latents, levels)
    fitted, blocks = Quantiser.fit(latents.reshape(-1, channels), levels), latents.shape[1] // channels
    return Quantiser(levels, fitted.scale.repeat(blocks), fitted.zero_point.repeat(blocks))


def scaling_of(pixels: np.ndarray) -> Scaling:
    """What a codec trained on these pixels would have."""
    if pixels.dtype.kind == "f":
        return Scaling(offset=float(pixels.min()), scale=float(pixels.max()) - float(pixels.min()))
    limits = np.iinfo(pixels.dtype)
    return Scaling(offset=float(limits.min), scale=float(limits.max - limits.min))


def write_rows(path: Path, pixels: np.ndarray, **columns: Any) -> SampleSet:
    """One Parquet file with these columns (lists or Arrow arrays) and `pixels`; `id` only if it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = pa.table({name: pa.array(values) for name, values in columns.items()})
    spec = SampleSpec(pixels.shape[1:], pixels.dtype.name)
    arrays = [*attributes.columns, from_numpy(pixels.reshape(len(pixels), -1), spec.dtype)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=sample_schema(attributes.schema, spec)), path)
    return SampleSet.open(path)


def encode(
    samples: SampleSet | Path,
    codec: Path,
    target: Path,
    *,
    layout: str = "list",
    row_group_rows: int = 10_000,
    work: Path | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> LatentStore:
    """`encode_samples` on the CPU, with the arguments that tests care about."""
    params = EncodeParams(layout=layout, row_group_rows=row_group_rows, device="cpu")
    samples = samples if isinstance(samples, SampleSet) else SampleSet.open(samples)
    return encode_samples(samples, codec, target, params, name="tiny", git={}, work=work, progress=progress)


def change_header(codec: Path, *, keep_fingerprint: bool = False, **changes: Any) -> None:
    """Rewrite keys of codec.json, named as `section__key`; with a fingerprint that fits unless told otherwise."""
    path = codec / HEADER_NAME
    values = json.loads(path.read_text(encoding="utf-8"))
    for place, value in changes.items():
        *sections, key = place.split("__")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[key] = value
    if not keep_fingerprint:
        values["fingerprint"] = fingerprint(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def flip_bit(path: Path, position: int, bit: int = 0) -> None:
    """Damage one bit of a file."""
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
