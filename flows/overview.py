"""What Prefect knows of our flows, as JSON: last runs and why they failed, slots and who holds them, workers.

python -m flows.overview      # `ae-pipeline status` runs it
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL, temporary_settings

from ae_pipeline.errors import first_line
from flows.recovery import FLOWS, holders, living_workers, our_pool, pages

ON_THIS_MACHINE = "http://127.0.0.1:4200/api"
"""Where `ae-pipeline serve` has Prefect's API, unless it was told another port."""
_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
_AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_BAD = [StateType.FAILED, StateType.CRASHED]
_DRIFTED = "Drifted"  # how `monitor` ends where drift is to be a warning only
_RECENT = timedelta(days=1)
# A worker looks for work a few times a minute.
_LATE = timedelta(minutes=5)


def overview(client: Any, now: datetime) -> dict[str, Any]:
    """All of it, with times in UTC (ISO 8601). `client` is a synchronous one of Prefect's."""
    return {
        "flows": {name: _flow(client, name, now) for name in FLOWS},
        "slots": _slots(client),
        "workers": [
            {"name": worker.name, "heard": _time(worker.last_heartbeat_time)} for worker in living_workers(client)
        ],
    }


def _flow(client: Any, name: str, now: datetime) -> dict[str, Any]:
    """The last run that ended, what is at work, what is due; and what went wrong within a day."""

    def ask(sort: FlowRunSort, limit: int, **filters: Any) -> list[FlowRun]:
        ours = FlowFilter(name=FlowFilterName(any_=[name]))
        return client.read_flow_runs(flow_filter=ours, flow_run_filter=FlowRunFilter(**filters), sort=sort, limit=limit)

    recent = FlowRunFilterEndTime(after_=now - _RECENT)
    newest = FlowRunSort.END_TIME_DESC
    last = ask(newest, 1, state=_of_type(_ENDED))
    bad = ask(newest, 200, state=_of_type(_BAD), end_time=recent)
    bad += ask(newest, 200, state=_named(_DRIFTED), end_time=recent)
    planned = ask(FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, 200, state=_of_type([StateType.SCHEDULED]))
    due = [run.next_scheduled_start_time for run in planned if run.next_scheduled_start_time is not None]
    return {
        "last": _run(last[0]) if last else None,
        "failed_within_a_day": [_run(run) for run in bad],
        "at_work": [_run(run) for run in ask(newest, 200, state=_of_type(_AT_WORK))],
        "late": sum(time < now - _LATE for time in due),
        "next": _time(min(due)) if due else None,
    }


def _run(run: FlowRun) -> dict[str, Any]:
    """One run. A drifted batch is a failure too, however the run ended."""
    return {
        "name": run.name,
        "state": run.state_name,
        "failed": run.state_type in _BAD or run.state_name == _DRIFTED,
        "message": run.state.message if run.state else None,
        "began": _time(run.start_time),
        "ended": _time(run.end_time),
        "process": run.infrastructure_pid,
    }


def _slots(client: Any) -> list[dict[str, Any]]:
    """The slots of each deployment, and the runs that hold them."""
    found = []
    for deployment in pages(client.read_deployments, work_pool_filter=our_pool()):
        limit = deployment.global_concurrency_limit
        if limit is not None:
            held = [_run(run) for run in holders(client, deployment.id)]
            values = {"deployment": deployment.name, "taken": limit.active_slots, "of": limit.limit, "by": held}
            found.append(values)
    return sorted(found, key=lambda slot: slot["deployment"])


def _of_type(types: list[StateType]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=types))


def _named(name: str) -> FlowRunFilterState:
    return FlowRunFilterState(name=FlowRunFilterStateName(any_=[name]))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def main() -> None:
    """Print it."""
    address = PREFECT_API_URL.value() or ON_THIS_MACHINE
    try:
        with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
            print(json.dumps(overview(client, datetime.now(UTC))))
    except (httpx.HTTPError, PrefectException) as error:
        parts = urlsplit(address)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname  # without a user's name and password
        unset = "" if PREFECT_API_URL.value() else " (PREFECT_API_URL is not set)"
        sys.exit(
            f"error: Prefect at {host}{unset} failed: {first_line(error)}; start a server (`ae-pipeline serve` does), "
            "or set PREFECT_API_URL"
        )


if __name__ == "__main__":
    main()
