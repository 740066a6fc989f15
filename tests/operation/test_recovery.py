"""After a power cut the next start closes dead runs and frees their slots; nobody else's. Real servers and workers."""

import contextlib
import os
import socket
import subprocess
import sys
from functools import partial

import psutil
import pytest
import warm
from clone import Clone
from guarding import Guard
from prefect.client.schemas.objects import State, StateType
from prefect_server import PrefectServer, free_port, until
from ready import copy_prefect_home

pytestmark = [pytest.mark.slow, pytest.mark.server]

# Python runs this at its start, before all else: it stops a flow run before it is Running, or its first stage.
HOLD = """
import os, pathlib, sys, time
hold = pathlib.Path(os.environ["HOLD"])
def wait(kind):
    if (hold / kind).exists():
        (hold / f"{kind}.reached").write_text(str(os.getpid()))
        while (hold / kind).exists():
            time.sleep(0.05)
if "PREFECT__FLOW_RUN_ID" in os.environ:
    wait("PENDING")
if sys.orig_argv[-2:] == ["stage", "download"]:
    wait("RUNNING")
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("served"))
    clone.schedule()
    return clone


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """A folder; a file in it called as a state holds runs in that state."""
    guard = Guard(tmp_path)
    started = tmp_path / "sitecustomize.py"
    started.write_text(HOLD + started.read_text())
    (tmp_path / "hold").mkdir()
    for name, value in {"HOLD": str(tmp_path / "hold"), **guard.environment, **warm.environment()}.items():
        monkeypatch.setenv(name, value)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hold"


def start(clone, *arguments, log, **environment):
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=clone.folder, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip


def cut_power(process):
    """End a process and all that it started, at once."""
    root = psutil.Process(process.pid)
    root.suspend()
    family = root.children(recursive=True)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    root.kill()
    process.wait()
    psutil.wait_procs(family, 10)


def stop_worker(process):
    """One that waits for a run ends at the second signal."""
    for _ in range(2):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    process.wait(60)


def deployed(client, name="rebuild/nightly"):
    return client.read_deployment_by_name(name)


def new_run(view, deployment="rebuild/nightly", **parameters):
    with view.client() as client:
        return client.create_flow_run_from_deployment(deployed(client, deployment).id, parameters=parameters)


def read(view, run):
    with view.client() as client:
        return client.read_flow_run(run.id)


def slots(view, deployment="rebuild/nightly"):
    with view.client() as client:
        name = f"deployment:{deployed(client, deployment).id}"
        return client.read_global_concurrency_limit_by_name(name).active_slots


def is_in(view, run, kind):
    return read(view, run).state_type == kind


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_after_a_power_cut_serve_closes_the_runs_and_kill_9_of_serve_ends_all_that_it_started(clone, hold, tmp_path):
    """A run was in its first stage, and one of another deployment had just been started, when the power went."""
    ports = [str(free_port()), str(free_port())]
    serve = partial(
        start, clone, "ae_pipeline", "serve", "--prefect-port", ports[0], "--mlflow-port", ports[1],
        log=tmp_path / "serve.log", PREFECT_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    (tmp_path / "home").mkdir()
    copy_prefect_home(tmp_path / "home")
    view = PrefectServer(tmp_path)
    view.api = f"http://127.0.0.1:{ports[0]}/api"

    def served():
        return (tmp_path / "serve.log").read_text().count("Ctrl-C ends")

    dead = {}
    process = serve()
    try:
        until(served, 180)
        for kind, deployment, parameters in (
            ("RUNNING", "rebuild/nightly", {"until": "download", "force": True}),
            ("PENDING", "encode_new/every-15-minutes", {}),
        ):
            (hold / kind).touch()
            dead[deployment] = new_run(view, deployment, **parameters)
            until((hold / f"{kind}.reached").exists, 120)
            assert is_in(view, dead[deployment], kind)
            assert slots(view, deployment) == 1
        cut_power(process)
        for kind in ("RUNNING", "PENDING"):
            (hold / kind).unlink()
        process = serve()
        until(lambda: served() == 2, 180)
        again = [new_run(view, until="download"), new_run(view, "encode_new/every-15-minutes")]
        until(lambda: all(is_in(view, run, StateType.COMPLETED) for run in again), 120)
        log = (tmp_path / "home/logs/worker.log").read_text()
        for deployment, run in dead.items():
            assert read(view, run).state.is_crashed()
            assert "killed, or lost power" in read(view, run).state.message
            assert all(task.state.is_final() for task in view.tasks(run))
            assert slots(view, deployment) == 0
            assert f"run {run.name} had been left as" in log
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        if sys.platform == "linux":
            until(lambda: all(map(is_gone, family)), 90)
    finally:
        for kind in ("RUNNING", "PENDING"):
            (hold / kind).unlink(missing_ok=True)
        process.terminate()
        process.wait(120)


@pytest.fixture(scope="module")
def server(clone, tmp_path_factory):
    """A Prefect server that has the deployments."""
    with PrefectServer(tmp_path_factory.mktemp("prefect")) as server:
        clone.run("prefect", "work-pool", "create", "ae-pipeline", "--type", "process", **server.environment)
        clone.run("prefect", "deploy", "--all", **server.environment)
        yield server


@pytest.mark.slow
def test_a_workers_start_recovers_and_spares_what_lives_or_is_elsewhere(clone, hold, server, tmp_path):
    environment = server.environment
    worker = partial(start, clone, "ae_pipeline", "worker", log=tmp_path / "worker.log", **environment)
    recover = partial(clone.run, sys.executable, "-m", "ae_pipeline", "recover", **environment)
    (hold / "RUNNING").touch()
    process = worker()
    try:
        run = new_run(server, until="download", force=True)
        until((hold / "RUNNING.reached").exists, 120)
        assert recover() == (0, "")
        assert is_in(server, run, StateType.RUNNING)

        process.kill()  # its run goes on
        process.wait()
        assert recover() == (0, "")
        assert (is_in(server, run, StateType.RUNNING), slots(server)) == (True, 1)

        with server.client() as client:
            elsewhere = {}
            for kind, pid in ((StateType.RUNNING, "elsewhere:1"), (StateType.PENDING, None)):
                made = client.create_flow_run_from_deployment(deployed(client).id)
                client.set_flow_run_state(made.id, State(type=kind), force=True)
                client.update_flow_run(made.id, infrastructure_pid=pid)
                client.update_flow_run_labels(made.id, {"prefect.worker.name": "elsewhere:7"})
                elsewhere[made.id] = kind
        host, pid = read(server, run).infrastructure_pid.split(":")
        assert host == socket.gethostname()
        family = [psutil.Process(int(pid)), *psutil.Process(int(pid)).children(recursive=True)]
        for one in family:
            one.kill()
        psutil.wait_procs(family, 10)
        code, output = recover()
        assert (code, output) == (
            0,
            f"run {run.name} had been left as Running by a process that is gone; it is Crashed now\n",
        )
        assert read(server, run).state.is_crashed()
        with server.client() as client:
            assert {key: client.read_flow_run(key).state_type for key in elsewhere} == elsewhere
            # The second of these two has never asked for a slot.
            for key in elsewhere:
                client.delete_flow_run(key)
        (hold / "RUNNING").unlink()
        process = worker()
        run = new_run(server, until="download")
        until(lambda: is_in(server, run, StateType.COMPLETED), 60)
    finally:
        (hold / "RUNNING").unlink(missing_ok=True)
        stop_worker(process)


@pytest.mark.slow
def test_recover_without_a_server_says_what_is_missing(clone, hold):
    for command in ("recover", "worker"):
        code, output = clone.run(sys.executable, "-m", "ae_pipeline", command, check=False, PREFECT_HOME=str(hold))
        assert (code, output.count("\n")) == (1, 1)
        assert output.startswith("error: no Prefect server is set; set PREFECT_API_URL")
        url = f"http://me:secret@127.0.0.1:{free_port()}/api"
        code, output = clone.run(
            sys.executable, "-m", "ae_pipeline", command, check=False, PREFECT_HOME=str(hold), PREFECT_API_URL=url
        )
        assert (code, output.count("\n")) == (1, 1)
        assert output.startswith("error: Prefect at 127.0.0.1 failed: ")
        assert "secret" not in output


@pytest.mark.slow
def test_a_misspelt_parameter_is_named_with_the_valid_ones(clone, hold, server, tmp_path):
    environment = server.environment
    expected = "rebuild has no parameter `untill`; it has `workspace`, `until`, `force`"
    process = start(clone, "ae_pipeline", "worker", log=tmp_path / "worker.log", **environment)
    try:
        run = new_run(server, untill="train")
        # The worker tells of the end of the process a second time.
        log = tmp_path / "worker.log"
        until(lambda: "flow_runs.worker - Check the flow run logs" in log.read_text(), 120)
        found = read(server, run).state
        assert (found.name, found.message) == ("Failed", expected)
        assert "Traceback" not in "\n".join(server.logs(run))
        ask = partial(clone.run, "prefect", "deployment", "run", "rebuild/nightly", check=False, **environment)
        code, output = ask("-p", "untill=train")
        assert (code, "untill" in output, "'until'" in output) == (1, True, True)
        code, output = ask("-p", "until=trai")
        assert (code, "for field 'until'" in output, "'train'" in output) == (1, True, True)
    finally:
        stop_worker(process)


@pytest.mark.slow
def test_an_option_that_a_flow_does_not_have_is_named_with_those_that_it_has(clone):
    run = partial(clone.run, sys.executable, "-m", "flows.rebuild", check=False)
    for given, named in (("--untill=train", "No such option: --untill"), ("--until=trai", "'trai' is not one of")):
        code, output = run(given)
        assert (code, output.count("\n")) == (2, 1)
        assert output.startswith("error: ")
        assert named in output
        assert "the options are --workspace, --until, --force" in output
