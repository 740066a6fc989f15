"""Prefect's records after a crash: runs whose processes are gone, and slots that nobody holds any more.

    python -m flows.recovery      # `ae-pipeline recover` and `ae-pipeline worker` run it

A process that is killed cannot report its end, and Prefect's server forgets who holds a deployment's concurrency slot
when it ends itself. Left alone, the deployment would wait for that slot for ever.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil
from prefect import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, Worker, WorkerStatus
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed

from ae_pipeline.errors import first_line
from ae_pipeline.operation.serving import POOL, process_of_worker
from flows import alerts

FLOWS = ("rebuild", "encode_new", "evaluate_and_promote", "monitor")
"""The flows whose runs are looked at; a server may be shared with other projects."""
_ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
# A retry within the same process keeps its slot.
_RETRYING = "AwaitingRetry"
# After this long, a run on a host that cannot be asked is taken for lost.
_LOST_AFTER = timedelta(days=2)
# A worker writes its name on a run right after it made it Pending. No name after this long: it did not live to do it.
_NAMED_AFTER = timedelta(seconds=60)
_PAGE = 200
_LOST = "its process was killed, or lost power; found by what ran next on its host"
# Which run a process is for, in its environment; set by Prefect's workers.
_RUN_ID = "PREFECT__FLOW_RUN_ID"


def recover(own: UUID | None = None) -> Iterator[str]:
    """Close the runs whose processes are gone, except `own`; then free the slots that no run holds.

    Yields what was done, a sentence each. Runs of other hosts and of live processes keep their state and their slots.
    """
    with get_client(sync_client=True) as client:
        told = True
        for run in lost_runs(client, own):
            _close(client, run)
            # A webhook that was found to be away is not waited for again.
            if told and (why := alerts.tell_of_lost(client, run, _LOST)):
                told = False
                yield why
            yield f"run {run.name} had been left as {run.state_name} by a process that is gone; it is Crashed now"
        for deployment in pages(client.read_deployments, work_pool_filter=our_pool()):
            if deployment.global_concurrency_limit is None:
                continue
            name = deployment.global_concurrency_limit.name
            freed = _agree(client, name, deployment.id)
            if freed:
                yield f"deployment {deployment.name}: {freed} slot(s) that no run holds are free again"


def lost_runs(client: Any, own: UUID | None = None) -> list[FlowRun]:
    """Active runs of our flows, except `own`, whose process is gone."""
    found = pages(
        client.read_flow_runs,
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE))),
    )
    ours = [run for run in found if run.id != own and run.work_pool_name in (None, POOL)]
    living = _Living(client) if ours else None
    return [run for run in ours if living is not None and living.is_lost(run)]


class _Living:
    """What is known of processes: those of this host, and the workers that Prefect hears of."""

    def __init__(self, client: Any):
        self._client = client
        self._now = datetime.now(UTC)
        self._here = socket.gethostname()

    def is_lost(self, run: FlowRun) -> bool:
        host, _, pid = (run.infrastructure_pid or "").rpartition(":")
        since = run.state.timestamp if run.state is not None else run.created
        if host == self._here and pid.isdigit():  # a flow run that has begun says so itself (run_records.py)
            return is_gone(int(pid), run.start_time or run.created)
        worker = str(run.labels.get("prefect.worker.name", ""))
        at = process_of_worker(worker)
        if not host and at is not None and at[0] == self._here:
            return is_gone(at[1], since) and not self._runs_here(run)
        if since is not None and self._now - since > _LOST_AFTER:
            return True
        if host or run.state_type != StateType.PENDING or run.deployment_id is None:
            return False
        if worker:  # one that was started otherwise, or on another host: Prefect hears it, or does not
            return at is None and not self._is_heard(worker) and not self._runs_here(run)
        return not self._worker_may_live() or (since is not None and self._now - since > _NAMED_AFTER)

    def _runs_here(self, run: FlowRun) -> bool:
        """Whether a process of this host works for the run: it can outlive its worker."""
        if (run.infrastructure_pid or "").isdigit():
            try:
                return psutil.Process(int(str(run.infrastructure_pid))).environ().get(_RUN_ID) == str(run.id)
            except psutil.AccessDenied:
                return True
            except psutil.Error:
                pass
        return any(environment.get(_RUN_ID) == str(run.id) for environment in _environments())

    def _heard(self) -> list[Worker]:
        return living_workers(self._client)

    def _is_heard(self, name: str) -> bool:
        return any(worker.name == name for worker in self._heard())

    def _worker_may_live(self) -> bool:
        """Whether there is a worker that is not known to be dead."""
        for worker in self._heard():
            at = process_of_worker(worker.name)
            if at is None or at[0] != self._here or not is_gone(at[1], worker.last_heartbeat_time):
                return True
        return False


def is_gone(pid: int, since: datetime | None) -> bool:
    """Whether a process of this host that was at work at `since` has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # A number that was given to another process since: that one is younger.
        return since is not None and process.create_time() > since.timestamp() + 1
    except psutil.NoSuchProcess:
        return True


