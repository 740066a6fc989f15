"""What takes long to make, made once for all processes of a test run: empty databases, and what others ask for.

Prefect and MLflow take five seconds of migrations for a database that has all tables and no rows of ours.
tests/operation/test_tracking.py and tests/operation/test_serving.py begin without one, as people do.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

SHARED = "AE_TEST_SHARED"
"""The variable with the folder that the processes of a test run share."""


def share() -> Callable[[], None]:
    """Make the shared folder, in the process that starts the others; gives what removes it in the end."""
    if SHARED in os.environ:
        return lambda: None
    os.environ[SHARED] = folder = tempfile.mkdtemp(prefix="ae-tests-")

    def remove() -> None:
        del os.environ[SHARED]
        shutil.rmtree(folder, ignore_errors=True)  # it may be gone with all that tests wrote

    return remove


def copy_prefect_home(home: Path) -> None:
    """Give a Prefect server its database."""
    shutil.copyfile(shared("prefect.db", _make_prefect), home / "prefect.db")


def copy_mlflow_database(path: Path) -> None:
    """Put MLflow's database at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shared("mlflow.db", _make_mlflow), path)


def shared(name: str, make: Callable[[Path], None]) -> Path:
    """A file or folder of the shared folder, made by whoever asks first."""
    path = Path(os.environ[SHARED], name)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            work = path.parent / f"{name}.work"
            work.mkdir()
            make(work / name)
            (work / name).rename(path)
    return path


def _make_prefect(path: Path) -> None:
    _run(["prefect", "server", "database", "upgrade", "-y"], PREFECT_HOME=str(path.parent), PREFECT_API_URL="")
    with sqlite3.connect(path) as database:  # what it still has beside it
        database.execute("pragma wal_checkpoint(truncate)")
    database.close()


def _make_mlflow(path: Path) -> None:
    code = (
        "import mlflow, sys; mlflow.MlflowClient(*2 * [f'sqlite:///{sys.argv[1]}']).search_experiments(max_results=1)"
    )
    _run(["-c", code, str(path)])


def _run(arguments: list[str], **environment: str) -> None:
    command = [sys.executable, *([] if arguments[0] == "-c" else ["-m"]), *arguments]
    # Every process of ours has this: some tests note which of those that load MLflow may read pickles.
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
