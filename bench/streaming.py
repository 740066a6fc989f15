"""What does it cost to stream the train split through a shuffle buffer instead of keeping it in memory?

    python bench/streaming.py --out bench/results/streaming_<machine>_<date>.md

fit() with params.yaml's network on MNIST (data/prepared), rows in memory and streamed, one thread: the fastest epoch of
each in rounds, wall time and CPU time (the reader's thread included); then the validation loss of the best epoch of
whole trainings of `--epochs` epochs, for each seed. At last the peak memory of processes that train for an epoch on as
many rows (tiled) as given by `--sizes`, with a small network.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import reporting
import torch

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.models import build_model
from ae_pipeline.params import Params, load_params
from ae_pipeline.params.base import replaced
from ae_pipeline.training.batches import MemoryRows, Rows, fit_scaling
from ae_pipeline.training.loop import fit
from ae_pipeline.training.streaming import open_rows, plan_rows

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


def opened(split: SampleSet, params: Params, data: str, memory: float) -> Rows:
    train = params.train.model_copy(update={"data": data, "memory": memory})
    return open_rows(split, plan_rows(split, split, train, CPU), CPU)


def trained(rows: Rows, validation: Rows, params: Params, split: SampleSet) -> tuple[list[tuple[float, float]], float]:
    """Seconds, wall and CPU, of each epoch, and the best validation loss."""
    torch.manual_seed(params.train.seed)
    model = build_model(params.model.name, split.spec.shape, params.train.latent_size, params.model.options)
    marks = [(time.perf_counter(), time.process_time())]

    def note(_: Any) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    fitted = fit(model, rows, validation, params.train, fit_scaling(split), note)
    spans = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)]
    return spans, fitted.best.validation_loss


def speed(train: SampleSet, params: Params, memory: float, rounds: int) -> str:
    short = replaced(params, {"train.epochs": 2})
    few = MemoryRows(train.load().pixels[:256].copy(), CPU)
    times: dict[str, list[tuple[float, float]]] = {"memory": [], "stream": []}
    for _ in range(rounds):
        for data in times:
            times[data] += trained(opened(train, params, data, memory), few, short, train)[0][1:]
    fastest = {data: [min(values) for values in zip(*found, strict=True)] for data, found in times.items()}
    rows = []
    for data, (wall, cpu) in fastest.items():
        shares = [f"{fastest['memory'][place] / value:.2f}" for place, value in enumerate((wall, cpu))]
        rows.append([data, f"{wall:.2f}", shares[0], f"{cpu:.2f}", shares[1]])
    return reporting.table(["rows", "seconds per epoch", "speed", "CPU seconds", "speed by CPU"], rows)


def losses(train: SampleSet, validation: SampleSet, params: Params, memory: float, seeds: int) -> str:
    held_out = MemoryRows(validation.load().pixels, CPU)
    rows = []
    for seed in range(seeds):
        seeded = replaced(params, {"train.seed": seed})
        found = [
            trained(opened(train, params, data, memory), held_out, seeded, train)[1] for data in ("memory", "stream")
        ]
        rows.append([seed, *(f"{loss:.6f}" for loss in found), f"{found[1] / found[0]:.4f}"])
    return reporting.table(["seed", "validation loss, memory", "streamed", "ratio"], rows)


def peaks(prepared: Path, sizes: list[int], memory: float) -> str:
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            made = reporting.tile(prepared / "train", Path(folder, "tiled"), size)
            found = []
            for data in ("memory", "stream"):
                command = [sys.executable, __file__, "--one", str(Path(folder, "tiled")), data, str(memory)]
                found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        rows.append([f"{made:,}", f"{made * 784 / 2**20:,.0f}", *found])
    return reporting.table(["rows", "MiB of rows", "peak MiB, memory", "peak MiB, streamed"], rows)


def one(folder: Path, data: str, memory: float) -> None:
    """Train for an epoch in this process and print how much the peak of its memory grew by that, in MiB."""
    import resource

    samples = SampleSet.open(folder)
    params = load_params(ROOT / "params.yaml")
    changed = {"model.name": "dense", "model.dense.hidden_sizes": [16], "train.latent_size": 8, "train.epochs": 1}
    params = replaced(params, {**changed, "train.batch_size": 1024, "train.autocast": False, "train.ema": 0.0})
    few = MemoryRows(next(iter(samples.all_blocks(256))).pixels.copy(), CPU)
    trained(few, few, params, samples)  # what torch and Arrow take anyway
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trained(opened(samples, params, data, memory), few, params, samples)
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--memory", type=float, default=0.01, help="GiB of the shuffle buffer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.one:
        one(Path(args.one[0]), args.one[1], float(args.one[2]))
        return
    train, validation = (SampleSet.open(args.prepared / name) for name in ("train", "validation"))
    params = load_params(ROOT / "params.yaml")
    params = replaced(params, {"train.epochs": args.epochs, "train.autocast": False, "train.device": "cpu"})
    tables = [
        speed(train, params, args.memory, args.rounds),
        losses(train, validation, params, args.memory, args.seeds),
        peaks(args.prepared, args.sizes, args.memory) if args.sizes else "",
    ]
    buffer = plan_rows(train, train, params.train.model_copy(update={"data": "stream", "memory": args.memory}), CPU)
    notes = [
        f"Shuffle buffer: {buffer.buffer_rows:,} of {train.rows:,} rows. Speed: of {args.rounds} epochs the fastest. "
        f"Losses: the best of {args.epochs} epochs. Peaks: by how much one epoch raised that of the process.",
        f"`python {' '.join(['bench/streaming.py', *sys.argv[1:]])}`",
    ]
    reporting.report("Streamed rows against rows in memory", [table for table in tables if table], notes, args.out)


if __name__ == "__main__":
    main()
