"""A PostgreSQL cluster on loopback, of Debian's package or whatever is installed, run by an ordinary user.

skip_without_postgres()         # in a test or fixture: skips, and says what is missing
with cluster() as server:
    server.make("mlflow", template=None)          # a database; gives its URL
    server.restart("immediate")                   # as a crash would; "fast": as an operator does
"""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "geheim"
# Who runs it where the tests run as root: PostgreSQL refuses that.
_USERS = ("postgres", "nobody")


def programs() -> Path | None:
    """The folder of initdb and postgres; Debian has it outside PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


def skip_without_postgres() -> None:
    if programs() is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    for module, package in (("psycopg2", "psycopg2-binary"), ("asyncpg", "asyncpg")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {package}: pip install 'ae-pipeline[postgres]'")


class Cluster:
    def __init__(self, folder: Path):
        self._folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self._options = _as_ordinary_user()
        if self._options:
            os.chown(folder, self._options["user"], self._options["group"])
        (folder / "password").write_text(PASSWORD)
        self.run("initdb", "-D", "data", "-U", "tester", "-A", "scram-sha-256", "--pwfile", "password", "--no-sync",
                 "--no-instructions", "-E", "UTF8", "--locale", "C")  # fmt: skip

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self.run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "stop", "-w", "-D", "data", "-m", mode)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def make(self, name: str, template: str | None = None) -> str:
        """A new database, a copy of another one or empty; gives its URL."""
        like = f" TEMPLATE {template}" if template else ""
        self.sql(f"CREATE DATABASE {name}{like}")
        return self.url(name)

    def url(self, name: str, driver: str = "postgresql") -> str:
        return f"{driver}://tester:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self.run("psql", "-d", self.url(database), "-At", "-c", statement)

    def run(self, program: str, *arguments: str) -> str:
        """One of PostgreSQL's programs, as the ordinary user."""
        folder = programs()
        assert folder is not None
        with (self._folder / "said").open("w+") as said:  # not a pipe: the server that is started would keep it open
            done = subprocess.run(
                [str(folder / program), *arguments], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, check=False, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                **self._options,
            )  # fmt: skip
            said.seek(0)
            output = said.read()
        assert done.returncode == 0, output
        return output.strip()


@contextmanager
def cluster() -> Iterator[Cluster]:
    # Not in pytest's folder, which is closed to other users.
    with tempfile.TemporaryDirectory(prefix="ae-postgres-", ignore_cleanup_errors=True) as name:
        made = Cluster(Path(name))
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")


def _as_ordinary_user() -> dict[str, Any]:
    """How a program is started so that it is not root's."""
    if os.geteuid() != 0:
        return {}
    there = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(there[name] for name in _USERS if name in there)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
