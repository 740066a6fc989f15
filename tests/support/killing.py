"""Stop a run at each of the steps in which it changes the disk: no random moments, and none left out.

    for left in stopped_at_every_step(SCRIPT, template, tmp_path / "killed", "SIGKILL"):
        left.folder                             # a copy of `template`, as the stopped run left it

SCRIPT defines `run(folder)`. One process imports everything and forks a child for each step (`tracing.py`); before the
step happens, the fault does:

    SIGKILL              the child is killed
    SIGTERM or SIGINT    the child gets one of them, in turn
    full                 from here on nothing can be written, as on a full disk; what is there can be removed
    denied               from here on nothing can be created, renamed or removed
    power                the folder is what a power cut may leave of it (`power_cut.py`): two states a step

Of several writes to a file in a row, the first and the last are taken, or with `every_write` all.

Where processes cannot be watched, SIGKILL goes by Python's audit events, which do not see writes; others are skipped.
"""

import atexit
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tracing
from power_cut import Disk, build

_FAILING = {
    "full": (-errno.ENOSPC, {"open", "write", "truncate", "fsync", "mkdir", "rename", "link"}),
    "denied": (-errno.EACCES, {"open", "mkdir", "rmdir", "rename", "link", "unlink"}),
}
_SIGNALS = {"SIGKILL": [signal.SIGKILL], "SIGTERM or SIGINT": [signal.SIGTERM, signal.SIGINT]}
_AUDITED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.move", "shutil.rmtree"}


@dataclass(frozen=True)
class Left:
    """What a run left that was stopped: its folder, exit code and standard error, the steps it did and the one not."""

    folder: Path
    code: int
    error: str
    done: list[str]
    step: str


def killed_at_every_step(script: str, template: Path, target: Path) -> list[Path]:
    """Copies of `template` as `kill -9` leaves them, one for each step, in order."""
    return [left.folder for left in stopped_at_every_step(script, template, target, "SIGKILL")]


def stopped_at_every_step(
    script: str, template: Path, target: Path, fault: str, *, every_write: bool = False
) -> list[Left]:
    """One run for each step that the fault can hit, in order. The run must get through when nothing stops it."""
    target.mkdir()
    found = _process().ask([script, str(template), str(target), fault, every_write])
    if found is None:
        pytest.skip("processes cannot be watched here (ptrace and seccomp, Linux on x86-64)")
    assert not isinstance(found, str), found
    return [Left(Path(folder), *others) for folder, *others in found]


class _Process:
    """The process that forks, with all that scripts import: one for all tests, as starting it takes seconds."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.end)

    def ask(self, request: list) -> Any:
        """Lists of what `Left` holds, the traceback of what went wrong, or None where nothing can be watched."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """It ends when nobody can ask any more."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@functools.cache
def _process() -> _Process:
    return _Process()


def main() -> None:
    """Answer requests in the process that forks, a line of JSON each, until there is no more."""
    # One worker: the steps then come in the same order every time.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a run prints is no answer
    for request in sys.stdin:
        script, template, target, fault, every_write = json.loads(request)
        try:
            found: Any = stopped(script, Path(template), Path(target), fault, every_write)
        except BaseException:
            found = traceback.format_exc()
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def stopped(script: str, template: Path, target: Path, fault: str, every_write: bool) -> list[tuple] | None:
    """The fields of `Left` for each step; None if the fault needs watching and that is forbidden."""
    names: dict = {}
    exec(compile(script, "script", "exec"), names)
    run = names["run"]
    if not tracing.available():
        return audited(run, template, target) if fault == "SIGKILL" else None
    # What a first run loads and sets up is then there in every child.
    run(shutil.copytree(template, target / "first"))
    shutil.rmtree(target / "first")
    if fault == "power":
        return cut_off(run, template, target)
    whole = shutil.copytree(template, target / "whole")
    steps, code = tracing.watch(lambda: run(whole), whole, lambda number, step: None)
    assert code == 0, f"the run fails by itself: exit code {code}"
    shutil.rmtree(whole)
    wanted = [number for number in range(len(steps)) if every_write or not is_inner_write(steps, number)]
    return watched(run, template, target, fault, steps, wanted)


