"""Flow `evaluate_and_promote`: the challenger against the champion, on the same held-out rows.

By hand: `python -m flows.evaluate_and_promote`
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from ae_pipeline.operation.champion.moves import Outcome
from ae_pipeline.operation.champion.moves import evaluate_and_promote as evaluate_and_promote_challenger
from ae_pipeline.operation.tracking.connection import tracking_uri
from ae_pipeline.params import load_params
from flows import alerts, artifacts
from flows.plain_errors import explain_parameters, run_by_hand
from flows.run_records import begin

_TWO_HOURS = 7200


@flow(
    name="evaluate_and_promote",
    timeout_seconds=_TWO_HOURS,
    persist_result=False,
    result_serializer="json",
    on_completion=[alerts.tell],
    on_failure=[alerts.tell],
    on_crashed=[explain_parameters, alerts.tell],
)
def evaluate_and_promote(workspace: Path = Path()) -> Any:
    """Promote the challenger if params.yaml's conditions hold; record the verdict either way.

    Args:
        workspace: The checkout: the folder with params.yaml and the held-out rows.

    """
    name = begin()
    outcome = _compare(workspace, f"flow run {name}")
    get_run_logger().info(outcome.verdict.reason)
    _show(outcome, tracking_uri(load_params(workspace / "params.yaml"), workspace))
    return Completed(name="Promoted" if outcome.entry else "Kept", message=outcome.verdict.reason)


@task(
    name="compare and promote",
    task_run_name="compare and promote",
    cache_policy=NO_CACHE,
    persist_result=False,
    result_serializer="json",
)
def _compare(workspace: Path, by: str) -> Outcome:
    return evaluate_and_promote_challenger(load_params(workspace / "params.yaml"), workspace, by=by)


def _show(outcome: Outcome, uri: str) -> None:
    """The verdict, and the versions that it is about."""
    versions = {"champion before": outcome.champion, "challenger": outcome.challenger}
    links = [f"- {role}: {artifacts.model_link(uri, outcome.model, v)}" for role, v in versions.items() if v]
    text = f"{outcome.verdict.as_markdown()}\n{chr(10).join(links)}\n"
    artifacts.markdown(text, "promotion-verdict", "Challenger against champion")


if __name__ == "__main__":
    run_by_hand(evaluate_and_promote)
