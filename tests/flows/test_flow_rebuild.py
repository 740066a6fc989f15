"""Flow `rebuild` in a temporary clone, against a real Prefect server; the tests build on each other, as a day would."""

import json
import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest
from filelock import FileLock
from prefect_server import until

from ae_pipeline.cli.stages import STAGES
from flows.dvc_tasks import StageError

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture
def rebuild(run_flow):
    return partial(run_flow, "rebuild")


def outcomes(server, run):
    rows = json.loads(server.artifacts(run)["rebuild-stages"].data)
    return {row["stage"]: row["outcome"] for row in rows}


def trainings(clone):
    client = clone.mlflow()
    return client.search_runs([client.get_experiment_by_name("ae-pipeline").experiment_id])


def test_a_first_run_runs_every_stage_as_a_task_and_leaves_what_people_want(clone, server, rebuild):
    run = rebuild()
    assert run.state.is_completed()
    assert [task.name for task in server.tasks(run)][: len(STAGES)] == list(STAGES)
    assert outcomes(server, run) == dict.fromkeys(STAGES, "ran")
    assert run.state.message == f"ran: {', '.join(STAGES)}; synthetic-ae version 1 is the challenger"
    assert {
        task.name: task.empirical_policy.retries for task in server.tasks(run) if task.empirical_policy.retries
    } == {"download": 3}
    assert any("epoch 12/12" in line for line in server.logs(run))
    assert not any("git add dvc.lock" in line for line in server.logs(run))
    found = server.artifacts(run)
    assert {"rebuild-stages", "rebuild-metrics", "rebuild-reconstructions", "rebuild-links"} <= found.keys()
    assert found["rebuild-reconstructions"].data.startswith("data:image/png;base64,")
    (training,) = trainings(clone)
    assert training.info.run_id in found["rebuild-links"].data
    assert [training.info.status] == ["FINISHED"]


def test_a_run_with_nothing_to_do_says_so_and_logs_nothing_twice(clone, server, rebuild):
    run = rebuild()
    assert run.state.is_completed()
    assert outcomes(server, run) == dict.fromkeys(STAGES, "up to date")
    assert len(trainings(clone)) == 1
    rows = json.loads(server.artifacts(run)["rebuild-metrics"].data)
    assert {row["change"] for row in rows if row["metric"] == "mse"} == {0.0}


def test_an_empty_tracking_store_is_filled_although_every_stage_is_up_to_date(clone, rebuild):
    (clone.folder / "mlruns").rename(clone.folder / "mlruns.before")
    run = rebuild()
    assert run.state.is_completed()
    assert len(trainings(clone)) == 1


def test_a_changed_parameter_runs_what_depends_on_it_and_going_back_restores(clone, server, rebuild):
    clone.change({"evaluate": {"seed": 5}})
    run = rebuild("--until", "evaluate")
    assert outcomes(server, run) == {
        "download": "up to date", "prepare": "up to date", "train": "up to date", "evaluate": "ran",
    }  # fmt: skip
    assert run.state.message == "up to date: download, prepare, train; ran: evaluate"
    clone.change({"evaluate": {"seed": 0}})
    run = rebuild()
    assert outcomes(server, run)["evaluate"] == "restored from cache"
    assert run.state.is_completed()


def test_a_failing_stage_fails_the_run_with_its_own_last_lines(clone, server):
    clone.change({"evaluate": {"gate": {"max_mse": 1e-9}}})
    code, output = clone.run(sys.executable, "-m", "flows.rebuild", check=False, **server.environment)
    run = server.runs()[-1]
    assert run.state.is_failed()
    assert run.state.message.startswith("stage `evaluate` failed: the codec does not pass evaluate.gate: mse is 0.0")
    by_stage, as_state = [line for line in server.logs(run) if "the gate asks for at most 1e-09" in line]
    assert by_stage.startswith("error: ")
    assert as_state.startswith("Finished in state Failed('stage `evaluate` failed: ")
    assert (code, output.splitlines()[-1]) == (1, f"error: {run.state.message}")
    assert "Traceback" not in output
    assert list(outcomes(server, run)) == ["download", "prepare", "train"]
    states = {task.name: task.state_name for task in server.tasks(run)}
    assert states["evaluate"] == "Failed"
    assert "encode" not in states
    clone.change({"evaluate": {"gate": {"max_mse": 0.05}}})


