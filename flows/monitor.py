"""Flow `monitor`: are new batches still like the data that the champion was trained on?

By hand: `python -m flows.monitor [--on-drift warn] [--trigger-rebuild]`
"""

import tempfile
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

from ae_pipeline.evaluation.drift.measure import Drift
from ae_pipeline.operation.monitoring import Monitored, draw_batch, mark_reported, monitor_batches
from ae_pipeline.params import Params, load_params
from flows import alerts, artifacts
from flows.plain_errors import explain_parameters, run_by_hand
from flows.run_records import begin

REBUILD = "rebuild/nightly"
_HALF_AN_HOUR = 1800


@flow(
    name="monitor",
    timeout_seconds=_HALF_AN_HOUR,
    persist_result=False,
    result_serializer="json",
    on_completion=[alerts.tell],
    on_failure=[alerts.tell],
    on_crashed=[explain_parameters, alerts.tell],
)
def monitor(workspace: Path = Path(), on_drift: Literal["fail", "warn"] = "fail", trigger_rebuild: bool = False) -> Any:
    """Measure the batches that were encoded since the last time.

    Args:
        workspace: The checkout: the folder with params.yaml.
        on_drift: End as Failed, or as Completed with a warning, when a batch is beyond its threshold.
        trigger_rebuild: Also start the deployment rebuild/nightly then.

    """
    begin()
    logger = get_run_logger()
    params = load_params(workspace / "params.yaml")
    found = _measure(params, workspace)
    if found.version is None:
        return Completed(name="Skipped", message=f"{found.model} has no champion yet; promote one first")
    if not found.new:
        return Completed(message=f"no new batch was encoded with {found.model} version {found.version}")
    _show(found)
    if not found.drifted:
        mark_reported(params, workspace, found)
        return Completed(message=f"{len(found.new)} new batch(es), none has drifted")
    message = "; ".join(f"snapshot {number}: {drift.describe()}" for number, drift in found.drifted.items())
    logger.warning(message)
    alerts.note(alerts.DRIFTED, message)
    if trigger_rebuild:
        message += f". {_start_rebuild()}"
    mark_reported(params, workspace, found)
    return Failed(message=message) if on_drift == "fail" else Completed(name="Drifted", message=message)


@task(
    name="measure drift",
    task_run_name="measure drift",
    cache_policy=NO_CACHE,
    persist_result=False,
    result_serializer="json",
)
def _measure(params: Params, workspace: Path) -> Monitored:
    return monitor_batches(params, workspace)


def _start_rebuild() -> str:
    try:
        run = run_deployment(name=REBUILD, timeout=0)
    except ObjectNotFound:
        return f"There is no deployment {REBUILD} to start; run `prefect deploy --all`, or `dvc repro` by hand"
    return f"Started {REBUILD} as {run.name}"  # type: ignore[union-attr]


def _show(found: Monitored) -> None:
    rows = [_row(number, drift) for number, drift in found.new.items()]
    artifacts.rows_table(
        rows, "drift-batches", "Drift of new batches (Kolmogorov-Smirnov distances, docs/operations.md)"
    )
    number, worst = max(found.new.items(), key=lambda item: item[1].error_drift / item[1].error_threshold)
    assert found.store is not None
    assert found.reference is not None
    with tempfile.TemporaryDirectory() as folder:
        picture = draw_batch(Path(folder, "drift.png"), found.store, number, worst, found.reference)
        artifacts.picture(picture, "drift-picture", f"Snapshot {number} against the training data")
    link = artifacts.run_link(found.uri, found.experiment_id, found.run_id)
    artifacts.markdown(
        f"- the series: {link}\n- store `{found.store.resolve()}`", "drift-links", "Where the results are"
    )


def _row(snapshot: int, drift: Drift) -> dict[str, Any]:
    return {
        "snapshot": snapshot,
        "rows": drift.rows,
        "error drift": round(drift.error_drift, 4),
        "error threshold": round(drift.error_threshold, 4),
        "latent drift": round(drift.latent_drift, 4),
        "latent threshold": round(drift.latent_threshold, 4),
        "verdict": "drifted" if drift.drifted else "as trained on",
    }


if __name__ == "__main__":
    run_by_hand(monitor)
