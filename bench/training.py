"""How much faster is an epoch of fit() than one of an ordinary PyTorch program?

    python bench/training.py --prepared data/prepared --out bench/results/training.md

The reference network (784-128 ReLU-784 sigmoid, Adadelta with learning rate 1.0, binary cross-entropy, batch 256) on
the train split: fit() against the loop of a tutorial (torchvision's MNIST data set with ToTensor, and a leaner one that
makes a float tensor from a row of the array; a shuffling DataLoader with 0 and with 2 workers) and, for fairness,
against the same loop on one float tensor in memory, where only the overhead of a step is left to save. Also
params.yaml's default network with fit(). Seconds of the fastest epoch of each, without validation: in rounds over all
programs, because the machine's speed drifts, and the fastest, because noise only adds. Target: at least 5 times faster
than the DataLoader loop.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.models import build_model
from ae_pipeline.params import TrainParams
from ae_pipeline.params.options import ModelParams
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.loop import fit

REFERENCE = {
    "loss": "bce",
    "optimizer": "adadelta",
    "learning_rate": 1.0,
    "schedule": "constant",
    "ema": 0.0,
    "latent_size": 128,
    "batch_size": 256,
}


class Images(Dataset[torch.Tensor]):
    """What torchvision's ToTensor makes of one image at a time, without its detour over PIL."""

    def __init__(self, images: Any):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.images[index]).float().div(255).flatten()


def torchvision_mnist(raw: Path, pixels: Any) -> MNIST:
    """torchvision's own data set, made to serve these rows; it returns an image and its label."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "MNIST", "raw")
        folder.mkdir(parents=True)
        for file in raw.iterdir():
            (folder / file.name).symlink_to(file.resolve())
        data_set = MNIST(root, train=True, transform=ToTensor())
    data_set.data = torch.from_numpy(pixels)
    return data_set


def loop(epochs: int, batches: Callable[[], Iterable[Any]], size: int) -> list[float]:
    """Seconds of each epoch of the plain program."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, size), nn.Sigmoid())
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    criterion = nn.BCELoss()
    times = []
    for _ in range(epochs):
        start = time.perf_counter()
        total = 0.0
        for batch in batches():
            x = (batch[0] if isinstance(batch, list) else batch).flatten(1)
            optimizer.zero_grad()
            loss = criterion(model(x), x)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        times.append(time.perf_counter() - start)
    return times


def ours(epochs: int, samples: SampleSet, pixels: Any, options: dict[str, Any], changed: dict[str, Any]) -> list[float]:
    """Seconds of each epoch of fit(), which validates on a few rows only."""
    params = TrainParams(epochs=epochs, patience=0, device="cpu", **changed)
    torch.manual_seed(0)
    model = build_model("dense", samples.spec.shape, params.latent_size, {**ModelParams().options, **options})
    cpu = torch.device("cpu")
    ends = [time.perf_counter()]
    rows, few = MemoryRows(pixels, cpu), MemoryRows(pixels[:256].copy(), cpu)
    fit(model, rows, few, params, fit_scaling(samples), lambda _: ends.append(time.perf_counter()))
    return [end - start for start, end in pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--epochs", type=int, default=2, help="measured ones in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    samples = SampleSet.open(args.prepared / "train")
    pixels = samples.load().pixels
    values = torch.from_numpy(pixels).float().div(255).flatten(1)
    epochs = args.epochs + 1
    options = reporting.NETWORKS["784-128-784, floats"][2]

    pictures = torchvision_mnist(args.raw, pixels)

    def loader(images: Dataset[Any], workers: int) -> list[float]:
        data = DataLoader(images, batch_size=256, shuffle=True, num_workers=workers)
        return loop(epochs, lambda: data, samples.spec.size)

    def in_memory() -> Iterable[torch.Tensor]:
        return (values[chosen] for chosen in torch.randperm(len(values)).split(256))

    jobs: list[tuple[str, Callable[[], list[float]]]] = [
        ("784-128-784: fit()", lambda: ours(epochs, samples, pixels, options, REFERENCE)),
        ("the same: plain loop, float rows, DataLoader, 0 workers", lambda: loader(Images(pixels), 0)),
        ("the same: plain loop, float rows, DataLoader, 2 workers", lambda: loader(Images(pixels), 2)),
        ("the same: plain loop, torchvision's MNIST, DataLoader, 0 workers", lambda: loader(pictures, 0)),
        ("the same: plain loop, torchvision's MNIST, DataLoader, 2 workers", lambda: loader(pictures, 2)),
        ("the same: plain loop, one float tensor in memory", lambda: loop(epochs, in_memory, samples.spec.size)),
        ("params.yaml's default network: fit()", lambda: ours(epochs, samples, pixels, {}, {})),
    ]
    times: dict[str, list[float]] = {name: [] for name, _ in jobs}
    for _ in range(args.rounds):
        for name, job in jobs:
            times[name] += job()[1:]
    fastest = [min(seconds) for seconds in times.values()]
    rows = [[name, f"{least:.2f}", f"{least / fastest[0]:.1f}"] for name, least in zip(times, fastest, strict=True)]
    count = args.epochs * args.rounds
    title = f"Training: {samples.rows:,} rows, {torch.get_num_threads()} threads, fastest of {count} epochs"
    reporting.report(title, [reporting.table(["program", "seconds per epoch", "against fit()"], rows)], [], args.out)


if __name__ == "__main__":
    main()
