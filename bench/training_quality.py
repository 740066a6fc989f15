"""How much sooner does the default job reach its quality than a straightforward program with the same network?

    python bench/training_quality.py --prepared data/prepared --raw data/raw --out bench/results/training_quality.md

params.yaml's default network and optimizer on the train split: build_codec() as the stage `train` calls it (reads the
split, validates after every epoch, chooses precision by measurement; that it then makes integers of the network does
not count), against the loop of a tutorial: nn.Linear, torchvision's MNIST with ToTensor in a shuffling DataLoader,
float32, a validation after every epoch. Its learning rate is torch's default and constant, as in most tutorials, or
falls along a cosine after a warm-up, from our rate. The quality is the validation MSE that both reach: 1% above the
worse of the two best ones. Seconds until then, validation included. Target: at most a third.
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training import torchvision_mnist

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import Params
from ae_pipeline.training.build import build_codec

# A share of all steps; fit() has the same.
WARM_UP = 0.02
OURS = Params().train


@dataclass(frozen=True)
class Loop:
    """How a tutorial might train."""

    learning_rate: float
    batch_size: int
    epochs: int
    cosine: bool

    def describe(self) -> str:
        shape = "cosine with warm-up" if self.cosine else "constant"
        return f"{self.epochs} epochs, batches of {self.batch_size}, {shape}, {self.learning_rate:g}"


LOOPS = [
    Loop(1e-3, OURS.batch_size, OURS.epochs, cosine=False),
    Loop(OURS.learning_rate, OURS.batch_size, OURS.epochs, cosine=True),
]
Curve = list[tuple[float, float]]


def plain_network(params: Params, values: int) -> nn.Sequential:
    """The default of `dense` (relu, batch-normalised hidden layers and latents, sigmoid) in torch's own layers."""
    sizes = [values, *params.model.dense.hidden_sizes, params.train.latent_size]

    def stack(sizes: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
        return layers[:-2]

    norm = nn.BatchNorm1d(params.train.latent_size, affine=False)
    return nn.Sequential(*stack(sizes), norm, *stack(sizes[::-1]), nn.Sigmoid())


def straightforward(params: Params, data: Any, validation: Tensor, loop: Loop) -> Curve:
    """Seconds and validation MSE after every epoch."""
    loader: DataLoader[Any] = DataLoader(data, loop.batch_size, shuffle=True)
    torch.manual_seed(params.train.seed)
    model = plain_network(params, validation.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), loop.learning_rate, weight_decay=params.train.weight_decay)
    steps = loop.epochs * len(loader)

    def factor(step: int) -> float:
        return (
            1.0
            if not loop.cosine
            else min(1.0, (step + 1) / (WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    curve = []
    start = time.perf_counter()
    for _ in range(loop.epochs):
        model.train()
        for images, _labels in loader:
            x = images.flatten(1)
            loss = nn.functional.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            errors = [nn.functional.mse_loss(model(some), some) * len(some) for some in validation.split(1000)]
        curve.append((time.perf_counter() - start, float(sum(errors)) / len(validation)))
    return curve


def ours(params: Params, train: SampleSet, validation: SampleSet) -> tuple[Curve, float, bool]:
    """The same of build_codec(), seconds until the codec is there, and whether bfloat16 was chosen."""
    params = params.model_copy(update={"train": params.train.model_copy(update={"device": "cpu"})})
    curve: Curve = []
    with tempfile.TemporaryDirectory() as work:
        start = time.perf_counter()
        fitted = build_codec(
            train,
            validation,
            params,
            Path(work) / "codec",
            {},
            lambda epoch: curve.append((time.perf_counter() - start, epoch.validation_loss)),
        )[1]
        return curve, time.perf_counter() - start, fitted.precision.autocast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--epochs", type=int, help="fewer, to see whether it runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    params = Params()
    loops = LOOPS
    if args.epochs:
        params = params.model_copy(update={"train": params.train.model_copy(update={"epochs": args.epochs})})
        loops = [replace(loop, epochs=args.epochs) for loop in loops]
    samples = SampleSet.open(args.prepared / "train")
    train = samples.load().pixels
    held_out = SampleSet.open(args.prepared / "validation")
    data = torchvision_mnist(args.raw, train)
    found, whole, autocast = ours(params, samples, held_out)
    pixels = torch.from_numpy(held_out.load().pixels).flatten(1)
    held_out_rows = pixels.float() / 255
    lines = []
    for loop in loops:
        plain = straightforward(params, data, held_out_rows, loop)
        quality = 1.01 * max(min(mse for _, mse in curve) for curve in (found, plain))
        own, its = (next(seconds for seconds, mse in curve if mse <= quality) for curve in (found, plain))
        best = min(mse for _, mse in plain)
        cells = [f"{best:.5f}", f"{quality:.5f}", f"{its:.0f}", f"{own:.0f}", f"{own / its:.2f}"]
        lines.append([loop.describe(), *cells, f"{plain[-1][0]:.0f}"])
    columns = [
        "the loop",
        "its best validation MSE",
        "both reach",
        "it takes, seconds",
        "build_codec(), seconds",
        "of its time",
        "all of its epochs, seconds",
    ]
    note = (
        f"build_codec(), {params.train.epochs} epochs, batches of {params.train.batch_size}, "
        f"{'bfloat16' if autocast else 'float32'}: best validation MSE "
        f"{min(mse for _, mse in found):.5f}, all epochs in {found[-1][0]:.0f} seconds, the codec in {whole:.0f}."
    )
    title = f"Time to quality: {len(train):,} rows, {torch.get_num_threads()} threads"
    reporting.report(title, [reporting.table(columns, lines)], [note], args.out)


if __name__ == "__main__":
    main()
