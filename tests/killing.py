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

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tracing
from power_cut import Disk, build

_FAILING = {
    "full": (-errno.ENOSPC, {"open", "write", "truncate", "fsync", "mkdir", "rename", "link"}),
    "denied": (-errno.EACCES, {"open", "mkdir", "rmdir", "rename", "link", "unlink"}),
}
_SIGNALS = {"SIGKILL": [signal.SIGKILL], "SIGTERM or SIGINT": [signal.SIGTERM, signal.SIGINT]}
_AUDITED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.move", "shutil.rmtree"}
_CANNOT_WATCH = 77


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
    (target / "script.py").write_text(script)
    arguments = [
        sys.executable,
        __file__,
        str(target / "script.py"),
        str(template),
        str(target),
        fault,
        str(every_write),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode == _CANNOT_WATCH:
        pytest.skip("processes cannot be watched here (ptrace and seccomp, Linux on x86-64)")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return [Left(Path(folder), *others) for folder, *others in found]


def main(script: Path, template: Path, target: Path, fault: str, every_write: bool) -> int:
    """In the process that forks: prints the fields of `Left` as JSON."""
    # One worker: the steps then come in the same order every time.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    names: dict = {}
    exec(compile(script.read_text(), str(script), "exec"), names)
    if not tracing.available():
        if fault != "SIGKILL":
            return _CANNOT_WATCH
        print(json.dumps(audited(names["run"], template, target)))
        return 0
    # What a first run loads and sets up is then there in every child.
    names["run"](shutil.copytree(template, target / "first"))
    shutil.rmtree(target / "first")
    whole = shutil.copytree(template, target / "whole")
    steps, code = tracing.watch(lambda: names["run"](whole), whole, lambda number, step: None)
    assert code == 0, f"the run fails by itself: exit code {code}"
    shutil.rmtree(whole)
    if fault == "power":
        print(json.dumps(cut_off(names["run"], template, target)))
    else:
        wanted = [number for number in range(len(steps)) if every_write or not is_inner_write(steps, number)]
        print(json.dumps(watched(names["run"], template, target, fault, steps, wanted)))
    return 0


def watched(
    run: Callable[[Path], None],
    template: Path,
    target: Path,
    fault: str,
    steps: list[tracing.Step],
    wanted: list[int],
) -> list[tuple]:
    """Every step that is wanted and that the fault can hit."""
    stopped = []
    for number in wanted:
        step = steps[number]
        if fault in _FAILING and step.call not in _FAILING[fault][1]:
            continue
        folder = shutil.copytree(template, target / str(number))
        errors = target / f"{number}.txt"
        did, code = tracing.watch(lambda: run(folder), folder, hit(fault, number), errors)  # noqa: B023 (called now)
        assert did[: number + 1] == steps[: number + 1], f"other steps than in the first run: {did[-1]}, not {step}"
        stopped.append((str(folder), code, errors.read_text(), [str(done) for done in steps[:number]], str(step)))
    return stopped


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
    stopped: list[tuple] = []
    while True:
        folder = shutil.copytree(template, target / str(len(stopped)))
        child = os.fork()
        if child == 0:
            run_and_die(run, folder, len(stopped))
        status = os.waitpid(child, 0)[1]
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            assert status == 0, f"step {len(stopped)} failed by itself: status {status}"
            shutil.rmtree(folder)
            return stopped
        stopped.append((str(folder), -signal.SIGKILL, "", [], ""))


def run_and_die(run: Callable[[Path], None], folder: Path, step: int) -> None:
    """In the child: never returns."""
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
    sys.exit(main(*map(Path, sys.argv[1:4]), sys.argv[4], sys.argv[5] == "True"))
