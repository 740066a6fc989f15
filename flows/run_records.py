"""Prefect's records of our flow runs, kept truthful: runs whose process died, schedules that were missed.

A process that is killed cannot report its end. The next run does (recovery.py): `begin` closes what processes that are
gone have left as active, and of several late runs of one deployment lets only one go on.
"""

import os
import socket
from datetime import UTC, datetime
from typing import Any

from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.states import Cancelled

from flows.plain_errors import shorten_tracebacks
from flows.recovery import recover


def begin() -> str:
    """Begin the record of a run; every flow calls this first. Returns the flow run's name."""
    shorten_tracebacks()
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow is not None
    assert context.flow_run is not None
    run = context.flow_run
    logger = get_run_logger()
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, infrastructure_pid=f"{socket.gethostname()}:{os.getpid()}")
        for sentence in recover(own=run.id):
            logger.warning(sentence)
        for late in _late_runs(client, run):
            client.set_flow_run_state(
                late.id, Cancelled(message=f"missed; collapsed into the run {run.name}"), force=True
            )
            logger.info("the missed run %s is collapsed into this one", late.name)
    return run.name


def _late_runs(client: Any, own: FlowRun) -> list[FlowRun]:
    """Scheduled runs of the same deployment that are due already: the schedule was missed while nobody served it."""
    if own.deployment_id is None:
        return []
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[own.deployment_id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        ),
        limit=200,
    )
    now = datetime.now(UTC)
    return [
        run
        for run in found
        if run.id != own.id
        and run.auto_scheduled
        and run.parameters == own.parameters
        and run.expected_start_time is not None
        and run.expected_start_time <= now
    ]
