"""Champion, challenger and the drift of the last batch, as MLflow knows them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ae_pipeline.operation.champion.history import DONE
from ae_pipeline.operation.champion.lost import MONITOR_TAG
from ae_pipeline.operation.champion.registered_model import RegisteredModel, find_model
from ae_pipeline.operation.monitoring import REPORTED_TAG
from ae_pipeline.params import Params

# A page is looked at by somebody who waits.
_PATIENCE_S = 5.0
_HURRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "PGCONNECT_TIMEOUT": "5"}
_MEASURES = ("error_drift", "error_threshold", "latent_drift", "latent_threshold")


def ask_models(params: Params, root: Path) -> dict[str, Any]:
    """`model`, its `champion` and `challenger` (null: none yet), and the champion's `drift`. Raises TrackingError."""
    with _hurried(), find_model(params, root, "status", _PATIENCE_S) as model:
        champion = model.champion
        challenger = model.challenger if model.has_challenger else None
        return {
            "model": model.name,
            "champion": None if champion is None else _version(model, champion) | _since(model),
            "challenger": None if challenger is None else _version(model, challenger),
            "drift": None if champion is None else _drift(params, model, champion),
        }


def _version(model: RegisteredModel, number: str) -> dict[str, Any]:
    """Its numbers are those of its own test split, as `evaluate` measured them."""
    version = model.versions.get(number)
    tags = version.tags if version else {}
    return {
        "version": number,
        "codec": tags.get("codec_fingerprint"),
        "mse": _number(tags.get("mse")),
        "bits_per_row": _number(tags.get("bits_per_row")),
    }


def _since(model: RegisteredModel) -> dict[str, Any]:
    last = next(entry for entry in reversed(model.entries) if entry.state == DONE)
    return {"since": last.at, "by": last.by, "how": last.action, "why": last.why}


def _drift(params: Params, model: RegisteredModel, champion: str) -> dict[str, Any] | None:
    """The last batch that was measured; null: none yet. The step of a metric is a snapshot of the growing store."""
    experiment = model.client.get_experiment_by_name(f"{params.tracking.experiment}-monitor")
    if experiment is None:
        return None
    wanted = f"tags.`{MONITOR_TAG}` = '{model.name}/{champion}'"
    runs = model.client.search_runs([experiment.experiment_id], wanted, max_results=1)  # the newest is first
    if not runs or "rows" not in runs[0].data.metrics:
        return None
    values = {name: runs[0].data.metrics[name] for name in _MEASURES}
    drifted = any(values[f"{what}_drift"] > values[f"{what}_threshold"] for what in ("error", "latent"))
    return {"reported_snapshot": int(runs[0].data.tags.get(REPORTED_TAG, 0)), "drifted": drifted, **values}


def _number(tag: str | None) -> float | None:
    try:
        return None if tag is None else float(tag)
    except ValueError:  # people can edit tags
        return None


@contextmanager
def _hurried() -> Iterator[None]:
    """Have MLflow's client give up soon, unless somebody set its variables."""
    own = {name: value for name, value in _HURRY.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
