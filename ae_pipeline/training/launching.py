"""Starts the ranks of a training as processes of this machine, and ends all when one of them ends badly.

torchrun does the same for ranks on several machines (`torchrun --nproc-per-node 2 -m ae_pipeline stage train`).
"""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ae_pipeline.errors import WorkerError
from ae_pipeline.training.ranks import PEER_LOST, STORE

_LOOK_S = 0.2
# Seconds in which ranks end by themselves when one has failed, and then after SIGTERM.
_PATIENCE_S = 5.0


def run_ranks(command: Sequence[str], given: bytes, number: int) -> None:
    """Run `number` processes of `command`, each with `given` on standard input, until all have ended.

    Raises WorkerError if one is killed or fails for a reason of its own; SystemExit(1) if the first one has said why.
    """
    threads = str(max(1, torch.get_num_threads() // number))
    with tempfile.TemporaryDirectory(prefix="ae-pipeline-ranks-") as folder:
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(number):
                variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
                environment = {**os.environ, **variables, STORE: str(Path(folder, "store")), "OMP_NUM_THREADS": threads}
                # Ctrl-C in a terminal reaches this process alone, which ends the others.
                process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
                ranks.append(process)
                assert process.stdin is not None
                process.stdin.write(given)
                process.stdin.close()
            _watch(ranks, Path(folder, "error"))
        finally:
            _end(ranks)


def leave_error(text: str) -> None:
    """Tell the process that started this rank, which is not the first one, why it fails."""
    Path(os.environ[STORE]).with_name(f"error-{os.environ['RANK']}").write_text(text, encoding="utf-8")


def end_with_parent() -> None:
    """Let this process, a rank, end with the one that started it, also by kill -9."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _watch(ranks: list[subprocess.Popen[bytes]], errors: Path) -> None:
    codes: list[int | None] = [None]
    while None in codes and not any(codes):
        time.sleep(_LOOK_S)
        codes = [process.poll() for process in ranks]
    if not any(codes):
        return
    # The others find out by themselves that one is gone, or fail for the same reason, and the first one says it.
    end = time.monotonic() + _PATIENCE_S
    while any(process.poll() is None for process in ranks) and time.monotonic() < end:
        time.sleep(_LOOK_S)
    for rank, process in enumerate(ranks):
        if (code := process.returncode) is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = f"was ended by {name}" + (", as the system does when memory is lacking" if name == "SIGKILL" else "")
            raise _lost(rank, len(ranks), why)
    if ranks[0].returncode not in (None, 0, PEER_LOST):
        raise SystemExit(1)  # it has said why
    rank, code = next((rank, code) for rank, code in enumerate(codes) if code)
    said = errors.with_name(f"{errors.name}-{rank}")
    why = said.read_text(encoding="utf-8") if said.exists() else f"exit code {code}"
    raise _lost(rank, len(ranks), f"failed: {why}")


def _lost(rank: int, number: int, why: str) -> WorkerError:
    return WorkerError(
        f"process {rank + 1} of the {number} that train {why}; the others were ended, and nothing was written",
        advice="run the same command again: it goes on from the last checkpoint",
    )


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    for process in ranks:
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + _PATIENCE_S
    for process in ranks:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
