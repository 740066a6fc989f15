"""Where MLflow keeps things: its address, a client for it, its pages, and the codecs of registered models."""

import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ae_pipeline.codec.header import read_header
from ae_pipeline.errors import TrackingError, first_line
from ae_pipeline.operation.tracking.database import (
    PATIENCE_S,
    database_lock,
    database_path,
    opened_alone,
    try_database,
)
from ae_pipeline.operation.tracking.failures import check_address, explain
from ae_pipeline.operation.tracking.location import ARTIFACTS, settle_location
from ae_pipeline.params import Params

_DEFAULTS = {
    # Long enough for a server that is starting, short enough for one that is gone (MLflow's own default is minutes).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "PGCONNECT_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def tracking_uri(params: Params, root: Path) -> str:
    """MLFLOW_TRACKING_URI, or an absolute SQLite URI in `paths.tracking`.

    `dvc exp run --temp` and `--queue` work in copies below .dvc/tmp that are deleted: they log to the original.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or _local_uri(params, root)


@contextmanager
def connect(
    params: Params, root: Path, command: str = "publish", patience: float = PATIENCE_S
) -> Iterator[tuple[Any, str]]:
    """MLflow's client. A local database is used by one process at a time; MLflow's errors become ours.

    `command` is the one that an error message says to run again; "": whatever was run, a flow perhaps. `patience`:
    seconds to wait for another process. A default store that came from elsewhere is put right first
    (`tracking/location.py`).
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # It logs a traceback of what it raises as well: a database that goes away is one line of ours.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = tracking_uri(params, root)
    check_address(uri)
    try:
        with ExitStack() as stack:
            stack.enter_context(_addresses_kept())
            stack.enter_context(opened_alone(uri, patience))
            if uri == _local_uri(params, root):
                settle_location(database_path(uri), experiment_names(params))
            try_database(uri)
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            client = mlflow.MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
            yield client, uri
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ModuleNotFoundError) as error:
        raise TrackingError(explain(error, uri, command)) from None


def experiment_names(params: Params) -> tuple[str, ...]:
    """The experiments that this package makes: trainings, sweeps, batches."""
    return tuple(f"{params.tracking.experiment}{kind}" for kind in ("", "-sweep", "-monitor"))


def experiment_id(client: Any, name: str, params: Params, root: Path, uri: str) -> str:
    """Id of the experiment of that name, which is made when there is none. Raises TrackingError if it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # The local store keeps files beside its database; those of PostgreSQL are in the same place. A server knows
        # itself where they go.
        place = database_path(_local_uri(params, root)).parent / ARTIFACTS
        is_ours = uri == _local_uri(params, root) or uri.startswith("postgresql")
        return client.create_experiment(name, place.as_uri() if is_ours else None)
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"experiment {name} is in MLflow's trash; restore it there or set tracking.experiment")
    return found.experiment_id


def relocate_store(params: Params, root: Path) -> str:
    """Make the default store hold its own files; says in a line what was done. Raises TrackingError."""
    uri = tracking_uri(params, root)
    if uri != _local_uri(params, root):
        raise TrackingError(f"MLFLOW_TRACKING_URI is {uri}; only the store in {params.paths.tracking} can be relocated")
    try:
        with database_lock(uri):
            strayed = settle_location(database_path(uri), experiment_names(params), copy=True)
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(explain(error, uri, "tracking relocate")) from None
    if strayed is None:
        return f"{database_path(uri)}: every address leads to its own folder; nothing to do"
    changes, copies = len(strayed.changes), len(strayed.left)
    return f"{database_path(uri)}: {changes} addresses lead to its own folder now; {copies} folder(s) were copied here"


@contextmanager
def _addresses_kept() -> Iterator[None]:
    """Put MLflow's addresses back as they were: set in this process, by a variable, or not at all.

    Setting one writes the variable of the same name, too, which child processes inherit.
    """
    import mlflow

    variables = {name: os.environ.pop(name, None) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    tracking = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    # A registry without an address of its own has the tracking address.
    registry = mlflow.get_registry_uri() if mlflow.get_registry_uri() != mlflow.get_tracking_uri() else None
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def ui_command(params: Params, root: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a small MLflow server on loopback (the defaults start 15 processes)."""
    uri = tracking_uri(params, root)
    check_address(uri)
    if uri.startswith("http"):
        raise TrackingError(f"MLFLOW_TRACKING_URI is {uri}; open that address, a server of its own is not needed")
    if not uri.startswith(("sqlite:", "postgresql")):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {uri}, which has no pages of its own; `mlflow server --backend-store-uri "
            '"$MLFLOW_TRACKING_URI"` serves them'
        )
    with connect(params, root, "mlflow-ui"):
        pass  # makes the database if there is none yet
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Every user of the machine sees the words of a command; there may be a password in this one.
    return command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}


def fetch_codec(model_uri: str, params: Params, root: Path, target: Path) -> Path:
    """Copy the codec of a registered model version into `target`; no code of the model is run.

    `model_uri` is models:/<name>@<alias> or models:/<name>/<version>. Raises TrackingError, CodecError.
    """
    if not store_exists(params, root):
        raise TrackingError(
            f"no MLflow store at {tracking_uri(params, root)}; run this in the folder of the pipeline, or set "
            "MLFLOW_TRACKING_URI"
        )
    with connect(params, root, "") as (_, uri):
        return copy_codec(uri, model_uri, target)


def copy_codec(uri: str, model_uri: str, target: Path) -> Path:
    """`fetch_codec` inside a connection."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    _, _, version = model_uri.removeprefix("models:/").replace("@", "/").partition("/")
    if not model_uri.startswith("models:/") or not version:
        raise TrackingError(f"{model_uri} is not a model: expected models:/<name>@<alias> or models:/<name>/<version>")
    try:
        found = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(target), tracking_uri=uri)
    except MlflowException as error:
        raise TrackingError(f"no codec {model_uri} at {uri}: {first_line(error)}; see the Models page") from None
    folder = Path(found) / "artifacts" / "codec"
    read_header(folder)
    return folder


def find_run(client: Any, run_id: str | None) -> Any | None:
    """A run; None if there is none of that id, or no longer: in the trash, where MLflow changes nothing, or removed."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run is not None and run.info.lifecycle_stage == "active" else None


def pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """All that a search of the client finds. What is changed between two pages may be passed over."""
    token: str | None = ""
    while token is not None:
        page = search(*arguments, page_token=token or None, **options)
        yield from page
        token = page.token or None


def versions_of(client: Any, name: str) -> dict[str, Any]:
    """The versions of a registered model, oldest first, by their numbers; none if there is no such model."""
    found = pages(client.search_model_versions, f"name = '{name}'")
    return {str(item.version): item for item in sorted(found, key=lambda item: int(item.version))}


def store_exists(params: Params, root: Path) -> bool:
    """Whether there is anything to ask: a local database may not have been made yet, and asking would make it."""
    uri = tracking_uri(params, root)
    return not uri.startswith("sqlite:///") or database_path(uri).exists()


def _local_uri(params: Params, root: Path) -> str:
    """The local store, of the workspace that an experiment was started from."""
    root = root.resolve()
    for folder in root.parents:
        if folder.name == ".dvc" and (folder / "tmp" / "exps") in root.parents:
            root = folder.parent
    return f"sqlite:///{(root / params.paths.tracking).resolve() / 'mlflow.db'}"