def watched(
    run: Callable[[Path], None],
    template: Path,
    target: Path,
    fault: str,
    steps: list[tracing.Step],
    wanted: list[int],
) -> list[tuple]:
    """Every step that is wanted and that the fault can hit."""
    left = []
    for number in wanted:
        step = steps[number]
        if fault in _FAILING and step.call not in _FAILING[fault][1]:
            continue
        folder = shutil.copytree(template, target / str(number))
        errors = target / f"{number}.txt"
        did, code = tracing.watch(lambda: run(folder), folder, hit(fault, number), errors)  # noqa: B023 (called now)
        assert did[: number + 1] == steps[: number + 1], f"other steps than in the first run: {did[-1]}, not {step}"
        left.append((str(folder), code, errors.read_text(), [str(done) for done in steps[:number]], str(step)))
    return left


def is_inner_write(steps: list[tracing.Step], number: int) -> bool:
    """Whether the steps before and after it write to the same file."""
    return steps[max(number - 1, 0) : number + 2] == [steps[number]] * 3 and steps[number].call == "write"


def hit(fault: str, wanted: int) -> tracing.OnStep:
    """What happens to the step `wanted`, and to those after it."""

    def on_step(number: int, step: tracing.Step) -> int | None:
        if fault in _SIGNALS:
            return _SIGNALS[fault][number % len(_SIGNALS[fault])] if number == wanted else None
        code, calls = _FAILING[fault]
        return code if number >= wanted and step.call in calls else None

    return on_step


def cut_off(run: Callable[[Path], None], template: Path, target: Path) -> list[tuple]:
    """The states that a power cut may leave before each step, each once, and the two after the last one."""
    folder = shutil.copytree(template, target / "run")
    disk = Disk(folder)
    states: list[tuple[dict, list[str], str]] = []
    done: list[str] = []

    def note(step: str) -> None:
        for tree in (disk.certain(), disk.torn()):
            if step == "none" or tree not in [state[0] for state in states]:
                states.append((tree, list(done), step))

    def on_step(number: int, step: tracing.Step) -> None:
        note(str(step))
        disk.before(step)
        done.append(str(step))

    tracing.watch(lambda: run(folder), folder, on_step)
    note("none")
    for number, (tree, _, _) in enumerate(states):
        build(tree, target / str(number))
    return [(str(target / str(number)), 0, "", did, step) for number, (_, did, step) in enumerate(states)]


def audited(run: Callable[[Path], None], template: Path, target: Path) -> list[tuple]:
    """SIGKILL at each of the steps that Python reports, while there is one more."""
    left: list[tuple] = []
    while True:
        folder = shutil.copytree(template, target / str(len(left)))
        child = os.fork()
        if child == 0:
            run_and_die(run, folder, len(left))
        status = os.waitpid(child, 0)[1]
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            assert status == 0, f"step {len(left)} failed by itself: status {status}"
            shutil.rmtree(folder)
            return left
        left.append((str(folder), -signal.SIGKILL, "", [], ""))


def run_and_die(run: Callable[[Path], None], folder: Path, step: int) -> None:
    """Run in the child; never returns."""
    seen = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        if changes_files(event, arguments, str(folder)):
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    code = 1
    try:
        sys.addaudithook(count)
        run(folder)
        code = 0
    finally:
        sys.stderr.flush()
        if code == 0:
            os._exit(code)


def changes_files(event: str, arguments: tuple, folder: str) -> bool:
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and str(path).startswith(folder)
    return event in _AUDITED and str(arguments[0]).startswith(folder)


if __name__ == "__main__":
    main()
