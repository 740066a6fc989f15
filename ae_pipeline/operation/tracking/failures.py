"""What MLflow's errors mean and what helps, in one line. Imports no MLflow: works on its messages."""

import errno
import re
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

from ae_pipeline.errors import TrackingError, first_line, without_secrets

# The packages of database drivers that are called otherwise than their module.
_DRIVERS = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "psycopg[binary]",
    "MySQLdb": "mysqlclient",
}
_LONGEST = 200
_VARIABLE = "MLFLOW_TRACKING_URI"


def explain(error: BaseException, uri: str, command: str) -> str:
    """The message of a TrackingError. `command` is what to run again, e.g. `publish`; "": what was run."""
    found, advice = _explain(error, uri)
    kept = ". Results on disk are complete" if command in ("publish", "sweep") else ""
    again = f"then run `ae-pipeline {command}`" if command else "then run this again"
    return without_secrets(f"MLflow at {uri} failed: {found}{kept}; {advice}, {again}")


def check_address(uri: str) -> None:
    """Refuse an address whose parts cannot be told apart, without showing it. Raises TrackingError."""
    try:
        if "://" not in uri and "@" in uri:
            raise TrackingError(f"{_VARIABLE} does not begin with http://, https://, postgresql:// or the like; add it")
        if not uri.startswith("sqlite:"):
            _ = urlsplit(uri).port
    except ValueError:
        raise TrackingError(
            f"{_VARIABLE} cannot be read: its port is no number up to 65535, or its host is not whole; in user and "
            "password write %2F for /, %3A for :, %40 for @, %23 for #, %3F for ?, %5B for [ and %5D for ]"
        ) from None


def _explain(error: BaseException, uri: str) -> tuple[str, str]:
    """What was found, and what to do."""
    for find in (_package, _address, _schema, _database, _answer, _connection, _file):
        found = find(error, uri)
        if found is not None:
            return found
    return _sentence(str(error)), "see the server's log and pages for it, or `ae-pipeline mlflow-ui`, and correct it"


def _package(error: BaseException, uri: str) -> tuple[str, str] | None:  # noqa: ARG001 (one of several that are alike)
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = error.name or str(error)
    return f"it needs the package {name}, which is not installed here", f"`pip install {_DRIVERS.get(name, name)}`"


def _address(error: BaseException, uri: str) -> tuple[str, str] | None:
    known = "http://..., https://..., postgresql://... or sqlite:////absolute/path/mlflow.db"
    if type(error).__name__ in ("NoSuchModuleError", "ArgumentError") or "unsupported URI" in str(error):
        return f"MLflow knows no addresses like {uri}", f"set {_VARIABLE} to {known}, or unset it"
    if "filesystem tracking backend" in str(error):
        return (
            "it is a folder, and MLflow keeps runs in databases now",
            f"set {_VARIABLE} to sqlite:////absolute/path/mlflow.db (`mlflow migrate-filestore` moves the runs there), "
            "or unset it",
        )
    return None


def _schema(error: BaseException, uri: str) -> tuple[str, str] | None:
    match = re.search(r"out-of-date database schema \(found version (\w+)", str(error))
    if match is None:
        return None
    version = match.group(1)
    if _is_known_schema(version):
        place = uri if without_secrets(uri) == uri else f"${_VARIABLE}"
        return (
            f"its database was made by an older MLflow (schema {version})",
            f'make a copy of the database, run `mlflow db upgrade "{place}"`',
        )
    return (
        f"its database was made by a newer MLflow than the one here (schema {version})",
        "install that one, or what requirements.lock names in a newer ae-pipeline",
    )


def _is_known_schema(version: str) -> bool:
    """Whether the installed MLflow knows a way from that schema to its own."""
    from importlib.util import find_spec

    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    scripts = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    return any(path.name.startswith(version) for path in scripts.glob("*.py"))


def _database(error: BaseException, uri: str) -> tuple[str, str] | None:
    text = str(error)
    if "file is not a database" in text or "is malformed" in text:
        return (
            "it is no database, or damaged",
            "restore it from a copy, or move it away (a new one is made, and knows nothing of the champion)",
        )
    if "unable to open database file" in text or "readonly database" in text:
        return "its database cannot be opened for writing", _permission(uri)
    if "database is locked" in text or type(error).__name__ == "Timeout":
        return "another program holds its database", "wait until that one is done, or end it"
    if "password authentication failed" in text or "Access denied for user" in text or "no password supplied" in text:
        return "its database refuses the user or the password", f"correct them in {_VARIABLE}"
    return None


def _answer(error: BaseException, uri: str) -> tuple[str, str] | None:  # noqa: ARG001
    """What an HTTP server answered that is not MLflow's answer to the question."""
    text = str(error)
    match = re.search(r"error code (\d{3})|too many (\d{3}) error", text)
    status = int(match.group(1) or match.group(2)) if match else 0
    if "PERMISSION_DENIED" in text:
        status = 403
    if "Invalid Host header" in text:
        return "it does not serve under this name (403)", "start it with `--allowed-hosts` and this name"
    if status in (401, 403):
        who = "does not know who asks" if status == 401 else "does not permit this"
        return (
            f"its server {who} ({status})",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to somebody who may",
        )
    if status == 429 or status >= 500:
        return f"its server is not well (it answers {status})", "see the server's log, wait until it is"
    if status or "not in a valid JSON format" in text:
        what = f"the answer is {status}" if status else "the answer is a page for people"
        return (
            f"no MLflow server answers there ({what})",
            f"correct {_VARIABLE} (a server below a path needs the path)",
        )
    return None


def _connection(error: BaseException, uri: str) -> tuple[str, str] | None:  # noqa: ARG001
    text = str(error)
    signs = {
        "NameResolutionError": "its name is not known",
        "could not translate host name": "its name is not known",
        "SSLError": "its certificate is not trusted",
        "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted",
        "Connection refused": "nothing answers there (connection refused)",
        "timed out": "no answer came in time",
        "Timeout": "no answer came in time",
        "Max retries exceeded": "the connection fails",
        "RemoteDisconnected": "the connection fails",
        "Connection reset": "the connection fails",
        "server closed the connection": "the connection fails",
    }
    found = next((meaning for sign, meaning in signs.items() if sign in text), None)
    if found is None:
        return None
    return found, f"check {_VARIABLE}, network and server, wait until it can be reached"


def _file(error: BaseException, uri: str) -> tuple[str, str] | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    place = f" ({error.filename})" if error.filename else ""
    found = f"{error.strerror}{place}"
    return found, "free space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else _permission(uri)


def _permission(uri: str) -> str:
    place = uri.removeprefix("sqlite:///")
    return f"make it possible to write {place}, or set paths.tracking or {_VARIABLE} to another place"


def _sentence(text: str) -> str:
    """The first sentence or so of a library's message, with whole words."""
    line = first_line(Exception(text.strip()))
    return textwrap.shorten(line, _LONGEST, placeholder=" ...").rstrip(".")
