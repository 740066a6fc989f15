"""`ae-pipeline serve`: both servers and a worker as real processes, and a run that the schedule starts."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import mlflow
import psutil
import pytest
import warm
from clone import Clone
from prefect_server import PrefectServer, free_port, until

from ae_pipeline.cli.stages import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.server]

SECONDS = 5


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("served"))
    clone.schedule(nightly=SECONDS)
    return clone


@pytest.fixture(scope="module")
def served(clone, guard, tmp_path_factory):
    """The process, and a view of its Prefect server, which begins without a database, as people's first one does."""
    home = tmp_path_factory.mktemp("home")
    ports = [str(free_port()), str(free_port())]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")},
        "PREFECT_HOME": str(home),
        # The scheduler looks once a minute, and makes runs that far ahead, unless told otherwise.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
        **guard.environment,
        **warm.environment(),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ae_pipeline", "serve", "--prefect-port", ports[0], "--mlflow-port", ports[1]],
        cwd=clone.folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    view = PrefectServer(home)
    view.api = f"http://127.0.0.1:{ports[0]}/api"
    try:
        yield process, view, ports
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)


def finished(view, kind):
    return [run for run in view.runs() if getattr(run.state, f"is_{kind}")()]


@pytest.mark.slow
def test_a_scheduled_run_ends_with_artifacts_and_an_mlflow_run(clone, served):
    process, view, (prefect_port, mlflow_port) = served
    said = [process.stdout.readline().split() for _ in range(2)]
    assert said == [["Prefect", f"http://127.0.0.1:{prefect_port}"], ["MLflow", f"http://127.0.0.1:{mlflow_port}"]]
    until(lambda: finished(view, "completed"), 180)
    run = finished(view, "completed")[0]
    assert run.auto_scheduled
    found = view.artifacts(run)
    rows = json.loads(found["rebuild-stages"].data)
    assert [row["stage"] for row in rows] == list(STAGES)
    uri = f"sqlite:///{clone.folder}/mlruns/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    (training,) = client.search_runs([client.get_experiment_by_name("ae-pipeline").experiment_id])
    assert training.info.status == "FINISHED"
    assert f"http://127.0.0.1:{mlflow_port}/#/experiments/" in found["rebuild-links"].data
    assert training.info.run_id in found["rebuild-links"].data


def test_runs_that_were_missed_meanwhile_collapse_into_one(served):
    _, view, _ = served
    until(lambda: finished(view, "cancelled"), 120)
    assert "collapsed into the run" in finished(view, "cancelled")[0].state.message
    assert not finished(view, "failed")


def test_no_other_page_in_a_browser_may_use_the_api(served):
    own = f"http://127.0.0.1:{served[2][0]}"
    allowed = []
    for origin in ("https://elsewhere.example", own):
        request = urllib.request.Request(f"{own}/api/health", headers={"Origin": origin})
        allowed.append(urllib.request.urlopen(request, timeout=10).headers.get("access-control-allow-origin"))
    assert allowed == [None, own]


@pytest.mark.slow
def test_ctrl_c_ends_every_process(served):
    process, _, _ = served
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "stopped"
    until(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], 30)


@pytest.mark.slow
def test_a_port_that_something_else_has_is_reported(clone, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, output = clone.run(
            sys.executable, "-m", "ae_pipeline", "serve", "--mlflow-port", port, check=False, PREFECT_HOME=str(tmp_path)
        )
    assert code == 1
    assert output.splitlines()[-1].startswith("error: port ")
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_prefect_server_that_does_not_answer_is_named(clone, tmp_path):
    port = free_port()
    code, output = clone.run(
        *[sys.executable, "-m", "ae_pipeline", "serve", "--mlflow-port", str(free_port())],
        check=False, PREFECT_HOME=str(tmp_path), PREFECT_API_URL=f"http://me:secret@127.0.0.1:{port}/api",
    )  # fmt: skip
    assert code == 1
    assert f"127.0.0.1:{port}/api, but no Prefect server answers there" in output
    assert "secret" not in output
    assert not (tmp_path / "logs/mlflow.log").exists()  # nothing was started
