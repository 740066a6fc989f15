"""Kill a run before each of its file-changing steps in turn, as `kill -9` or a power cut of the machine would.

    for left in killed_at_every_step(SCRIPT, template, tmp_path / "killed"):
        ...                                     # a copy of `template`, as the killed run left it

SCRIPT defines `run(folder)`. One process imports everything and forks a child for each step: an audit hook counts the
renames, removals, new folders and files opened for writing below `folder`, and sends the child SIGKILL.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.move", "shutil.rmtree"}


def killed_at_every_step(script: str, template: Path, target: Path) -> list[Path]:
    """Copies of `template`, one for each step, in order. The run must get through when it is not killed."""
    target.mkdir()
    (target / "script.py").write_text(script)
    arguments = [sys.executable, __file__, str(target / "script.py"), str(template), str(target)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [target / str(step) for step in range(int(done.stdout.split()[-1]))]


def changes_files(event: str, arguments: tuple, folder: str) -> bool:
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and str(path).startswith(folder)
    return event in CHANGES and str(arguments[0]).startswith(folder)


def run_and_die(run, folder: Path, step: int) -> None:
    seen = 0

    def count(event, arguments):
        nonlocal seen
        if changes_files(event, arguments, str(folder)):
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(count)
    run(folder)


def main(script: Path, template: Path, target: Path) -> None:
    # One worker: the steps then come in the same order every time.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    names: dict = {}
    exec(compile(script.read_text(), str(script), "exec"), names)
    for step in range(1000):
        folder = target / str(step)
        shutil.copytree(template, folder)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run_and_die(names["run"], folder, step)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code) if code == 0 else None
        status = os.waitpid(child, 0)[1]
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            assert status == 0, f"step {step} failed by itself: status {status}"
            shutil.rmtree(folder)
            print(step)
            return


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
