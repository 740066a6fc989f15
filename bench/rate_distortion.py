"""Which codec setting should be the default: how many bits does each one take, and at which error?

    python bench/rate_distortion.py --prepared data/prepared
    python bench/rate_distortion.py --only finalist --test

Trains every setting of SETTINGS on the train split, fits the quantiser at several numbers of levels, and prints one
Markdown row for each: validation MSE through the quantiser, and the bits per row as the sum of the entropies of the
latent dimensions. `--test` adds the test split through real Parquet bytes, for the settings that are worth it.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.codec import freeze, save_codec
from ae_pipeline.codec.header import Scaling
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.evaluate import evaluate_codec
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import EncodeParams, Params
from ae_pipeline.training.batches import MemoryRows, Rows, fit_scaling
from ae_pipeline.training.loop import fit

# name: (model, options of the model, options of train); what is missing: MODEL and THEN, then params.py.
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "relu, 1e-3, batch 256": ("dense", {}, {"epochs": 12}),
    "relu, 4e-3, batch 256": ("dense", {}, {"epochs": 12, "learning_rate": 4e-3}),
    "gelu, 2e-3, batch 256": ("dense", {"activation": "gelu"}, {"epochs": 12, "learning_rate": 2e-3}),
    "silu, 2e-3, batch 256": ("dense", {"activation": "silu"}, {"epochs": 12, "learning_rate": 2e-3}),
    "silu, 4e-3, batch 128, latent 28": (
        "dense",
        {"activation": "silu"},
        {"epochs": 12, "learning_rate": 4e-3, "batch_size": 128, "latent_size": 28},
    ),
    "finalist dense": (
        "dense",
        {"activation": "silu"},
        {"epochs": 36, "learning_rate": 4e-3, "batch_size": 128, "latent_size": 28, "patience": 0},
    ),
    "finalist conv": (
        "conv",
        {"activation": "silu"},
        {"epochs": 25, "learning_rate": 4e-3, "batch_size": 128, "latent_size": 28, "patience": 0},
    ),
}
# Defaults when these settings were tried.
MODEL: dict[str, dict[str, Any]] = {
    "dense": {"hidden_sizes": [512, 256], "hidden_norm": "none"},
    "conv": {"hidden_norm": "none"},
}
THEN: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 256, "ema": 0.0}
LEVELS = (8, 10, 12, 14, 16, 20)
CPU = torch.device("cpu")


@torch.inference_mode()
def latents(model: Autoencoder, rows: Rows, scaling: Scaling) -> torch.Tensor:
    return torch.cat([model.encode(scale_pixels(pixels.float(), scaling)) for pixels in rows.in_order(4096)])


@torch.inference_mode()
def distortion(model: Autoencoder, quantiser: Quantiser, z: torch.Tensor, rows: Rows, scaling: Scaling) -> float:
    total = 0.0
    for pixels, part in zip(rows.in_order(4096), z.split(4096), strict=True):
        decoded = model.decode(quantiser.dequantise(quantiser.quantise(part)))
        difference = decoded.sub_(scale_pixels(pixels.float(), scaling))
        total += float(difference.square().flatten(1).mean(1, dtype=torch.float64).sum())
    return total / rows.rows


def entropy(q: torch.Tensor) -> float:
    bits = 0.0
    for column in q.T:
        share = torch.unique(column, return_counts=True)[1].double() / len(column)
        bits -= float((share * share.log2()).sum())
    return bits


def stored(model: Autoencoder, kind: str, quantiser: Quantiser, test: SampleSet, scaling: Scaling) -> str:
    codec = {"model": model, "model_name": kind, "quantiser": quantiser, "spec": test.spec, "scaling": scaling}
    with tempfile.TemporaryDirectory() as folder:
        save_codec(Path(folder) / "codec", **codec, provenance={})
        found = evaluate_codec(Path(folder) / "codec", test, EncodeParams(device="cpu")).metrics
    return f"{found['mse']:.5f} | {found['latent_bits_per_row']:.1f} | {found['bits_per_row_with_codec']:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--epochs", type=int, help="instead of each setting's own")
    parser.add_argument("--test", action="store_true", help="also the test split, through a latent store")
    args = parser.parse_args()
    splits = {name: SampleSet.open(args.prepared / name) for name in ("train", "validation", "test")}
    train, validation = (MemoryRows(splits[name].load().pixels, CPU) for name in ("train", "validation"))
    scaling = fit_scaling(splits["train"])
    print("| setting | CPU-s | levels | validation MSE | entropy, bits | test MSE | Parquet, bits | with codec |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (kind, options, knobs) in SETTINGS.items():
        if args.only not in name:
            continue
        epochs = {"epochs": args.epochs} if args.epochs else {}
        params = Params.model_validate(
            {"model": {"name": kind, kind: {**MODEL[kind], **options}}, "train": {**THEN, **knobs, **epochs}}
        )
        torch.manual_seed(params.train.seed)
        model = build_model(kind, splits["train"].spec.shape, params.train.latent_size, params.model.options)
        start = time.process_time()
        fit(model, train, validation, params.train, scaling)
        seconds = time.process_time() - start
        frozen = freeze(model, kind)
        z_train, z = latents(frozen, train, scaling), latents(frozen, validation, scaling)
        for levels in LEVELS:
            quantiser = Quantiser.fit(z_train, levels)
            error, bits = distortion(frozen, quantiser, z, validation, scaling), entropy(quantiser.quantise(z))
            tested = stored(frozen, kind, quantiser, splits["test"], scaling) if args.test else " | | "
            print(f"| {name} | {seconds:.0f} | {levels} | {error:.5f} | {bits:.1f} | {tested} |", flush=True)


if __name__ == "__main__":
    main()