def test_of_two_rebuilds_of_one_checkout_the_second_is_refused_by_name(clone, server, rebuild):
    folder = clone.folder / ".dvc" / "tmp"
    with FileLock(folder / "rebuild.lock"):
        (folder / "rebuild.holder").write_text("flow run brave-lion, process 12")
        run = rebuild(check=False)
    (folder / "rebuild.holder").unlink()
    assert run.state.is_failed()
    assert "is being rebuilt by flow run brave-lion, process 12" in run.state.message
    assert len([line for line in server.logs(run) if "brave-lion" in line]) == 2


def test_a_dvc_command_at_work_is_named(clone, server, rebuild):
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lock = clone.folder / ".dvc" / "tmp" / "rwlock"
    try:
        held = {"write": {str(clone.folder / "data/raw"): {"pid": holder.pid, "cmd": "dvc repro"}}}
        lock.write_text(json.dumps(held))
        run = rebuild("--force", check=False)
    finally:
        holder.communicate(b"\n")
        lock.unlink(missing_ok=True)
    assert run.state.is_failed()
    message = f"a DVC command is at work in {clone.folder} (process {holder.pid})"
    assert message in run.state.message
    logs = [line for line in server.logs(run) if "hook 'tell'" not in line.lower()]
    assert [message in line for line in logs][-2:] == [True, True]
    assert len([line for line in logs if message in line]) == 2


@pytest.mark.parametrize("left", [b"", b'{"write": {"/wor', bytes(40)], ids=["nothing", "half", "zeros"])
def test_the_locks_that_a_killed_dvc_left_half_written_are_removed(clone, server, rebuild, left):
    lock = clone.folder / ".dvc" / "tmp" / "rwlock"
    lock.write_bytes(left)
    run = rebuild("--until", "download")
    assert run.state.is_completed()
    assert any(f"{lock} was cut off when a DVC command was killed" in line for line in server.logs(run))


def test_a_stage_that_was_killed_or_broke_is_told_by_its_exit_code_and_last_lines():
    dvcs = "ERROR: failed to reproduce 'train': failed to run: python -m ae_pipeline stage train, exited with"
    lines = ["Running stage 'train':", "> python -m ae_pipeline stage train", *map(str, range(20)), "Killed"]
    found = StageError("train", 255, [*lines, f"{dvcs} -9"])
    assert str(found) == "stage `train` failed"
    assert found.in_full.splitlines() == ["stage `train` failed (exit code -9):", *map(str, range(6, 20)), "Killed"]
    assert StageError("train", 2, ["ERROR: no stage"]).in_full == "stage `train` failed (exit code 2):\nERROR: no stage"


def test_a_killed_run_is_closed_by_the_next_one_which_finishes_the_work(clone, server, rebuild, start_flow):
    clone.change({"train": {"epochs": 400, "patience": 0}})
    process = start_flow("rebuild")
    until(lambda: any("epoch 1/400" in line for line in server.logs(server.runs()[-1])), 90)
    killed = server.runs()[-1]
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("stage" in one.cmdline() for one in family)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(family, 15)[1] == []
    clone.change({"train": {"epochs": 13}})
    run = rebuild()
    assert run.state.is_completed()
    assert outcomes(server, run)["train"] == "ran"
    with server.client() as client:
        found = client.read_flow_run(killed.id)
    assert found.state.is_crashed()
    assert "killed" in found.state.message
    assert {task.name: task.state.is_crashed() for task in server.tasks(found)}["train"]
    assert all(run.info.status == "FINISHED" for run in trainings(clone))


def test_a_cancelled_run_ends_truthfully_and_leaves_nobody_at_work(clone, server, rebuild, start_flow):
    clone.change({"train": {"epochs": 401, "patience": 0}})
    process = start_flow("rebuild")
    until(lambda: any("epoch 1/401" in line for line in server.logs(server.runs()[-1])), 90)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    run = server.runs()[-1]
    assert run.state.is_final()
    assert not run.state.is_completed()
    assert not (clone.folder / ".dvc" / "tmp" / "rebuild.child").exists()
    clone.change({"train": {"epochs": 13}})
    assert rebuild().state.is_completed()


def test_all_of_that_passed_with_pickles_of_mlflow_off_and_its_loaders_blocked(guard):
    """See tests/support/guarding.py."""
    assert guard.calls == []
    for command in ("-m flows.rebuild", "-m ae_pipeline stage publish"):
        assert {line.split()[1] for line in guard.switches if command in line} == {"false"}
