"""Runs that a dead process left RUNNING in MLflow are closed, so that RUNNING means running.

Every run that this package works on carries a tag that says which process does. Imports no MLflow: works on its client.
"""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from ae_pipeline.operation.ownership import Process

TRAINING_TAG = "ae_pipeline.training"
"""Identity of the training that a run is of; only runs of this package have it."""
PROCESS_TAG = "ae_pipeline.process"
CLOSED_TAG = "ae_pipeline.closed"
_DAY_MS = 24 * 3600 * 1000
# A process's start is computed from the time of boot, which moves by a little when the clock is set.
_START_TOLERANCE_S = 10.0


def claim_run(client: Any, run_id: str) -> None:
    """Say in the run's tags that this process works on it; a run that was closed as an orphan is open again."""
    client.set_tag(run_id, PROCESS_TAG, process_tags()[PROCESS_TAG])
    if CLOSED_TAG in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, CLOSED_TAG)


def process_tags() -> dict[str, str]:
    """Tags of a run that this process works on: host, pid, the process's start, and when it took the run; its user."""
    own = Process.of(psutil.Process())
    values = {"host": _host(), "pid": own.pid, "started": own.created, "since_ms": int(time.time() * 1000)}
    return {PROCESS_TAG: json.dumps(values), "mlflow.user": os.environ.get("USER", "unknown")}


def close_orphans(client: Any, experiment: str) -> list[str]:
    """Set our RUNNING runs whose process is gone to KILLED, with a tag that says why; returns their ids.

    Nothing is known of a process on another machine: its runs are closed a day after it took them. A later `publish`
    of the same training takes a closed run up again.
    """
    closed = []
    for run in _running(client, experiment):
        if reason := _orphaned(run.data.tags.get(PROCESS_TAG), run.info.start_time):
            client.set_tag(run.info.run_id, CLOSED_TAG, reason)
            client.set_terminated(run.info.run_id, "KILLED")
            closed.append(run.info.run_id)
    return closed


def _running(client: Any, experiment: str) -> list[Any]:
    """All of them, before any is changed: a page after a change would skip some."""
    found: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], "attributes.status = 'RUNNING'", page_token=token or None)
        found += [run for run in page if run.data.tags.keys() & {TRAINING_TAG, PROCESS_TAG}]
        token = page.token or None
    return found


def _orphaned(tag: str | None, started_ms: int) -> str | None:
    """Why the run is an orphan; None if it may still be worked on."""
    try:
        process = json.loads(tag or "{}")
        host, pid, started, since_ms = (process[name] for name in ("host", "pid", "started", "since_ms"))
        if host == _host():
            return (
                None
                if _is_alive(Process(int(pid), float(started)))
                else f"process {pid} on {host} ended without closing it"
            )
    except (ValueError, KeyError, TypeError):  # no tag, or not ours: only its age is known
        host, since_ms = "an unknown machine", started_ms
    if time.time() * 1000 - since_ms > _DAY_MS:
        return f"its process on {host} did not close it within 24 hours"
    return None


def _is_alive(process: Process) -> bool:
    try:
        return process.living(_START_TOLERANCE_S) is not None
    except psutil.AccessDenied:
        return True


def _host() -> str:
    """Host name and, on Linux, PID namespace: containers of one name do not see each other's processes."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink()}" if namespace.is_symlink() else socket.gethostname()
