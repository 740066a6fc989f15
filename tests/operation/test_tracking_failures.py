"""What MLflow's failures are told as: real states, each with advice for it, and never a password."""

import http.server
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from ae_pipeline.cli.summary import summarise_workspace
from ae_pipeline.errors import ConfigError, PipelineError, TrackingError, without_secrets
from ae_pipeline.operation.champion.moves import champion_version, history
from ae_pipeline.operation.monitoring import monitor_batches
from ae_pipeline.operation.tracking.connection import connect, fetch_codec, ui_command
from ae_pipeline.operation.tracking.publish import publish
from ae_pipeline.store.latent_store import LatentStore
from flows.artifacts import model_link, run_link

pytestmark = pytest.mark.slow

SECRET = "geheim"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:geheim@127.0.0.1:5/x failed", "at http://127.0.0.1:5/x failed"),
        ("https://geheim@host/a", "https://host/a"),
        ("postgresql://me:ge/heim@db:5432/m, then", "postgresql://db:5432/m, then"),
        ("postgresql://me:g@eheim@db/m", "postgresql://db/m"),
        ("postgresql://me:12/geheim@db/m", "postgresql://db/m"),
        ("mysql+pymysql://root:@db/x", "mysql+pymysql://db/x"),
        ("https://host/a?sig=geheim&x=1; then", "https://host/a?...; then"),
        ("(http://u:geheim@h:80/?token=geheim).", "(http://h:80/?...)."),
        ("zip://a.zip::https://u:geheim@h/x.zip", "zip://a.zip::https://h/x.zip"),
        ("abfss://c:geheim@account/x", "abfss://account/x"),
        ("'sftp://u:geheim@h/x' and 's3://k:geheim@b/x'", "'sftp://h/x' and 's3://b/x'"),
    ],
)
def test_users_passwords_and_queries_of_urls_are_not_shown(text, shown):
    assert without_secrets(text) == shown
    assert str(PipelineError(text)) == shown
    assert SECRET not in repr(TrackingError(text))


@pytest.mark.parametrize(
    "text",
    [
        "models:/mnist-ae@champion at http://127.0.0.1:5000; mail me@example.com",
        "http://127.0.0.1:5000/models@v1",
        "abfss://container@account.dfs.core.windows.net/x",
        "sqlite:////tmp/a@b/mlflow.db",
        "s3://bucket/part-?.parquet",
        "10:30 @ s3://bucket/x",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_long_texts_take_no_time():
    for text in ("a" * 200_000 + "://", "http://" * 10_000, "s3://" + "a:" * 50_000, "http://x?" * 10_000):
        assert without_secrets(text) == text  # in quadratic time it would take minutes


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers every question alike."""

    def answer(self):
        status, body = self.server.answer
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 (names of the base class)

    def log_message(self, *_):
        pass


@pytest.fixture
def answering(monkeypatch):
    """An HTTP server whose answer a test sets; MLflow is told its address with a password in it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield server
        server.shutdown()
        thread.join()


def told(params, root):
    with pytest.raises(TrackingError) as raised:
        history(params, root)
    text = str(raised.value)
    assert SECRET not in text
    assert "\n" not in text
    assert text.endswith("then run `ae-pipeline history`")
    return text


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"You are not authenticated", "does not know who asks (401); set MLFLOW_TRACKING_USERNAME and"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "does not permit this (403)"),
        (403, b"Invalid Host header - possible DNS rebinding attack detected", "start it with `--allowed-hosts`"),
        (503, b"<html>Service Unavailable</html>", "is not well (it answers 503); see the server's log"),
        (200, b"<html>Welcome</html>", "no MLflow server answers there (the answer is a page for people); correct"),
        (404, b"<html>nothing here</html>", "no MLflow server answers there (the answer is 404); correct MLFLOW"),
    ],
)
def test_what_a_server_answers(status, body, words, answering, tiny_params, tmp_path):
    answering.answer = status, body
    assert words in told(tiny_params, tmp_path)


