"""Mistakes of users and failures of stages in plain words: in Prefect's logs, and on the terminal.

Prefect logs a traceback for every exception, and the message up to four times: as exception and as state, of the task
and of the flow. For errors of ours a traceback says nothing that the message does not.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from prefect.exceptions import FailedRun

from ae_pipeline.errors import PipelineError


class FlowError(RuntimeError):
    """A flow that cannot go on, for a reason that its message says in full."""


OURS = (PipelineError, FlowError)
_FLOWS, _TASKS = "prefect.flow_runs", "prefect.task_runs"


class _WithoutTraceback(logging.Filter):
    """Leaves an error of ours to what Prefect logs next: `Finished in state Failed`, with the same text."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, OURS):
            return True
        record.msg, record.args = record.getMessage().replace(repr(error), str(error)), ()
        record.exc_info = record.exc_text = None
        if record.name == _TASKS:
            return not record.msg.endswith(str(error))  # it goes on where retries are exhausted
        # The state of a flow is not logged as an error; needed unless that of the task was.
        return not _came_through_a_task(error)


def _came_through_a_task(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "prefect.task_engine" for frame, _ in frames)


def shorten_tracebacks() -> None:
    """Keep tracebacks of our own errors, and repetitions, out of the logs of this process's flow and task runs."""
    for name in (_FLOWS, _TASKS):
        logger = logging.getLogger(name)
        if not any(isinstance(found, _WithoutTraceback) for found in logger.filters):
            logger.addFilter(_WithoutTraceback())


def run_by_hand(flow: Callable[..., Any]) -> None:
    """A flow as a command: its parameters are options, its errors one line."""
    try:
        typer.run(flow)
    except (*OURS, FailedRun) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
