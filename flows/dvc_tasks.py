"""The stages of dvc.yaml as Prefect tasks. The only file that starts DVC.

DVC decides what has to run. `dvc repro --single-item` in a process of its own gives live logs, and the stage's own
last lines when it fails, which DVC's Python API does not.
"""

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from ruamel.yaml import YAML

from ae_pipeline.cli.stages import CODE
from ae_pipeline.errors import BusyError
from ae_pipeline.operation.ownership import REBUILD, RUNNER, Process, hold
from flows.plain_errors import FlowError
from flows.progress import Progress

_LAST_LINES = 15
# How every message to a user begins (ae_pipeline/errors.py).
_MISTAKE = "error: "
# DVC's message about a stage's exit code; negative if a signal ended it.
_EXIT = re.compile(r"^ERROR: failed to reproduce .*, exited with (-?\d+)$")
# DVC's message when another of its processes holds the checkout.
_BUSY = re.compile(r"it is being blocked by:.*?\(PID (\d+)\)", re.DOTALL)
_STOP_SECONDS = 20
_CHILD = "rebuild.child"
# Advice for people at a terminal.
_ADVICE = re.compile(r"^(To track the changes|\s*git add|To enable auto staging|\s*dvc config core|Use `dvc push`)")


class StageError(FlowError):
    """A stage that failed. The message is short: the stage's own lines stand above it in the log."""

    def __init__(self, stage: str, code: int, lines: list[str]):
        super().__init__(f"stage `{stage}` failed")
        self.in_full = f"{self}{_reason(code, lines)}"
        """The error, with what the stage said last; for the flow run's state, which is read without the log."""


@dataclass(frozen=True)
class StageRun:
    """What came of one stage."""

    stage: str
    outcome: str
    """One of: ran, up to date, restored from cache"""
    seconds: float


