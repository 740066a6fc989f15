"""Two processes that act at the same time, in an order that a test decides.

    found = race(SCRIPT, folder)        # what `first` and `second` returned, or the error they ended with

SCRIPT defines `first(folder, meet)` and `second(folder, meet)`; `meet()` waits until the other one is there too.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def race(script: str, folder: Path) -> list[Any]:
    """Run both to their ends. An error of ours comes back as its text; any other fails."""
    done = subprocess.run(
        [sys.executable, __file__, script, str(folder)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in sorted(done.stdout.splitlines())]


def main(script: str, folder: Path) -> int:
    """Fork one child for each; it prints its number and its result."""
    names: dict = {}
    exec(compile(script, "script", "exec"), names)
    pipes = [os.pipe(), os.pipe()]
    children = []
    for number, name in enumerate(("first", "second")):
        child = os.fork()
        if child == 0:
            # Without these ends, a read ends when the other one does.
            os.close(pipes[number][1])
            os.close(pipes[1 - number][0])
            act(number, names[name], folder, meeting(pipes[number][0], pipes[1 - number][1]))
        children.append(child)
    for pipe in pipes:
        for end in pipe:
            os.close(end)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def meeting(theirs: int, ours: int) -> Callable[[], None]:
    """Tell the other one, and wait to be told."""

    def meet() -> None:
        os.write(ours, b".")
        assert os.read(theirs, 1), "the other one has ended"

    return meet


def act(number: int, do: Callable[[Path, Callable[[], None]], Any], folder: Path, meet: Callable[[], None]) -> None:
    from ae_pipeline.errors import PipelineError

    code = 1
    try:
        try:
            found = do(folder, meet)
        except PipelineError as error:
            found = f"{type(error).__name__}: {error}"
        os.write(1, json.dumps([number, found]).encode() + b"\n")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
