"""What MLflow's errors mean and what helps, in one line. It works on messages: MLflow may be missing."""

import errno
import re
import textwrap
from importlib import resources
from urllib.parse import urlsplit

from ae_pipeline.errors import TrackingError, first_line, without_secrets

# The packages of database drivers that are called otherwise than their module.
_DRIVERS = {"psycopg2": "'ae-pipeline[postgres]'", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}
_LONGEST = 200
_VARIABLE = "MLFLOW_TRACKING_URI"
_WRITABLE = f"make it possible to write {{place}}, or set paths.tracking or {_VARIABLE} to another place"
# Signs, of which one stands in a message or is an error's `<class>`; what they mean; what helps.
_ADDRESS_OR_DATABASE = (
    (
        ("<NoSuchModuleError>", "<ArgumentError>", "unsupported URI"),
        "MLflow knows no addresses like {uri}",
        f"set {_VARIABLE} to http://..., https://..., postgresql://... or sqlite:////absolute/path/mlflow.db, "
        "or unset it",
    ),
    (
        ("filesystem tracking backend",),
        "it is a folder, and MLflow keeps runs in databases now",
        f"set {_VARIABLE} to sqlite:////absolute/path/mlflow.db (`mlflow migrate-filestore` moves the runs there), or "
        "unset it",
    ),
    (
        ("file is not a database", "is malformed"),
        "it is no database, or damaged",
        "restore it from a copy, or move it away (a new one is made, and knows nothing of the champion)",
    ),
    (("unable to open database file", "readonly database"), "its database cannot be opened for writing", _WRITABLE),
    (
        ("database is locked", "<Timeout>", "due to lock timeout"),
        "another program holds its database",
        "wait until that one is done, or end it",
    ),
    (
        ("password authentication failed", "Access denied for user", "no password supplied"),
        "its database refuses the user or the password",
        f"correct them in {_VARIABLE}",
    ),
)
_REACHABLE = f"check {_VARIABLE}, network and server, wait until it can be reached"
_CONNECTION = (
    (("NameResolutionError", "could not translate host name"), "its name is not known", _REACHABLE),
    (("SSLError", "CERTIFICATE_VERIFY_FAILED"), "its certificate is not trusted", _REACHABLE),
    (("Connection refused",), "nothing answers there (connection refused)", _REACHABLE),
    (("timed out", "Timeout"), "no answer came in time", _REACHABLE),
    (
        (
            *("Max retries exceeded", "RemoteDisconnected", "Connection reset", "server closed the connection"),
            *("terminating connection", "connection already closed", "connection is closed"),
        ),
        "the connection fails",
        _REACHABLE,
    ),
    (
        ("the database system is",),  # starting up, shutting down, in recovery
        "its database is being started or stopped",
        _REACHABLE,
    ),
)


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
    text = str(error)
    place = uri.removeprefix("sqlite:///")
    if isinstance(error, ModuleNotFoundError):
        name = error.name or text
        return f"it needs the package {name}, which is not installed here", f"`pip install {_DRIVERS.get(name, name)}`"
    if match := re.search(r"out-of-date database schema \(found version (\w+)", text):
        return _of_another_mlflow(match.group(1), uri)
    signed = f"<{type(error).__name__}> {text}"
    known = _look_up(_ADDRESS_OR_DATABASE, signed) or _answer(text) or _look_up(_CONNECTION, text)
    if known:
        found, advice = known
        return found.format(uri=uri), advice.format(place=place)
    if isinstance(error, OSError) and error.errno is not None:
        found = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return found, "free space" if is_full else _WRITABLE.format(place=place)
    # The first sentence or so, with whole words.
    sentence = textwrap.shorten(first_line(Exception(text.strip())), _LONGEST, placeholder=" ...").rstrip(".")
    return sentence, "see the server's log and pages for it, or `ae-pipeline mlflow-ui`, and correct it"


def _look_up(meanings: tuple[tuple[tuple[str, ...], str, str], ...], text: str) -> tuple[str, str] | None:
    return next((known[1:] for known in meanings if any(sign in text for sign in known[0])), None)


def _of_another_mlflow(schema: str, uri: str) -> tuple[str, str]:
    """A database is older than the installed MLflow if that knows a way from its schema to its own."""
    scripts = resources.files("mlflow").joinpath("store", "db_migrations", "versions")
    if any(script.name.startswith(schema) for script in scripts.iterdir()):
        address = uri if without_secrets(uri) == uri else f"${_VARIABLE}"
        return (
            f"its database was made by an older MLflow (schema {schema})",
            f'make a copy of the database, run `mlflow db upgrade "{address}"`',
        )
    return (
        f"its database was made by a newer MLflow than the one here (schema {schema})",
        "install that one, or what requirements.lock names in a newer ae-pipeline",
    )


def _answer(text: str) -> tuple[str, str] | None:
    """What an HTTP server answered that is not MLflow's answer to the question."""
    match = re.search(r"error code (\d{3})|too many (\d{3}) error", text)
    status = int(match.group(1) or match.group(2)) if match else 0
    status = 403 if "PERMISSION_DENIED" in text else status
    if "Invalid Host header" in text:
        return "it does not serve under this name (403)", "start it with `--allowed-hosts` and this name"
    if status in (401, 403):
        who = "does not know who asks" if status == 401 else "does not permit this"
        somebody = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to somebody who may"
        )
        return f"its server {who} ({status})", f"set {somebody}"
    if status == 429 or status >= 500:
        return f"its server is not well (it answers {status})", "see the server's log, wait until it is"
    if status or "not in a valid JSON format" in text:
        what = f"the answer is {status}" if status else "the answer is a page for people"
        return f"no MLflow server answers there ({what})", f"correct {_VARIABLE} (a server below a path needs the path)"
    return None
