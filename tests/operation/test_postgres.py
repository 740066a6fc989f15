"""PostgreSQL behind MLflow: fresh, upgraded, two at once, restarted in the middle, restored. A real server on loopback.

tests/operation/test_serving_postgres.py has Prefect on it, too.
"""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
import warm
from guarding import Guard
from postgres import PASSWORD, cluster, skip_without_postgres
from prefect_server import until
from trainings import NAME

from ae_pipeline.errors import TrackingError
from ae_pipeline.operation.champion.moves import champion_version, history
from ae_pipeline.operation.tracking.connection import connect, fetch_codec
from ae_pipeline.operation.tracking.database import ADVISORY_LOCK
from ae_pipeline.operation.tracking.publish import publish

pytestmark = [pytest.mark.slow, pytest.mark.server]

LOCKED = f"SELECT pg_advisory_lock({ADVISORY_LOCK})"
OLDER = "451aebb31d03"  # a schema of MLflow's
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = '{}'"


@pytest.fixture(scope="module")
def postgres():
    skip_without_postgres()
    with cluster() as server:
        yield server


@pytest.fixture(scope="module")
def trained(published, tmp_path_factory):
    """A workspace with a training that nothing has published; and its parameters."""
    root = tmp_path_factory.mktemp("trained") / "root"
    shutil.copytree(published[0], root, ignore=shutil.ignore_patterns("mlruns", "as_published"))
    return root, published[1]


