"""Prefect's records of our flow runs, kept truthful: runs whose process died, schedules that were missed.

A process that is killed cannot report its end. The next run of the same flow does: `begin` closes what is left
RUNNING by a process that is gone, and of several late runs of one deployment lets only one go on.
"""

import os
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Crashed

from flows.plain_errors import shorten_tracebacks

_ACTIVE = [StateType.RUNNING, StateType.CANCELLING]
# After this long, a run on a host that cannot be asked is taken for lost.
_LOST_AFTER = timedelta(days=2)


def begin() -> str:
    """To be called first in every flow. Returns the flow run's name."""
    shorten_tracebacks()
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow is not None
    assert context.flow_run is not None
    run = context.flow_run
    logger = get_run_logger()
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, infrastructure_pid=f"{socket.gethostname()}:{os.getpid()}")
        for lost in _lost_runs(client, context.flow.name, run):
            _close(client, lost)
            logger.warning("run %s had been left as running by a process that is gone; it is Crashed now", lost.name)
        for late in _late_runs(client, run):
            client.set_flow_run_state(
                late.id, Cancelled(message=f"missed; collapsed into the run {run.name}"), force=True
            )
            logger.info("the missed run %s is collapsed into this one", late.name)
    return run.name


def _lost_runs(client: Any, flow_name: str, own: FlowRun) -> list[FlowRun]:
    found = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE))),
        limit=200,
    )
    return [run for run in found if run.id != own.id and _is_lost(run)]


def _is_lost(run: FlowRun) -> bool:
    started = run.start_time or run.created
    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return started is not None and datetime.now(UTC) - started > _LOST_AFTER
    try:
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # A number that was given to another process since: that one is younger than the run.
        return started is not None and process.create_time() > started.timestamp() + 1
    except psutil.NoSuchProcess:
        return True


def _close(client: Any, run: FlowRun) -> None:
    state: State[Any] = Crashed(message="its process was killed; found by the next run of this flow")
    for task_run in client.read_task_runs(
        task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
    ):
        if task_run.state_type in (*_ACTIVE, StateType.PENDING):
            client.set_task_run_state(task_run.id, state, force=True)
    client.set_flow_run_state(run.id, state, force=True)


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
