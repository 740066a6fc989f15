"""Mistakes of users and failures of stages in plain words: in Prefect's logs, and on the terminal.

Prefect logs a traceback for every exception. For errors of ours it says nothing that the message does not.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

import typer
from prefect.exceptions import FailedRun

from ae_pipeline.errors import PipelineError


class FlowError(RuntimeError):
    """A flow that cannot go on, for a reason that its message says in full."""


OURS = (PipelineError, FlowError)


class _WithoutTraceback(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], OURS):
            error = record.exc_info[1]
            record.msg, record.args = record.getMessage().replace(repr(error), str(error)), ()
            record.exc_info = record.exc_text = None
        return True


def shorten_tracebacks() -> None:
    """Keep tracebacks of our own errors out of the logs of this process's flow and task runs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
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