@pytest.fixture(scope="module")
def start(trained, tmp_path_factory):
    """Start `ae-pipeline ARGUMENTS` in the workspace, with a database."""
    guard = Guard(tmp_path_factory.mktemp("guard"))
    environment = {**os.environ, **guard.environment, **warm.environment()}

    def start(url, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "ae_pipeline", *arguments], cwd=trained[0], text=True,
            env={**environment, "MLFLOW_TRACKING_URI": url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def first(postgres, start):
    """What two publishes said that began with an empty database, at once."""
    url = postgres.make("mlflow")
    with connected(url) as connection:
        connection.execute(LOCKED)
        both = [start(url, "publish", "--json") for _ in range(2)]
        waiting = WAITING.format("advisory")
        until(lambda: postgres.sql(waiting, "mlflow") == "2")
    return [(*process.communicate(timeout=120), process.returncode) for process in both]


@pytest.fixture
def database(postgres, first, request, monkeypatch):
    """A copy of that database, which this process works with; its URL."""
    name = f"copy_{request.node.name.split('[')[0][:40]}"
    url = postgres.make(name, template="mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    return url


@contextlib.contextmanager
def connected(url):
    """A connection of another program, which holds what it locked until it is closed."""
    import psycopg2

    connection = psycopg2.connect(url)
    try:
        yield connection.cursor()
    finally:
        connection.close()


def runs_and_versions(params, root):
    with connect(params, root) as (client, _):
        experiment = client.get_experiment_by_name("ae-pipeline")
        runs = client.search_runs([experiment.experiment_id])
        return [run.info.status for run in runs], [item.version for item in client.search_model_versions()]


def test_of_two_publishes_into_an_empty_database_one_makes_the_run_and_the_other_finds_it(first, database, trained):
    for output, errors, code in first:
        assert (code, errors) == (0, ""), errors
        assert PASSWORD not in output
    assert sorted("created" in output for output, _, _ in first) == [False, True]
    root, params = trained
    assert runs_and_versions(params, root) == (["FINISHED"], [1])
    with connect(params, root) as (client, _):
        place = client.get_experiment_by_name("ae-pipeline").artifact_location
    assert place == (root / "mlruns/artifacts").as_uri()
    assert champion_version(params, root) is None


def test_of_two_promotions_at_once_both_are_in_the_history_one_after_the_other(
    postgres, database, trained, start, tmp_path
):
    root, params = trained
    with connect(params, root) as (client, _):
        one = client.get_model_version(NAME, "1")
        two = client.create_model_version(NAME, one.source, one.run_id, tags=one.tags)
    assert str(two.version) == "2"
    with connected(database) as connection:
        connection.execute(LOCKED)
        both = [start(database, "promote", version, "--why", "a race") for version in ("1", "2")]
        name = database.rpartition("/")[2]
        until(lambda: postgres.sql(WAITING.format("advisory"), name) == "2")
    for process in both:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    moves = history(params, root)
    assert [(entry.number, entry.state) for entry in moves] == [(1, "done"), (2, "done")]
    assert {entry.version for entry in moves} == {"1", "2"}
    assert moves[1].previous == moves[0].version
    assert champion_version(params, root) == moves[1].version
    fetched = fetch_codec(f"models:/{NAME}@champion", params, root, tmp_path)
    assert (fetched / "codec.json").read_bytes() == (root / "data/codec/codec.json").read_bytes()


def test_a_server_that_restarts_in_the_middle_fails_a_publish_in_one_line_and_the_next_one_completes_it(
    postgres, database, trained, start
):
    root, params = trained
    name = database.rpartition("/")[2]
    with connect(params, root) as (client, _):
        (run,) = client.search_runs([client.get_experiment_by_name("ae-pipeline").experiment_id])
        client.delete_registered_model(NAME)
        client.delete_run(run.info.run_id)
    with connected(database) as connection:
        connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        process = start(database, "publish")
        until(lambda: postgres.sql(WAITING.format("relation"), name) != "0")
        postgres.restart("immediate")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert errors.count("\n") == 1, errors
    assert errors.startswith(f"error: MLflow at postgresql://127.0.0.1:{postgres.port}/{name} failed: the connection ")
    assert errors.endswith("then run `ae-pipeline publish`\n")
    assert PASSWORD not in errors
    assert publish(params, root).version == "1"
    statuses, versions = runs_and_versions(params, root)
    assert (statuses, versions) == (["FINISHED"], [1])


def test_whoever_waits_too_long_for_another_is_told(postgres, tiny_params, tmp_path, monkeypatch):
    url = postgres.make("waiting")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with connected(url) as connection:
        connection.execute(LOCKED)
        with (
            pytest.raises(TrackingError, match="another program holds its database"),
            connect(tiny_params, tmp_path, patience=0.05),
        ):
            pass


def test_a_database_of_an_older_mlflow_is_upgraded_or_the_command_is_named(
    postgres, tiny_params, tmp_path, monkeypatch
):
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    url = postgres.make("older")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    engine.dispose()
    kept = "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('kept', 's3://b/kept', 'active')"
    postgres.sql(kept, "older")
    # It lacks tables: MLflow itself upgrades it, and here as the only one.
    with connect(tiny_params, tmp_path) as (client, _):
        assert client.get_experiment_by_name("kept").artifact_location == "s3://b/kept"
    schema = "SELECT version_num FROM alembic_version"
    assert postgres.sql(schema, "older") == _get_latest_schema_revision()
    # One that has them all is left to a person. (MLflow looks once for each spelling of an address.)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{url}?connect_timeout=10")
    postgres.sql(f"UPDATE alembic_version SET version_num = '{OLDER}'", "older")
    wanted = pytest.raises(TrackingError, match=r'older MLflow.*run `mlflow db upgrade "\$MLFLOW_TRACKING_URI"`')
    with wanted as told, connect(tiny_params, tmp_path):
        pass
    assert PASSWORD not in str(told.value)


def test_what_was_dumped_and_restored_is_the_same_store(postgres, database, trained, monkeypatch):
    root, params = trained
    before = runs_and_versions(params, root)
    postgres.run("pg_dump", "--format=custom", "--file=dump", "--dbname", database)
    restored = postgres.make("restored")
    postgres.run("pg_restore", "--no-owner", "--dbname", restored, "dump")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", restored)
    assert runs_and_versions(params, root) == before
    assert publish(params, root).outcome == "unchanged"


def test_a_password_that_is_refused_and_a_database_that_is_not_there_are_one_line(
    postgres, tiny_params, tmp_path, monkeypatch
):
    for url, words in (
        (postgres.url("postgres").replace(PASSWORD, "falsch"), "refuses the user or the password; correct them"),
        (postgres.url("nothing"), 'database "nothing" does not exist'),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(TrackingError, match=words) as told:
            history(tiny_params, tmp_path)
        assert "\n" not in str(told.value)
        assert PASSWORD not in str(told.value)
