"""The local MLflow store belongs to its folder: addresses in its database lead to the files beside it.

MLflow writes absolute addresses. In a store that was moved, or copied with its checkout, they lead to where it was:
what is read comes from there, and what is written goes there. So they are put right before MLflow sees the database.
Works on SQLite alone, in one transaction: after a crash all of it is done, or nothing. Imports no MLflow.
"""

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ae_pipeline.errors import TrackingError
from ae_pipeline.files import make_folder

ARTIFACTS = "artifacts"
# Every column of MLflow's that says where files are; what an older database lacks is passed over. The origin of a data
# set (`datasets.dataset_source`) stays: it says where the data was.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_WITH_FILES = ("runs", "logged_models")


@dataclass(frozen=True)
class Strayed:
    """Addresses of our experiments that lead out of the store's folder."""

    origins: dict[Path, Path]
    """What addresses begin with, and what they are to begin with; longest first."""
    changes: list[tuple[str, str, int, str]]
    """Table, column, rowid, new address."""
    left: list[tuple[Path, Path]]
    """Files that lie where an address leads, and not here: from, to."""

    @property
    def origin(self) -> Path:
        """Where the store was."""
        first = next(iter(self.origins))
        return first.parent if first.name == ARTIFACTS else first


def settle_location(database: Path, experiments: tuple[str, ...]) -> None:
    """Make addresses lead beside the database; says so on standard error when it changed any.

    `experiments` are the names of ours; others count as ours if they hold runs of ours. The caller holds the lock.
    Raises TrackingError, and changes nothing, if files lie only where the addresses lead.
    """
    if not database.exists():
        return
    with closing(_open(database)) as connection:
        strayed = _find(connection, database.parent, experiments)
        if strayed is None:
            return
        if strayed.left:
            raise TrackingError(
                f"{database} leads to files that lie elsewhere: {len(strayed.left)} folder(s) in {strayed.origin} are "
                f"not in {database.parent}; `ae-pipeline tracking relocate` copies them here"
            )
        _change(connection, strayed)
    print(
        f"note: {database} came from {strayed.origin}; {len(strayed.changes)} addresses in it lead to its own folder "
        "now",
        file=sys.stderr,
    )


def relocate(database: Path, experiments: tuple[str, ...]) -> tuple[int, int]:
    """Copy here what lies elsewhere, then change the addresses. Returns how many addresses and folders that were.

    Files that are here already stay as they are; nothing is written anywhere else.
    """
    if not database.exists():
        return 0, 0
    with closing(_open(database)) as connection:
        strayed = _find(connection, database.parent, experiments)
        if strayed is None:
            return 0, 0
        for origin, target in strayed.left:
            make_folder(target.parent)
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(origin, partial)
            partial.rename(target)
        _change(connection, strayed)
    return len(strayed.changes), len(strayed.left)


def _open(database: Path) -> sqlite3.Connection:
    """Transactions are ours to begin; the wait for another program's is as long as MLflow's."""
    connection = sqlite3.connect(database, timeout=20, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def _find(connection: sqlite3.Connection, folder: Path, experiments: tuple[str, ...]) -> Strayed | None:
    """Find addresses that lead elsewhere, with one query that reads a row for each experiment; None if all is well."""
    if not _has(connection, "experiments", "artifact_location"):
        return None  # MLflow has not made its tables yet
    found = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
    outside = [(number, name, path) for number, name, address in found if (path := _outside(address, folder))]
    origins: dict[Path, Path] = {}
    for number, name, path in outside:
        if name in experiments or _is_ours(connection, number):
            origins[path] = folder / ARTIFACTS
            if path.parent.name == folder.name:  # the rest of the folder that the store was in
                origins.setdefault(path.parent, folder)
    if not origins:
        return None
    origins = dict(sorted(origins.items(), key=lambda pair: -len(pair[0].parts)))
    changes, left = [], []
    for table, column, row, address in _addresses(connection):
        moved = _moved(address, folder, origins)
        if moved is not None:
            old, new = moved
            changes.append((table, column, row, new.as_uri() if address.startswith("file:") else str(new)))
            if table in _WITH_FILES and old.exists() and not new.exists():
                left.append((old, new))
    return Strayed(origins, changes, left)


def _is_ours(connection: sqlite3.Connection, experiment: int) -> bool:
    """Whether an experiment holds a run that this package made, whatever it is called."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM runs JOIN tags USING (run_uuid) "
        "WHERE runs.experiment_id = ? AND tags.key LIKE 'ae_pipeline.%')"
    )
    return bool(connection.execute(query, (experiment,)).fetchone()[0])


def _addresses(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, str]]:
    for table, column in _COLUMNS:
        if _has(connection, table, column):
            where = "key = 'mlflow.artifactLocation'" if table == "trace_tags" else f"{column} IS NOT NULL"
            query = f"SELECT rowid, {column} FROM {table} WHERE {where}"  # noqa: S608 (names from the list above)
            yield from ((table, column, row, address) for row, address in connection.execute(query).fetchall())


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))


def _change(connection: sqlite3.Connection, strayed: Strayed) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table, column, row, address in strayed.changes:
            query = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608 (names from the list above)
            connection.execute(query, (address, row))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _path(address: str | None) -> Path | None:
    """The local path of an address; None if it is one of a server."""
    if address and address.startswith("file:"):
        return Path(unquote(urlsplit(address).path))
    return Path(address) if address and address.startswith("/") else None


def _outside(address: str | None, folder: Path) -> Path | None:
    """The path of a local address that does not lead into the folder."""
    path = _path(address)
    return None if path is None or path.is_relative_to(folder) else path


def _moved(address: str, folder: Path, origins: dict[Path, Path]) -> tuple[Path, Path] | None:
    """Where an address leads, and where it is to lead; None if it is none of ours, or right."""
    path = _outside(address, folder)
    if path is None:
        return None
    origin = next((origin for origin in origins if path.is_relative_to(origin)), None)
    return None if origin is None else (path, origins[origin] / path.relative_to(origin))
