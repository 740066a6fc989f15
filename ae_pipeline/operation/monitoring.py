"""Drift of the batches that were encoded with the champion, as a series of metrics in MLflow.

One MLflow run per champion and store, in an experiment of its own beside the trainings; the step of a metric is the
snapshot of the growing store. A batch counts as done when it has been reported: a run that was killed before told
nobody.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ae_pipeline.errors import TrackingError, without_secrets
from ae_pipeline.evaluation.drift.measure import Drift, measure_store, read_errors
from ae_pipeline.evaluation.drift.reference import REFERENCE_NAME, DriftReference, read_reference
from ae_pipeline.operation.champion.lost import MONITOR_TAG
from ae_pipeline.operation.champion.registered_model import RegisteredModel, find_model
from ae_pipeline.operation.inbox.run import growing_store
from ae_pipeline.operation.tracking.connection import connect, experiment_id, find_run
from ae_pipeline.operation.tracking.orphans import claim_run, close_orphans, process_tags
from ae_pipeline.params import Params
from ae_pipeline.store.care.snapshots import added_shards
from ae_pipeline.store.latent_store import LatentStore

STORE_TAG = "ae_pipeline.store"
"""A growing store's first part, which tells it from one that was begun in its place."""
REPORTED_TAG = "ae_pipeline.reported"
_SERIES = ("error_drift", "latent_drift", "error_threshold", "latent_threshold", "rows")


@dataclass(frozen=True)
class Monitored:
    """What `monitor_batches` found. `version` is None while there is no champion, `store` while nothing is encoded.

    `new` has the drift of each new snapshot of the growing store.
    """

    model: str
    version: str | None = None
    store: Path | None = None
    uri: str = ""
    experiment_id: str = ""
    run_id: str = ""
    new: dict[int, Drift] = field(default_factory=dict)
    reference: DriftReference | None = None

    @property
    def drifted(self) -> dict[int, Drift]:
        """New batches beyond a threshold."""
        return {snapshot: drift for snapshot, drift in self.new.items() if drift.drifted}


def monitor_batches(params: Params, root: Path) -> Monitored:
    """Measure every batch of the champion's growing store that has not been reported yet. Raises TrackingError.

    Whoever has told people calls `mark_reported`.
    """
    name = params.registered_model
    with find_model(params, root, "") as model:
        uri, version = without_secrets(model.uri), model.champion
        if version is None:
            return Monitored(name, uri=uri)
        champion = model.version(version)
        path = growing_store(params, root, champion.tags["codec_fingerprint"])
        if not path.exists():
            return Monitored(name, version, uri=uri)
        reference = _reference(model, champion)
        monitored = f"{params.tracking.experiment}-monitor"
        experiment = experiment_id(model.client, monitored, params, root, model.uri)
        store = LatentStore.open(path)
        run_id = _run(model.client, experiment, champion, store)
        close_orphans(model.client, experiment)
        reported = int(model.client.get_run(run_id).data.tags.get(REPORTED_TAG, 0))
        new = {}
        for number in range(reported + 1, store.manifest.snapshot + 1):
            if shards := added_shards(path, number)[1]:  # a repair and a compaction add none
                drift = measure_store(store, reference, shards)
                _log_series(model.client, run_id, number, drift)
                new[number] = drift
        model.client.set_terminated(run_id)
        return Monitored(name, version, path, uri, experiment, run_id, new, reference)


def mark_reported(params: Params, root: Path, found: Monitored) -> None:
    """People know of these batches: the next run starts after them."""
    with connect(params, root, "") as (client, _):
        client.set_tag(found.run_id, REPORTED_TAG, str(max(found.new)))


def draw_batch(path: Path, store: Path, snapshot: int, drift: Drift, reference: DriftReference) -> Path:
    """A picture (PNG) of one batch beside what was expected."""
    from ae_pipeline.evaluation.pictures import draw_drift  # matplotlib takes half a second

    draw_drift(reference, read_errors(*added_shards(store, snapshot)), drift).savefig(path)
    return path


def _log_series(client: Any, run_id: str, snapshot: int, drift: Drift) -> None:
    logged = {metric.step for metric in client.get_metric_history(run_id, _SERIES[-1])}
    for name in _SERIES if snapshot not in logged else ():  # the last one says that all are there
        client.log_metric(run_id, name, float(getattr(drift, name)), step=snapshot)


def _reference(model: RegisteredModel, champion: Any) -> DriftReference:
    run = f"the run of {champion.name} version {champion.version}"
    if find_run(model.client, champion.run_id) is None:
        raise TrackingError(
            f"{run} was deleted, and {REFERENCE_NAME} with it; if its training is in this folder, "
            "`ae-pipeline publish` makes another run and version; promote that version, or another one that has a run: "
            "`ae-pipeline promote VERSION --why ...`"
        )
    if REFERENCE_NAME not in [item.path for item in model.client.list_artifacts(champion.run_id)]:
        raise TrackingError(
            f"{run} has no {REFERENCE_NAME} (an older ae-pipeline made none); if its training is in this folder, run "
            "`dvc repro evaluate` and `ae-pipeline publish`, otherwise promote another version: "
            "`ae-pipeline promote VERSION --why ...`"
        )
    with tempfile.TemporaryDirectory() as folder:
        found = model.client.download_artifacts(champion.run_id, REFERENCE_NAME, folder)
        return read_reference(Path(found), champion.tags["codec_fingerprint"])


def _run(client: Any, experiment: str, champion: Any, store: LatentStore) -> str:
    """The run that holds the series of this champion and store; made when there is none."""
    identity = f"{champion.name}/{champion.version}"
    begins = store.manifest.parts[0].joined[0].name  # also where that was joined with others since
    for run in client.search_runs([experiment], f"tags.`{MONITOR_TAG}` = '{identity}'"):
        if run.data.tags.get(STORE_TAG, begins) == begins:  # runs of older versions do not say of which store they are
            claim_run(client, run.info.run_id)
            client.set_tag(run.info.run_id, STORE_TAG, begins)
            return str(run.info.run_id)
    tags = {
        MONITOR_TAG: identity,
        STORE_TAG: begins,
        **process_tags(),
        "codec_fingerprint": champion.tags["codec_fingerprint"],
        "mlflow.note.content": f"Drift of batches encoded with {identity}; a step is a snapshot of the growing store.",
    }
    run = client.create_run(experiment, tags=tags, run_name=f"{champion.name}-v{champion.version}")
    return str(run.info.run_id)
