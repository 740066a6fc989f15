"""How many hidden units, when does over-fitting begin, and what does each regulariser give?

    python bench/regularisation.py --prepared data/prepared --fashion fashion/prepared --out bench/results/regular
    python bench/regularisation.py --steps 50 --seeds 1 --only "hidden units"    # does it run?

Three tables for MNIST and, if a folder with its prepared splits is given, for Fashion-MNIST:

- hidden units: the brief's 784-H-784 (relu) with H from 16 to 512, on all train rows;
- rows: three sizes of params.yaml's network on 500 to all train rows;
- regularisers: L1, L2, weight decay, dropout, denoising against none, on 2,000 and on all train rows.

Every training has the same number of steps (at most 200 epochs), with cosine schedule and without patience. MSE of the
network alone, not quantised, on pixels in [0, 1]. The epoch to keep is chosen on the validation split; what stands in
the tables is measured on the test split. `gap` is test MSE less train MSE. `last epoch` is what the test MSE would
be without early stopping: the difference to `test MSE` is what that gives. Mean over seeds, with half of the 95%
interval (Student's t). Trainings that stand in OUT.json already are not done again, so it can be interrupted.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.experiments.sweep.results import estimate
from ae_pipeline.files import write_json
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import Params
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.loop import fit

ALL = 10**9
CPU = torch.device("cpu")
# Rows that an error is measured on.
MEASURED = 10_000
MOST_EPOCHS = 200
# The default when these tables were made.
THEN = {"hidden_sizes": [512, 256], "activation": "silu", "hidden_norm": "none"}
PLAIN = {"latent_activation": "relu", "latent_norm": "none", "hidden_sizes": []}
# name: (options of the dense model, options of train)
REGULARISERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "L1 of the latents, 1e-4": ({}, {"l1_latent": 1e-4}),
    "L1 of the latents, 1e-3": ({}, {"l1_latent": 1e-3}),
    "L2, 1e-6 (adam)": ({}, {"optimizer": "adam", "weight_decay": 1e-6}),
    "L2, 1e-5 (adam)": ({}, {"optimizer": "adam", "weight_decay": 1e-5}),
    "weight decay 0.01": ({}, {"weight_decay": 0.01}),
    "weight decay 0.1": ({}, {"weight_decay": 0.1}),
    "dropout 0.1": ({"dropout": 0.1}, {}),
    "dropout 0.3": ({"dropout": 0.3}, {}),
    "denoising, standard deviation 0.1": ({}, {"noise_std": 0.1}),
    "denoising, standard deviation 0.3": ({}, {"noise_std": 0.3}),
}


def settings() -> Iterator[tuple[str, str, int, dict[str, Any], dict[str, Any]]]:
    """Table, name in it, train rows, options of the model, options of train."""
    for hidden in (16, 32, 64, 128, 256, 512):
        yield "hidden units", f"784-{hidden}-784", ALL, PLAIN, {"latent_size": hidden}
    for sizes in ([64], [512, 256], [1024, 512]):
        for rows in (500, 2000, 10_000, ALL):
            yield "rows", f"hidden {sizes}", rows, {"hidden_sizes": sizes}, {}
    for name, (model, train) in REGULARISERS.items():
        for rows in (2000, ALL):
            yield "regularisers", name, rows, model, train


@torch.inference_mode()
def error(model: Autoencoder, rows: MemoryRows, scaling: Scaling) -> float:
    model.eval()
    total = 0.0
    for pixels in rows.in_order(2048):
        x = scale_pixels(pixels.float(), scaling)
        total += float((model.decode(model.encode(x)) - x).square().sum())
    return total / rows.rows / x[0].numel()


class Splits:
    """Pixels of the three splits, and how to scale them."""

    def __init__(self, folder: Path):
        opened = {name: SampleSet.open(folder / name) for name in ("train", "validation", "test")}
        self.scaling = fit_scaling(opened["train"])
        self.spec = opened["train"].spec
        self.pixels = {name: split.load().pixels for name, split in opened.items()}

    def rows(self, name: str, most: int) -> MemoryRows:
        return MemoryRows(self.pixels[name][:most].copy(), CPU)


def train(splits: Splits, most: int, steps: int, seed: int, model: dict, options: dict) -> dict[str, float]:
    rows = splits.rows("train", most)
    base = {"batch_size": 128, "learning_rate": 4e-3, "ema": 0.0, "patience": 0, "seed": seed, "device": "cpu"}
    batches = -(-rows.rows // base["batch_size"])
    epochs = max(1, min(MOST_EPOCHS, steps // batches))
    model = {**THEN, **model}
    params = Params.model_validate({"model": {"dense": model}, "train": {**base, "epochs": epochs, **options}})
    torch.manual_seed(seed)
    network = build_model("dense", splits.spec.shape, params.train.latent_size, params.model.options)
    test, seen = splits.rows("test", MEASURED), splits.rows("train", min(most, MEASURED))
    # With few train rows there are hundreds of epochs, and a validation after each.
    validation = splits.rows("validation", max(2000, rows.rows // 9))
    last: list[float] = []

    def note(epoch: Any) -> None:
        if epoch.epoch == epochs:
            last.append(error(network, test, splits.scaling))

    start = time.process_time()
    fitted = fit(network, rows, validation, params.train, splits.scaling, note)
    found = {"train": error(network, seen, splits.scaling), "test": error(network, test, splits.scaling)}
    return {
        **found,
        "gap": found["test"] - found["train"],
        "last": last[0],
        "best_epoch": fitted.best_epoch,
        "epochs": epochs,
        "rows": rows.rows,
        "cpu_s": time.process_time() - start,
    }


def tables(runs: list[dict[str, Any]]) -> list[str]:
    groups: dict[tuple[str, str], dict[tuple[str, int], list[dict[str, Any]]]] = {}
    for run in runs:
        group = groups.setdefault((run["data"], run["table"]), {})
        group.setdefault((run["name"], run["rows"]), []).append(run)
    columns = ["setting", "train rows", "train MSE", "test MSE", "gap", "last epoch", "best epoch", "seeds", "CPU-s"]
    found = []
    for (data, title), group in groups.items():
        lines = []
        for (name, rows), some in group.items():
            cells = [name, f"{rows:,}", *(_pm([run[key] for run in some]) for key in ("train", "test", "gap", "last"))]
            epochs = sum(run["best_epoch"] for run in some) / len(some)
            seconds = sum(run["cpu_s"] for run in some) / len(some)
            lines.append([*cells, f"{epochs:.0f} of {some[0]['epochs']}", len(some), f"{seconds:.0f}"])
        found.append(f"### {data}: {title}\n\n{reporting.table(columns, lines)}")
    return found


def _pm(values: list[float]) -> str:
    found = estimate(values)
    return f"{found.mean:.5f}" + ("" if found.half is None else f" ± {found.half:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"), help="MNIST, or any 28x28 images")
    parser.add_argument("--fashion", type=Path, help="the same of Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=8000, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="the table with this in its name")
    parser.add_argument("--out", type=Path, help="OUT.md and OUT.json")
    args = parser.parse_args()
    out = args.out.with_name(f"{args.out.name}.json") if args.out else None
    runs: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else []
    done = {(run["data"], run["table"], run["name"], run["asked"], run["steps"], run["seed"]) for run in runs}
    for data, folder in (("MNIST", args.prepared), ("Fashion-MNIST", args.fashion)):
        if folder is None:
            continue
        splits = Splits(folder)
        wanted = [item for item in settings() if args.only in item[0]]
        for seed in range(args.seeds):
            for table, name, rows, model, options in wanted:
                key = {"data": data, "table": table, "name": name, "asked": rows, "steps": args.steps, "seed": seed}
                if tuple(key.values()) in done:
                    continue
                found = train(splits, rows, args.steps, seed, model, options)
                runs.append({**key, **found})
                print(f"{data}, {table}, {name}, {found['rows']:,} rows, seed {seed}: {found['test']:.5f}", flush=True)
                if out is not None:
                    write_json(out, runs)
    shown = [run for run in runs if run["steps"] == args.steps and args.only in run["table"]]
    title = f"Regularisation: {args.steps:,} steps, {args.seeds} seeds, MSE of the network alone"
    notes = ["Columns are explained in bench/regularisation.py. ± is half of the 95% interval of the mean over seeds."]
    reporting.report(title, tables(shown), notes, args.out.with_name(f"{args.out.name}.md") if args.out else None)


if __name__ == "__main__":
    main()
