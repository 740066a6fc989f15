"""Trainings that are killed with -9 again and again, each time after a random number of steps, until one gets through.

    deaths = killed_until_done(train, seed=3, steps=40)   # in a process that may fork

A step is one of the optimizer's, wherever in the training it is made.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

MOST_LIVES = 200


def killed_until_done(train: Callable[[], None], seed: int, steps: int) -> int:
    """Call `train` in forked processes, each of which makes at most `steps` steps; returns how many were killed."""
    lengths = random.Random(seed)
    for lives in range(MOST_LIVES):
        if lived(train, lengths.randint(1, steps)):
            return lives
    raise AssertionError("the trainings make no progress")


def lived(train: Callable[[], None], steps: int) -> bool:
    """Call `train` in a forked process, which is killed at its step number `steps`; returns whether it got through."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            register_optimizer_step_post_hook(_Death(steps))
            train()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), f"exit code {code}"
    return code == 0


class _Death:
    """Counts steps, and kills the process at one of them: after the weights have changed, before anything else has."""

    def __init__(self, steps: int):
        self._left = steps

    def __call__(self, *_: object) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def main(cases: Path) -> None:
    """For each case a training that nothing stops and one that is killed again and again; prints both as JSON."""
    from ae_pipeline.cli.stages import run_stage
    from ae_pipeline.params import Params

    for case in json.loads(cases.read_text()):
        folder = Path(case["folder"])
        params = Params.model_validate(case["params"])
        run_stage("train", params, folder)  # here, so that what a first run loads is there in all that are forked
        (folder / "data/codec").rename(folder / "whole")
        (folder / "reports/history.csv").rename(folder / "whole.csv")
        deaths = killed_until_done(lambda: run_stage("train", params, folder), case["seed"], case["steps"])  # noqa: B023
        print(json.dumps({"name": case["name"], "deaths": deaths}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
