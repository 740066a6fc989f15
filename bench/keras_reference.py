"""How soon does fit() reach the validation loss that the brief's Keras program ends with?

    python -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow     # or: pip install -e .[bench]
    python bench/keras_reference.py --keras-python /tmp/keras/bin/python --out bench/results/keras_reference.md

The program (keras_program.py: 784-128 ReLU-784 sigmoid, Adadelta, binary cross-entropy, batch 256, 50 epochs) runs in a
process of its own; Keras 3 on any backend. Its optimizer='adadelta' now means learning rate .001, which does not train,
so it gets 1.0, the historical default. Ours are the same job, Keras's initialisation included, and the same network
with Adam. Seconds from the start of fitting, validation included, imports not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import reporting  # before torch: it sets GOMP_SPINCOUNT
import torch

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.models import build_model
from ae_pipeline.params import TrainParams
from ae_pipeline.params.options import ModelParams
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.loop import fit

History = list[tuple[float, float]]  # seconds since the start, validation loss
OURS: dict[str, dict[str, Any]] = {
    "fit(), the same job": {"optimizer": "adadelta", "learning_rate": 1.0, "ema": 0.0},
    "fit(), Adam 1e-3": {"optimizer": "adam", "learning_rate": 1e-3},
}


def run_keras(python: Path, splits: dict[str, np.ndarray], epochs: int) -> tuple[str, History]:
    """The program's name and history."""
    found = subprocess.run([python, "-c", "import keras"], capture_output=True, text=True, check=False)
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(
            f"error: {python} cannot import keras ({reason}); install it with `pip install -e .[bench]`, or with "
            "`pip install tensorflow` into another environment and name that one's python with --keras-python"
        )
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder, "data.npz"), Path(folder, "result.json")
        np.savez(data, **{name: pixels.reshape(len(pixels), -1) for name, pixels in splits.items()})
        program = Path(__file__).with_name("keras_program.py")
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([python, program, data, str(epochs), result], check=True, env=quiet)
        values = json.loads(result.read_text(encoding="utf-8"))
    name = f"Keras {values['keras']} on {values['backend']}"
    return name, [(seconds, loss) for seconds, loss in values["history"]]


def run_ours(samples: SampleSet, splits: dict[str, np.ndarray], epochs: int, changed: dict[str, Any]) -> History:
    params = TrainParams(
        latent_size=128,
        loss="bce",
        initialisation="glorot",
        batch_size=256,
        schedule="constant",
        epochs=epochs,
        patience=0,
        device="cpu",
        **changed,
    )
    options = {**ModelParams().options, **reporting.NETWORKS["784-128-784, floats"][2]}
    torch.manual_seed(params.seed)
    model = build_model("dense", samples.spec.shape, params.latent_size, options)
    train, validation = (MemoryRows(splits[name], torch.device("cpu")) for name in ("train", "validation"))
    history: History = []
    start = time.perf_counter()
    fit(
        model,
        train,
        validation,
        params,
        fit_scaling(samples),
        lambda epoch: history.append((time.perf_counter() - start, epoch.validation_loss)),
    )
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--keras-python", type=Path, default=Path(sys.executable), help="interpreter that has Keras 3")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    samples = SampleSet.open(args.prepared / "train")
    splits = {name: SampleSet.open(args.prepared / name).load().pixels for name in ("train", "validation")}
    name, keras = run_keras(args.keras_python, splits, args.epochs)
    histories = {name: keras}
    for ours, changed in OURS.items():
        histories[ours] = run_ours(samples, splits, args.epochs, changed)
    goal_seconds, goal = min(keras, key=lambda entry: entry[1])
    rows = []
    for program, history in histories.items():
        end, last = history[-1]
        reached = next(((number, at) for number, (at, loss) in enumerate(history, 1) if loss <= goal), None)
        cells = (
            [str(reached[0]), f"{reached[1]:.1f}", f"{goal_seconds / reached[1]:.1f}"] if reached else ["never", "", ""]
        )
        rows.append([program, f"{end / len(history):.2f}", f"{last:.4f}", *cells])
    columns = ["program", "seconds per epoch", "last loss", "epochs to goal", "seconds to goal", "times faster"]
    note = f"Goal: the Keras program's best validation loss in {args.epochs} epochs, {goal:.4f}."
    title = f"The brief's Keras program: {samples.rows:,} rows, {torch.get_num_threads()} threads"
    reporting.report(title, [reporting.table(columns, rows)], [note], args.out)


if __name__ == "__main__":
    main()
