"""`ae-pipeline serve` with a PostgreSQL database for Prefect and one for MLflow, given by their URLs."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest
import warm
from clone import Clone
from postgres import PASSWORD, cluster, skip_without_postgres
from prefect_server import PrefectServer, free_port, until

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "clone").mkdir()
    clone = Clone(tmp_path / "clone")
    clone.schedule()
    return clone


def test_serve_takes_both_databases_and_a_run_outlives_a_restart_of_their_server(clone, guard, tmp_path):
    skip_without_postgres()
    ports = [str(free_port()), str(free_port())]
    view = PrefectServer(tmp_path / "home")
    view.api = f"http://127.0.0.1:{ports[0]}/api"
    with cluster() as postgres:
        postgres.make("prefect")
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            "PREFECT_HOME": str(tmp_path / "home"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.url("prefect", "postgresql+asyncpg"),
            "MLFLOW_TRACKING_URI": postgres.make("mlflow"),
            **guard.environment,
            **warm.environment(),
        }
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ae_pipeline", "serve", "--prefect-port", ports[0], "--mlflow-port", ports[1]],
                cwd=clone.folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            until(lambda: "Ctrl-C ends" in (tmp_path / "log").read_text() or process.poll() is not None, 180)
            _use(view, postgres, ports[1])
            words = [" ".join(one.cmdline()) for one in psutil.Process(process.pid).children(recursive=True)]
            assert len(words) >= 3
            assert PASSWORD not in "\n".join(words)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)
        said = (tmp_path / "log").read_text()
        assert said.splitlines()[-1] == "stopped"
        assert PASSWORD not in said


def _use(view, postgres, mlflow_port):
    with view.client() as client:
        deployment = client.read_deployment_by_name("rebuild/nightly")
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"until": "prepare"})
        until(lambda: _state(client, run).is_running(), 60)
        postgres.restart()
        until(lambda: _state(client, run).is_final(), 120)
        assert _state(client, run).is_completed(), _state(client, run)
    assert postgres.sql("SELECT state_type FROM flow_run", "prefect") == "COMPLETED"
    columns, values = "name, artifact_location, lifecycle_stage", "'of PostgreSQL', 'mlflow-artifacts:/9', 'active'"
    postgres.sql(f"INSERT INTO experiments ({columns}) VALUES ({values})", "mlflow")
    # MLflow finds out by a request that fails that a connection of its pool is gone.
    until(lambda: "of PostgreSQL" in _experiments(mlflow_port), 60)


def _experiments(mlflow_port):
    asked = f"http://127.0.0.1:{mlflow_port}/api/2.0/mlflow/experiments/search?max_results=9"
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return {experiment["name"] for experiment in json.load(answer)["experiments"]}
    except urllib.error.HTTPError:
        return set()


def _state(client, run):
    return client.read_flow_run(run.id).state