def _environments() -> Iterator[dict[str, str]]:
    for process in psutil.process_iter():
        try:
            yield process.environ()
        except (psutil.Error, OSError):
            continue


def _close(client: Any, run: FlowRun) -> None:
    state: State[Any] = Crashed(message=_LOST)
    for task_run in client.read_task_runs(
        task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
    ):
        if task_run.state_type in _ACTIVE:
            client.set_task_run_state(task_run.id, state, force=True)
    client.set_flow_run_state(run.id, state, force=True)


def _agree(client: Any, name: str, deployment: UUID) -> int:
    """Make a deployment's slots as many as the runs that hold one; returns how many were freed.

    Asked twice: a run that ends or begins meanwhile changes both, and a slot must not be taken from it.
    """
    for _ in range(20):
        slots, holders = _slots(client, name), _states(client, deployment)
        # A run that is Pending for long may have lost its slot to Prefect's clock; it takes one again when it begins.
        at_least = sum(state != StateType.PENDING for state in holders.values())
        wanted = max(at_least, min(slots, len(holders)))
        if slots == wanted:
            return 0
        time.sleep(0.2)
        if (_slots(client, name), _states(client, deployment)) == (slots, holders):
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=wanted))
            return max(0, slots - wanted)
    return 0  # busy: runs begin and end, so nobody waits for ever


def _slots(client: Any, name: str) -> int:
    return int(client.read_global_concurrency_limit_by_name(name).active_slots)


def _states(client: Any, deployment: UUID) -> dict[UUID, StateType | None]:
    return {run.id: run.state_type for run in holders(client, deployment)}


def holders(client: Any, deployment: UUID) -> list[FlowRun]:
    """Runs that hold a slot of a deployment: from Pending to their end."""
    mine = FlowRunFilterDeploymentId(any_=[deployment])
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE))
    retries = FlowRunFilterState(name=FlowRunFilterStateName(any_=[_RETRYING]))
    return [
        run
        for state in (states, retries)
        for run in pages(client.read_flow_runs, flow_run_filter=FlowRunFilter(deployment_id=mine, state=state))
    ]


def living_workers(client: Any) -> list[Worker]:
    """Workers that Prefect heard of within their last three heartbeats; by default one and a half minutes."""
    if not pages(client.read_work_pools, work_pool_filter=our_pool()):
        return []  # no deployment was ever sent to this server
    found = pages(client.read_workers_for_work_pool, work_pool_name=POOL)
    return [worker for worker in found if worker.status == WorkerStatus.ONLINE]


def our_pool() -> WorkPoolFilter:
    """The work pool of our deployments."""
    return WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))


def pages(read: Callable[..., list[Any]], **filters: Any) -> list[Any]:
    """All that a query finds; the server gives 200 at a time."""
    found: list[Any] = []
    while len(page := read(**filters, limit=_PAGE, offset=len(found))) == _PAGE:
        found += page
    return found + page


def main() -> None:
    """Say what was done, for `ae-pipeline recover` and `ae-pipeline worker`."""
    address = PREFECT_API_URL.value()
    if not address:  # Prefect would start a server for us alone
        sys.exit("error: no Prefect server is set; set PREFECT_API_URL to its address, or run `prefect cloud login`")
    try:
        for sentence in recover():
            print(sentence, flush=True)
    except (httpx.HTTPError, PrefectException) as error:
        host = urlsplit(address).hostname  # without a user's name and password
        sys.exit(f"error: Prefect at {host} failed: {first_line(error)}; start its server, or correct PREFECT_API_URL")


if __name__ == "__main__":
    main()
