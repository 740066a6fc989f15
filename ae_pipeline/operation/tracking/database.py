"""The database behind MLflow, where we open it ourselves: it answers, and one of our processes at a time works with it.

Two processes that make MLflow's tables at once ruin a database, and two that publish one training at once would make
two runs of it. A file beside an SQLite database is the lock; in PostgreSQL it is an advisory lock, which every machine
sees, and which is free as soon as the connection of its holder is gone. Behind an MLflow server there is none: there
`publish` takes the oldest of two runs.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from ae_pipeline.errors import TargetError
from ae_pipeline.files import make_folder

PATIENCE_S = 120.0
ADVISORY_LOCK = 0x61655F7069706531
"""The number of our lock in a PostgreSQL database: any that no other program takes there."""


def database_path(uri: str) -> Path:
    """The file of an SQLite database."""
    return Path(uri.removeprefix("sqlite:///"))


@contextmanager
def opened_alone(uri: str, patience: float = PATIENCE_S) -> Iterator[None]:
    """Try a database, and be the only process of ours that works with it; nothing is done for a server's address.

    Fails at once where MLflow would try again for minutes: no driver, no such database, no permission. Waits
    `patience` seconds for another process. Raises the errors of filelock, SQLAlchemy and the system.
    """
    if uri.startswith("sqlite:"):
        with database_lock(uri, patience):
            yield
    elif uri.startswith("postgresql"):
        with _advisory_lock(uri, patience):
            yield
    else:
        yield


def database_lock(uri: str, patience: float = PATIENCE_S) -> FileLock:
    """The lock beside an SQLite database, whose folder is made."""
    folder = database_path(uri).parent
    try:
        make_folder(folder)
    except TargetError:
        raise FileExistsError(errno.EEXIST, "a file is in the way of a folder", str(folder)) from None
    return FileLock(folder / ".publishing.lock", timeout=patience)


def try_database(uri: str) -> None:
    """Make a connection and close it; not where only MLflow knows the options that a database needs."""
    if uri.startswith(("http:", "https:", "file:", "postgresql")) or "://" not in uri:
        return
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    if engine.dialect.name == "sqlite":
        engine.connect().close()
    engine.dispose()


@contextmanager
def _advisory_lock(uri: str, patience: float) -> Iterator[None]:
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    # Without a transaction, which would keep the database from clearing up as long as it is open.
    engine = create_engine(uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    connection = engine.connect()
    try:
        connection.execute(text(f"SET lock_timeout = {int(1000 * patience)}"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        yield
    finally:
        with suppress(SQLAlchemyError):  # the server may be gone, and the lock with it
            connection.close()
