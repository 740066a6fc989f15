"""Flow `rebuild`: bring the workspace up to date with DVC, stage by stage, and MLflow with it.

By hand: `python -m flows.rebuild [--until STAGE] [--force]`
"""

import json
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from ae_pipeline.files import read_small
from ae_pipeline.operation.tracking.publish import Published, publish
from ae_pipeline.params import Params, load_params
from flows import alerts, artifacts
from flows.dvc_tasks import StageError, StageRun, note_code, only_rebuild, run_stage, stage_names
from flows.plain_errors import explain_parameters, run_by_hand
from flows.run_records import begin

Stage = Literal["download", "prepare", "train", "evaluate", "encode", "decode", "publish"]
_TWELVE_HOURS = 12 * 3600


@flow(
    name="rebuild",
    timeout_seconds=_TWELVE_HOURS,
    persist_result=False,
    result_serializer="json",
    on_completion=[alerts.tell],
    on_failure=[alerts.tell],
    on_crashed=[explain_parameters, alerts.tell],
)
def rebuild(workspace: Path = Path(), until: Stage | None = None, force: bool = False) -> Any:
    """Run the stages of dvc.yaml that are not up to date, each as a task of its own.

    The stage `code` runs before them and is no task: it only notes what the package's code is.

    Args:
        workspace: The checkout: the folder with dvc.yaml and params.yaml.
        until: Stop after this stage; by default all run.
        force: Run stages that are up to date, too.

    """
    name = begin()
    params = load_params(workspace / "params.yaml")
    metrics_file = workspace / params.paths.reports / "metrics.json"
    with only_rebuild(workspace, f"flow run {name}"):
        before = _read(metrics_file)
        runs: list[StageRun] = []
        try:
            note_code(workspace)
            for stage in _stages(workspace, until):
                runs.append(run_stage(stage, workspace, force=force))  # noqa: PERF401 (what ran is shown, also after a failure)
        except StageError as error:
            # Raised, it would be in the log once more than as the state.
            return Failed(message=error.in_full)
        finally:
            artifacts.stages_table(runs)
        if until is not None:
            return Completed(message=_outcomes(runs))
        published = _synchronise_tracking(params, workspace)
        _show(params, workspace, before, _read(metrics_file), published)
    challenger = f"{published.model} version {published.version} is the challenger"
    return Completed(message=f"{_outcomes(runs)}; {challenger}")


def _stages(workspace: Path, until: str | None) -> list[str]:
    names = stage_names(workspace)
    return names if until is None else names[: names.index(until) + 1]


def _outcomes(runs: list[StageRun]) -> str:
    """E.g. `up to date: download, prepare; ran: train`."""
    stages: dict[str, list[str]] = {}
    for run in runs:
        stages.setdefault(run.outcome, []).append(run.stage)
    return "; ".join(f"{outcome}: {', '.join(names)}" for outcome, names in stages.items())


@task(
    name="synchronise tracking",
    task_run_name="synchronise tracking",
    cache_policy=NO_CACHE,
    persist_result=False,
    result_serializer="json",
)
def _synchronise_tracking(params: Params, workspace: Path) -> Published:
    """Publish, even if the stage `publish` was up to date: the database may be a new one."""
    return publish(params, workspace)


def _show(params: Params, workspace: Path, before: dict[str, Any], now: dict[str, Any], published: Published) -> None:
    artifacts.metrics_table(before, now)
    pictures = workspace / params.paths.reports / "pictures"
    artifacts.picture(pictures / "reconstructions.png", "rebuild-reconstructions", "Held-out rows, before and after")
    stores = [f"- store `{workspace.resolve() / params.paths.latents / name}`" for name in params.encode.data_sets]
    links = [
        f"- {artifacts.run_link(published.uri, published.experiment_id, published.run_id)} ({published.outcome})",
        f"- {artifacts.model_link(published.uri, published.model, published.version)}, the challenger",
    ]
    artifacts.markdown("\n".join([*links, *stores]), "rebuild-links", "Where the results are")


def _read(metrics: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(read_small(metrics))
    except (FileNotFoundError, ValueError):
        return {}
    return found


if __name__ == "__main__":
    run_by_hand(rebuild)
