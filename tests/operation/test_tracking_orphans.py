"""MLflow runs that a dead process left RUNNING: closed, and completed by whoever publishes the same training."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from trainings import LAST_CODEC, client, write_lock

from ae_pipeline.operation.tracking.orphans import CLOSED_TAG, PROCESS_TAG, TRAINING_TAG, close_orphans, process_tags
from ae_pipeline.operation.tracking.publish import publish

DAY_MS = 24 * 3600 * 1000


def orphan(experiment, tags):
    return client().create_run(experiment, tags={TRAINING_TAG: "another training", **tags}).info.run_id


def experiment_of():
    return client().get_experiment_by_name("ae-pipeline").experiment_id


def process(**changes):
    values = {**json.loads(process_tags()[PROCESS_TAG]), **changes}
    return {PROCESS_TAG: json.dumps(values)}


def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


@pytest.mark.slow
@pytest.mark.usefixtures("workspace")
def test_runs_that_a_dead_process_left_are_closed_and_others_are_not():
    experiment, now_ms = experiment_of(), int(time.time() * 1000)
    started = psutil.Process().create_time()
    elsewhere = {"host": "another machine", "pid": 1, "started": 0.0}
    closed = {
        "dead": orphan(experiment, process(pid=dead_pid())),
        "pid used again": orphan(experiment, process(started=started - 1000)),
        "elsewhere, old": orphan(experiment, process(**elsewhere, since_ms=now_ms - DAY_MS - 60_000)),
        "a monitor's": client().create_run(experiment, tags=process(pid=dead_pid())).info.run_id,
    }
    kept = {
        "this process": orphan(experiment, process()),
        "elsewhere, new": orphan(experiment, process(**elsewhere, since_ms=now_ms - DAY_MS + 60_000)),
        "untagged": orphan(experiment, {}),
        "damaged tag": orphan(experiment, {PROCESS_TAG: "?"}),
        "not ours": client().create_run(experiment).info.run_id,
    }
    assert set(close_orphans(client(), experiment)) == set(closed.values())
    for run_id in closed.values():
        run = client().get_run(run_id)
        assert run.info.status == "KILLED"
        assert "clos" in run.data.tags[CLOSED_TAG]
    assert socket.gethostname() in client().get_run(closed["dead"]).data.tags[CLOSED_TAG]
    assert {client().get_run(run_id).info.status for run_id in kept.values()} == {"RUNNING"}
    assert close_orphans(client(), experiment) == []


@pytest.mark.slow
def test_publish_closes_others_and_takes_its_own_up_again(workspace):
    root, params = workspace
    own = publish(params, root)
    assert own.outcome == "unchanged"
    another = orphan(experiment_of(), process(pid=dead_pid()))
    client().delete_tag(own.run_id, "ae_pipeline.published")
    client().set_tag(own.run_id, PROCESS_TAG, process(pid=dead_pid())[PROCESS_TAG])
    client().set_tag(own.run_id, CLOSED_TAG, "closed once")
    client().update_run(own.run_id, status="RUNNING")
    again = publish(params, root)
    assert (again.run_id, again.version) == (own.run_id, own.version)
    run = client().get_run(own.run_id)
    assert run.info.status == "FINISHED"
    assert json.loads(run.data.tags[PROCESS_TAG])["pid"] == os.getpid()
    assert CLOSED_TAG not in run.data.tags
    assert client().get_run(another).info.status == "KILLED"


@pytest.mark.slow
def test_a_publish_that_was_killed_is_completed_by_the_next_and_closed_by_one_of_another_training(workspace):
    root, params = workspace
    write_lock(root, "new-training")
    killed = (
        "import os, signal; from pathlib import Path\n"
        "from ae_pipeline.operation.tracking import publish; from ae_pipeline.params import load_params\n"
        "publish._log_results = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "publish.publish(load_params(Path('params.yaml')), Path.cwd())\n"
    )
    try:
        assert subprocess.run([sys.executable, "-c", killed], cwd=root, check=False).returncode == -signal.SIGKILL
        (half,) = client().search_runs([experiment_of()], "attributes.status = 'RUNNING'")
        write_lock(root, LAST_CODEC)
        publish(params, root)
        assert client().get_run(half.info.run_id).info.status == "KILLED"
        write_lock(root, "new-training")
        assert publish(params, root).run_id == half.info.run_id
        assert client().get_run(half.info.run_id).info.status == "FINISHED"
    finally:
        write_lock(root, LAST_CODEC)
