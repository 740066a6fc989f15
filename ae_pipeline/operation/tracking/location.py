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


def settle_location(database: Path, experiments: tuple[str, ...], *, copy: bool = False) -> Strayed | None:
    """Make addresses lead beside the database; says what was changed, None if all was well.

    `experiments` are the names of ours; others count as ours if they hold runs of ours. The caller holds the lock.
    Files that lie only where the addresses lead are copied here with `copy`, beside those that are here already;
    without, TrackingError is raised and nothing is changed, and a change is told on standard error.
    """
    if not database.exists():
        return None
    # Transactions are ours to begin; the wait for another program's is as long as MLflow's.
    with closing(sqlite3.connect(database, timeout=20, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        strayed = _find(connection, database.parent, experiments)
        if strayed is None:
            return None
        if strayed.left and not copy:
            raise TrackingError(
                f"{database} leads to files that lie elsewhere: {len(strayed.left)} folder(s) in {strayed.origin} are "
                f"not in {database.parent}; `ae-pipeline tracking relocate` copies them here"
            )
        for origin, target in strayed.left:
            make_folder(target.parent)
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(origin, partial)
            partial.rename(target)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for table, column, row, address in strayed.changes:
                query = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608 (names from the list above)
                connection.execute(query, (address, row))
    if not copy:
        found = f"{database} came from {strayed.origin}; {len(strayed.changes)} addresses in it"
        print(f"note: {found} lead to its own folder now", file=sys.stderr)
    return strayed


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
    strayed = Strayed(origins, [], [])
    for table, column, row, address in _addresses(connection):
        path = _outside(address, folder)
        origin = next((origin for origin in origins if path is not None and path.is_relative_to(origin)), None)
        if path is None or origin is None:
            continue
        moved = origins[origin] / path.relative_to(origin)
        strayed.changes.append((table, column, row, moved.as_uri() if address.startswith("file:") else str(moved)))
        if table in _WITH_FILES and path.exists() and not moved.exists():
            strayed.left.append((path, moved))
    return strayed


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


def _outside(address: str | None, folder: Path) -> Path | None:
    """The path of a local address that does not lead into the folder; None also for an address of a server."""
    if not address or not address.startswith(("file:", "/")):
        return None
    path = Path(unquote(urlsplit(address).path) if address.startswith("file:") else address)
    return None if path.is_relative_to(folder) else path