def test_a_server_that_is_away(tiny_params, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    text = told(tiny_params, tmp_path)
    assert "http://127.0.0.1:9 failed: nothing answers there (connection refused); check" in text


def test_a_driver_that_is_not_installed(tiny_params, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql+cymysql://me:{SECRET}@127.0.0.1/mlflow")
    assert "it needs the package cymysql, which is not installed here; `pip install cymysql`" in told(
        tiny_params, tmp_path
    )


def test_postgresql_without_its_driver_or_without_its_server_is_one_line(tmp_path):
    """The driver may be here or not: each time it is a line, and at once."""
    uri = f"postgresql://me:{SECRET}@127.0.0.1:9/mlflow"
    shutil.copy(Path(__file__).parents[2] / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "ae_pipeline", "history"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: MLflow at postgresql://127.0.0.1:9/mlflow failed: ")
    assert done.stderr.count("\n") == 1
    try:
        create_engine(uri)
    except ModuleNotFoundError:
        assert "`pip install 'ae-pipeline[postgres]'`" in done.stderr
    else:
        assert "connection refused" in done.stderr


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("foo://me:geheim@host/x", "MLflow knows no addresses like foo://host/x; set MLFLOW_TRACKING_URI to http"),
        ("mlruns", "it is a folder, and MLflow keeps runs in databases now; set MLFLOW_TRACKING_URI to sqlite"),
    ],
)
def test_addresses_that_mlflow_does_not_take(uri, words, tiny_params, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert words in told(tiny_params, tmp_path)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://[::1:geheim@host", "its host is not whole"),
        ("http://me:pw@host:geheim", "its port is no number"),
        ("http://me:pw@host:99999", "its port is no number up to 65535"),
        ("postgresql://me:pw@host:geheim/db", "its port is no number"),
        ("postgresql://me:geheim/x@host/db", "write %2F for /"),
        ("me:geheim@host:5000", "does not begin with http://"),
        ("http:me:geheim@host", "does not begin with http://"),
    ],
)
def test_an_address_that_cannot_be_taken_apart_is_one_line_without_it(uri, words, tiny_params, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for use in (lambda: history(tiny_params, tmp_path), lambda: ui_command(tiny_params, tmp_path, 5000)):
        with pytest.raises(TrackingError) as raised:
            use()
        assert words in str(raised.value)
        assert SECRET not in str(raised.value)


def test_what_is_run_by_a_flow_or_by_encode_does_not_name_another_command(tiny_params, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for use in (
        lambda: fetch_codec("models:/mnist-ae@champion", tiny_params, tmp_path, tmp_path),
        lambda: champion_version(tiny_params, tmp_path),
        lambda: monitor_batches(tiny_params, tmp_path),
    ):
        with pytest.raises(TrackingError, match=r"wait until it can be reached, then run this again$") as raised:
            use()
        assert "Results on disk" not in str(raised.value)


@pytest.fixture
def database(published, tmp_path, monkeypatch):
    shutil.copy(published[0] / "as_published/mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path / "mlflow.db"


def set_schema(database, version):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_a_database_of_an_older_mlflow_is_upgraded_by_the_command_that_is_named(database, tiny_params, tmp_path):
    from mlflow.store.db.utils import _get_latest_schema_revision

    newest = _get_latest_schema_revision()
    set_schema(database, "451aebb31d03")
    text = told(tiny_params, tmp_path)
    assert f'older MLflow (schema 451aebb31d03); make a copy of the database, run `mlflow db upgrade "sqlite:///{database}"`' in text  # fmt: skip  # noqa: E501
    set_schema(database, newest)
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{database}"], check=True)
    assert history(tiny_params, tmp_path) == []


def test_a_database_of_a_newer_mlflow(database, tiny_params, tmp_path):
    set_schema(database, "f00dfeedf00d")
    assert "newer MLflow than the one here (schema f00dfeedf00d); install that one" in told(tiny_params, tmp_path)


def test_a_file_that_is_no_database(database, tiny_params, tmp_path):
    database.write_text("no database" * 100)
    assert "it is no database, or damaged; restore it from a copy" in told(tiny_params, tmp_path)


def test_a_folder_in_the_databases_place_is_said_at_once(database, tiny_params, tmp_path):
    database.unlink()
    database.mkdir()
    assert f"cannot be opened for writing; make it possible to write {database}, or" in told(tiny_params, tmp_path)


def test_a_folder_that_is_refused(tiny_params, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns").write_text("not a folder")
    refused = pytest.raises(
        TrackingError, match=r"a file is in the way of a folder \(.*mlruns\).*set paths.tracking or"
    )
    with refused, connect(tiny_params, tmp_path):
        pass


def test_publishing_says_that_the_results_are_complete(workspace, monkeypatch):
    root, params = workspace
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"Results on disk are complete; .*then run `ae-pipeline publish`") as told:
        publish(params, root)
    assert SECRET not in str(told.value)
    assert summarise_workspace(params, root)["tracking_uri"] == "http://127.0.0.1:9"
    with pytest.raises(TrackingError, match=r"MLFLOW_TRACKING_URI is http://127.0.0.1:9; open that address"):
        ui_command(params, root, 5000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{SECRET}@127.0.0.1:9/mlflow")
    with pytest.raises(TrackingError, match=r"MLflow at postgresql://127.0.0.1:9/mlflow failed: "):
        ui_command(params, root, 5000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql://me:{SECRET}@127.0.0.1:9/mlflow")
    with pytest.raises(TrackingError, match=r"is mysql://127.0.0.1:9/mlflow, .*mlflow server --backend-store-uri"):
        ui_command(params, root, 5000)


def test_links_in_prefect_hold_no_password(monkeypatch):
    monkeypatch.delenv("AE_MLFLOW_URL", raising=False)
    assert model_link(f"https://me:{SECRET}@host/", "m", "3") == "[m version 3](https://host/#/models/m/versions/3)"
    assert SECRET not in run_link(f"https://me:{SECRET}@host", "1", "abc")
    assert SECRET not in run_link(f"postgresql://me:{SECRET}@host/m", "1", "abc")


def test_stores_at_urls_are_called_without_their_password(tmp_path):
    with pytest.raises(PipelineError, match=r"http://127.0.0.1:9/store") as told:
        LatentStore.open(f"http://me:{SECRET}@127.0.0.1:9/store?sig={SECRET}")
    assert SECRET not in str(told.value)
    with pytest.raises(ConfigError, match="foo://host/store cannot be opened") as told:
        LatentStore.open(f"foo://me:{SECRET}@host/store")
    assert SECRET not in str(told.value)
