"""How much sooner does the default job reach its quality than a straightforward program with the same network?

    python bench/training_quality.py --prepared data/prepared --raw data/raw --out bench/results/training_quality.md

params.yaml's default network, optimizer, batch size and epochs, on the train split: build_codec() as the stage `train`
calls it (reads the split, validates after every epoch, chooses precision by measurement; that it then makes integers of
the network does not count), against the loop of a tutorial: nn.Linear, torchvision's MNIST with ToTensor in a shuffling
DataLoader, float32, a validation after every epoch; its learning rate is constant, as in most tutorials (torch's
default, or that of params.yaml), or follows our schedule. The quality is the validation MSE that both reach: 1% above
the worse of the two best ones. Seconds until then, validation included. Target: at most a third.
"""

import argparse
import math
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training import torchvision_mnist

from ae_pipeline.codec_building import build_codec
from ae_pipeline.params import Params
from ae_pipeline.samples import SampleSet

# Of all steps; fit() has the same.
WARM_UP = 0.02
# Learning rates of the loop; None: that of params.yaml.
LOOPS = [("constant", 1e-3, False), ("constant", None, False), ("cosine with warm-up", None, True)]
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


def straightforward(
    params: Params, loader: DataLoader[Any], validation: Tensor, learning_rate: float, *, cosine: bool
) -> Curve:
    """Seconds and validation MSE after every epoch."""
    torch.manual_seed(params.train.seed)
    model = plain_network(params, validation.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=params.train.weight_decay)
    steps = params.train.epochs * len(loader)

    def factor(step: int) -> float:
        return (
            1.0
            if not cosine
            else min(1.0, (step + 1) / (WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    curve = []
    start = time.perf_counter()
    for _ in range(params.train.epochs):
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
    if args.epochs:
        params = params.model_copy(update={"train": params.train.model_copy(update={"epochs": args.epochs})})
    samples = SampleSet.open(args.prepared / "train")
    train = samples.load().pixels
    held_out = SampleSet.open(args.prepared / "validation")
    loader: DataLoader[Any] = DataLoader(torchvision_mnist(args.raw, train), params.train.batch_size, shuffle=True)
    found, whole, autocast = ours(params, samples, held_out)
    pixels = torch.from_numpy(held_out.load().pixels).flatten(1)
    held_out_rows = pixels.float() / 255
    lines = []
    for name, own_rate, cosine in LOOPS:
        learning_rate = own_rate or params.train.learning_rate
        plain = straightforward(params, loader, held_out_rows, learning_rate, cosine=cosine)
        quality = 1.01 * max(min(mse for _, mse in curve) for curve in (found, plain))
        own, loops = (next(seconds for seconds, mse in curve if mse <= quality) for curve in (found, plain))
        best = min(mse for _, mse in plain)
        cells = [f"{best:.5f}", f"{quality:.5f}", f"{loops:.0f}", f"{own:.0f}", f"{own / loops:.2f}"]
        lines.append([f"{name}, {learning_rate:g}", *cells, f"{plain[-1][0]:.0f}"])
    columns = [
        "learning rate of the loop",
        "its best validation MSE",
        "both reach",
        "the loop, seconds",
        "build_codec(), seconds",
        "of the loop's",
        "all epochs of the loop, seconds",
    ]
    note = (
        f"build_codec(), {'bfloat16' if autocast else 'float32'}: best validation MSE "
        f"{min(mse for _, mse in found):.5f}, all epochs in {found[-1][0]:.0f} seconds, the codec in {whole:.0f}."
    )
    title = f"Time to quality: {len(train):,} rows, {params.train.epochs} epochs, {torch.get_num_threads()} threads"
    reporting.report(title, [reporting.table(columns, lines)], [note], args.out)


if __name__ == "__main__":
    main()
