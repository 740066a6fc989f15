"""When a flow needs somebody, a webhook is told: it failed, was killed, found drift, or put files into quarantine.

Every flow has the hook `tell`, which Prefect calls when the run has its last state: nothing waits for the webhook but
the end of the process, and that no longer than some seconds. docs/production.md, Alerts, has the payload.

    python -m flows.alerts        # sends one, to try the address
"""

import logging
import socket
import sys
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from ae_pipeline.errors import without_secrets
from ae_pipeline.operation.alerts import ALERT_URL, has_alerts, send_alert
from flows.plain_errors import unknown_parameters

FAILED, CRASHED, DRIFTED, QUARANTINED = "failed", "crashed", "drifted", "quarantined"
# A label of a run: of it somebody has been told. The process of a run and its worker may both find that it crashed.
_TOLD = "ae_pipeline.alert"
_LONGEST = 2000
# What was found in runs of this process that have not ended, with the message for it.
_noted: dict[UUID, dict[str, str]] = defaultdict(dict)


def note(event: str, message: str) -> None:
    """Have the webhook told of something that this run found, when it has ended; to be called within a flow."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    _noted[context.flow_run.id][event] = message


def tell(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of every flow: tell of what was noted, and of a run that failed or crashed. Says in the log if it cannot."""
    events = _noted.pop(flow_run.id, {})
    if not has_alerts():
        return
    # A run may end as failed because it found drift: that is one thing to tell.
    bad = CRASHED if state.is_crashed() else FAILED if state.is_failed() and DRIFTED not in events else None
    if bad and not _was_told(flow_run.id):
        wrongly_asked = unknown_parameters(flow.fn, flow_run.parameters)
        events[FAILED if wrongly_asked else bad] = wrongly_asked or state.message or "no reason was given"
    for event, message in events.items():
        if why := send_alert(_payload(event, flow.name, flow_run, state.name or "", message)):
            flow_run_logger(flow_run, flow).warning(why)


def tell_of_lost(client: Any, run: FlowRun, message: str) -> str | None:
    """Tell of a run whose process is gone, which cannot tell itself. Returns why the webhook was not told."""
    if not has_alerts() or _was_told(run.id):
        return None
    name = client.read_flow(run.flow_id).name
    return send_alert(_payload(CRASHED, name, run, "Crashed", message))


def _was_told(run_id: UUID) -> bool:
    """Whether somebody was told of this run; notes that somebody is now."""
    with suppress(Exception), get_client(sync_client=True) as client:  # better told twice than never
        if _TOLD in client.read_flow_run(run_id).labels:
            return True
        client.update_flow_run_labels(run_id, {_TOLD: datetime.now(UTC).isoformat(timespec="seconds")})
    return False


def _payload(event: str, flow: str, run: FlowRun, state: str, message: str) -> dict[str, Any]:
    """What is posted. `text` says all of it, for whoever reads nothing else."""
    message = without_secrets(message)
    message = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}..."
    page = url_for("flow-run", obj_id=run.id)
    return {
        "text": f"ae-pipeline on {socket.gethostname()}: {flow} {event}: {message}",
        "event": event,
        "flow": flow,
        "run": run.name,
        "run_id": str(run.id),
        "state": state,
        "message": message,
        "page": without_secrets(page) if page else None,
        "workspace": str(Path(run.parameters.get("workspace") or ".").resolve()),
        "host": socket.gethostname(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class _WithoutTheHook(logging.Filter):
    """Takes out what Prefect says twice of every run: that `tell` was called, also where there is nothing to tell."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith((f"Running hook '{tell.__name__}' ", f"Hook '{tell.__name__}' "))


def main() -> None:
    """Send one, and say what came of it."""
    if not has_alerts():
        sys.exit(f"error: {ALERT_URL} is not set; set it to the address of a webhook")
    text = f"ae-pipeline on {socket.gethostname()}: this is a trial, sent from {Path.cwd()}"
    if why := send_alert({"text": text, "event": "trial", "host": socket.gethostname()}):
        sys.exit(f"error: {why}")
    print("delivered")


logging.getLogger("prefect.flow_runs").addFilter(_WithoutTheHook())

if __name__ == "__main__":
    main()
