"""`ae-pipeline worker` and `ae-pipeline recover`: a worker for the deployments, and what must be put right before it.

The work on Prefect's records is done by flows/recovery.py in a process of its own: the package knows no Prefect.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from ae_pipeline.errors import ServeError

POOL = "ae-pipeline"
_ERROR = "error: "


def recover(root: Path) -> None:
    """Have Prefect close the runs that were killed here, and free the slots that nobody holds. Raises ServeError."""
    if not (root / "flows").is_dir() or not (root / "prefect.yaml").exists():
        raise ServeError(f"no flows/ and prefect.yaml in {root.resolve()}; run this in the folder of the pipeline")
    command = [sys.executable, "-m", "flows.recovery"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        last = lines[-1].strip() if lines else "no output"
        raise ServeError(last.removeprefix(_ERROR))
    print("\n".join(lines), end="\n" if lines else "", flush=True)


def start_worker(root: Path) -> None:
    """Recover, then become Prefect's worker. Raises ServeError; does not return."""
    recover(root)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    os.chdir(root)
    os.execv(command[0], [*command, "--name", worker_name()])  # noqa: S606 (systemd and `serve` signal this process)


def worker_name() -> str:
    """Name of the worker that is this process. It stands on every run that the worker takes, from the first moment."""
    return f"{socket.gethostname()}:{os.getpid()}"


def process_of_worker(name: str) -> tuple[str, int] | None:
    """Host and process of a worker with such a name; None for one that was started otherwise."""
    host, _, pid = name.rpartition(":")
    return (host, int(pid)) if host and pid.isdigit() else None
