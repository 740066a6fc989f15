"""What a context codec says of its training."""

from collections.abc import Sequence
from typing import Any

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.params import Params
from ae_pipeline.provenance import library_versions, machine
from ae_pipeline.training.loop import Epoch


def origin(
    train: SampleSet, params: Params, git: dict[str, Any], history: Sequence[Epoch], *, epochs: int, threads: int
) -> dict[str, Any]:
    """The provenance for codec.json: data, code, settings, and how it went in `epochs` on `threads` of a CPU."""
    return {
        "data": {"source": params.source.name, "digest": train.digest, "rows": train.rows},
        "git": git,
        "params": params.used("source", "prepare", "codec", "train"),
        "seed": params.train.seed,
        "metrics": {
            "epochs": epochs,
            "best_epoch": epochs,
            "best_train_loss": history[-1].train_loss,
            "best_validation_loss": history[-1].validation_loss,
        },
        "versions": library_versions(),
        "machine": {**machine(), "device": "cpu", "threads": threads},
    }
