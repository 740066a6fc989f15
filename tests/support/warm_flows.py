"""Flows as people run them, `python -m flows.NAME`, in processes that begin with the libraries imported.

Importing Prefect, MLflow and torch takes five seconds of each run. Here one process imports them, and nothing of ours,
and forks for each flow: the child has its own memory, arguments and exit code, reads the flow's file as `__main__`, and
ends as any program does.
"""

import gc
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from warm import end_by

LIBRARIES = (
    "mlflow",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "prefect",
    "prefect.flow_engine",
    "prefect.task_engine",
    "pyarrow.parquet",
    "torch",
    "typer",
)


# A program given with `-c` begins with the libraries of the nursery (warm.py), which has all but Prefect.
_PROGRAM = f"import sys; sys.path.insert(1, {str(Path(__file__).parent)!r}); import warm_flows; warm_flows.serve()"


class WarmFlows:
    """A context manager; flows run in `folder` with this environment."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        # Flows set it when they begin (guarding.py); here MLflow is there before.
        self._folder, self._environment = folder, {**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}

    def __enter__(self) -> "WarmFlows":
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=self._folder, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=30)

    def run(self, name: str, arguments: tuple[str, ...], log: Path) -> tuple[int, str]:
        """Exit code, and what it printed, which is in the file `log`."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([name, *arguments, str(log)]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, log.read_text()


def serve() -> None:
    """Be the process that forks: a line of JSON for each flow comes in, and its exit code goes out."""
    import random
    import runpy
    from importlib import import_module

    for library in LIBRARIES:
        import_module(library)
    gc.collect()
    gc.freeze()
    sys.path[0] = str(Path.cwd())
    while line := sys.stdin.readline():
        name, *arguments, log = json.loads(line)
        pid = os.fork()
        if pid == 0:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            random.seed()
            sys.argv = [name, *arguments]
            end_by(partial(runpy.run_module, f"flows.{name}", run_name="__main__", alter_sys=True))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
