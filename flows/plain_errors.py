"""Mistakes of users and failures of stages in plain words: in Prefect's logs, and on the terminal.

Prefect logs a traceback for every exception, and the message up to four times: as exception and as state, of the task
and of the flow. For errors of ours a traceback says nothing that the message does not.
"""

import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import typer
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import FailedRun, SignatureMismatchError
from prefect.states import Failed

from ae_pipeline.errors import PipelineError


class FlowError(RuntimeError):
    """A flow that cannot go on, for a reason that its message says in full."""


OURS = (PipelineError, FlowError)
# Typer gives this class no public name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_FLOWS, _TASKS, _ENGINE = "prefect.flow_runs", "prefect.task_runs", "prefect.engine"


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


class _WrongParameters(logging.Filter):
    """Says in a line what Prefect says in a traceback, before the flow has begun: a parameter that there is not."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, SignatureMismatchError):
            return True
        record.msg, record.args = str(error), ()
        record.exc_info = record.exc_text = None
        return record.name != _ENGINE  # it repeats what the log of the run has


def explain_parameters(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's signature)
    """Hook of every flow for runs that crashed: one with wrong parameters did not crash, it was asked wrongly."""
    if message := unknown_parameters(flow.fn, flow_run.parameters):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Failed(message=message), force=True)


def unknown_parameters(function: Callable[..., Any], given: Iterable[str]) -> str | None:
    """What is wrong with names of parameters; None if nothing is."""
    known = list(inspect.signature(function).parameters)
    unknown = [name for name in given if name not in known]
    if not unknown:
        return None
    return f"{function.__name__} has no parameter {_listed(unknown)}; it has {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def run_by_hand(flow: Callable[..., Any]) -> None:
    """A flow as a command: its parameters are options, its errors one line."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(flow)
    try:
        command(standalone_mode=False)
    except _UsageError as error:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in inspect.signature(flow).parameters)
        said = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
        print(f"error: {said}; the options are {options} (--help explains them)", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except (*OURS, FailedRun) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


# Prefect looks at parameters before the first line of a flow, so this cannot wait for `shorten_tracebacks`.
for _name in (_FLOWS, _ENGINE):
    logging.getLogger(_name).addFilter(_WrongParameters())