def stage_names(workspace: Path) -> list[str]:
    """The stages in dvc.yaml's own order, but for the one that notes what the code is: `note_code` runs it."""
    stages = YAML(typ="safe", pure=True).load((workspace / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return [name for name in stages if name != CODE]


def note_code(workspace: Path) -> None:
    """Have DVC see what the package's code is now; each stage is asked for alone, and would not know.

    No task: it takes a moment, always runs, and says nothing to whoever looks at the page of a run.
    """
    lines: deque[str] = deque(maxlen=400)
    with _process(_repro(CODE), workspace) as process:
        assert process.stdout is not None
        lines.extend(text for line in process.stdout if (text := line.rstrip()))
        code = process.wait()
    if code:
        raise _failure(CODE, code, list(lines), workspace)


def run_stage(stage: str, workspace: Path, *, force: bool = False) -> StageRun:
    """Bring one stage up to date in a task named after it. Only `download` is retried: the others would fail again."""
    options: dict[str, Any] = {"name": stage, "task_run_name": stage}
    if stage == "download":
        options |= {"retries": 3, "retry_delay_seconds": [10, 60, 300], "retry_condition_fn": _is_worth_a_retry}
    named = _stage.with_options(**options)
    result: StageRun = named(stage, workspace, force)
    return result


@contextmanager
def only_rebuild(workspace: Path, who: str) -> Iterator[None]:
    """Hold the workspace: no other flow, and no stage that somebody starts by hand, is at work in it meanwhile.

    Raises BusyError that names the holder. Prefect's concurrency limit covers deployments only, and stays taken for
    minutes after a kill.
    """
    temporary = workspace / ".dvc" / "tmp"
    with hold(workspace, REBUILD, f"{who}, process {os.getpid()}"):
        _end_leftovers(temporary / _CHILD)
        _remove_broken_locks(temporary)
        yield


@task(cache_policy=NO_CACHE, persist_result=False, result_serializer="json")
def _stage(stage: str, workspace: Path, force: bool) -> StageRun:
    logger = get_run_logger()
    lines: deque[str] = deque(maxlen=400)
    start = time.monotonic()
    told = Progress(f"{stage}-progress", stage)
    with _process(_repro(stage, force=force), workspace) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if (text := line.rstrip()) and not _ADVICE.match(text):
                logger.log(logging.ERROR if text.startswith(_MISTAKE) else logging.INFO, text)
                told.take(text)
                lines.append(text)
        code = process.wait()
    if code:
        raise _failure(stage, code, list(lines), workspace)
    told.end()
    outcome = _outcome(stage, "\n".join(lines))
    logger.info("stage `%s`: %s", stage, outcome)
    return StageRun(stage, outcome, time.monotonic() - start)


def _repro(stage: str, *, force: bool = False) -> list[str]:
    return [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), stage]


def _is_worth_a_retry(task: Any, run: Any, state: Any) -> bool:  # noqa: ARG001 (Prefect's signature)
    """A busy checkout is refused at once; whoever holds it may take hours."""
    return not isinstance(state.result(raise_on_failure=False), BusyError)


def _outcome(stage: str, output: str) -> str:
    if f"Running stage '{stage}'" in output:
        return "ran"
    if f"Stage '{stage}' is cached" in output:
        return "restored from cache"
    return "up to date"


def _failure(stage: str, code: int, lines: list[str], workspace: Path) -> Exception:
    output = "\n".join(lines)
    if busy := _BUSY.search(output):
        return BusyError(
            f"stage `{stage}` could not start: a DVC command is at work in {workspace.resolve()} (process "
            f"{busy.group(1)}). Wait for it, or end it, and run this again"
        )
    return StageError(stage, code, lines)


def _reason(code: int, lines: list[str]) -> str:
    """What a stage said last: one line if it ended with an error of ours, the last ones of anything else."""
    # DVC's own lines only repeat the command; its exit code is 255 whatever that of the stage was.
    own = [line for line in lines if not line.startswith(("Running stage '", "ERROR: failed to reproduce", "> "))]
    if own and own[-1].startswith(_MISTAKE):
        return f": {own[-1].removeprefix(_MISTAKE)}"
    exits = [found.group(1) for line in lines if (found := _EXIT.search(line))]
    return f" (exit code {exits[-1] if exits else code}):\n" + "\n".join((own or lines)[-_LAST_LINES:])


@contextmanager
def _process(command: list[str], workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose children do not outlive the block: a cancelled flow run leaves nobody at work.

    No session of its own: a worker that is stopped signals its process group, and the command must be in it.
    """
    # Stages run `python`: this one. Unbuffered, so that their lines are logged when they are said.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # Stages end when this process does, whoever ends it and however.
    runner = Process.of(psutil.Process()).text
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PATH": path, RUNNER: runner}
    process = subprocess.Popen(
        command, cwd=workspace, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    child = workspace / ".dvc" / "tmp" / _CHILD
    child.parent.mkdir(parents=True, exist_ok=True)
    child.write_text(json.dumps([process.pid, psutil.Process(process.pid).create_time()]), encoding="utf-8")
    try:
        yield process
    finally:
        if process.poll() is None:
            _stop(psutil.Process(process.pid))
        child.unlink(missing_ok=True)
        if process.stdout is not None:
            process.stdout.close()


def _end_leftovers(child: Path) -> None:
    """End the DVC command of a rebuild that was killed; with the rebuild lock held, so nobody waits for it."""
    try:
        pid, created = json.loads(child.read_text(encoding="utf-8"))
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1:
            _stop(process)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        pass
    child.unlink(missing_ok=True)


def _remove_broken_locks(temporary: Path) -> None:
    """DVC writes its list of locks in place: one that was killed doing so leaves a file that no DVC reads again."""
    path = temporary / "rwlock"
    if _is_json(path):
        return
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(str(temporary / "rwlock.lock"), tmp_dir=str(temporary)):
            if _is_json(path):
                return
            path.unlink()
    except LockError:
        return  # a DVC command is at work on it
    get_run_logger().warning(
        "%s was cut off when a DVC command was killed; it held that command's locks only, and is removed",
        path.resolve(),
    )


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _stop(parent: psutil.Process) -> None:
    """Ask the process and its children to end, then insist."""
    family = [parent, *parent.children(recursive=True)]
    for one in reversed(family):  # the stage first: DVC then cleans up after it
        try:
            one.terminate()
        except psutil.NoSuchProcess:
            continue
    for one in psutil.wait_procs(family, timeout=_STOP_SECONDS)[1]:
        one.kill()
