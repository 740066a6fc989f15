"""Processes that are killed while they move the champion: the next one settles what they left."""

import json
import signal
import subprocess
import sys

import pytest
from trainings import NAME, alias, client, set_alias, told

from ae_pipeline.operation.champion.history import ABANDONED, DONE, MOVED_BY_HAND, PENDING, PROMOTED, ROLLED_BACK
from ae_pipeline.operation.champion.moves import champion_version, history, promote, rollback

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_commands")]

DIE = """
import os, signal, sys
from pathlib import Path
import mlflow
from ae_pipeline.params import load_params
from ae_pipeline.operation.champion.moves import promote, rollback

calls = 0

def dying(name):
    original = getattr(mlflow.MlflowClient, name)
    def call(self, model, key, value):
        global calls
        calls += 1
        if calls > int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, model, key, value)
    setattr(mlflow.MlflowClient, name, call)

dying("set_registered_model_tag")
dying("set_registered_model_alias")
params = load_params(Path("params.yaml"))
if sys.argv[1] == "promote":
    promote(params, Path.cwd(), "3", "why", "me")
else:
    rollback(params, Path.cwd(), "why", "me")
"""


@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_process_that_is_killed_between_steps_is_settled(workspace, steps, action):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    promote(params, root, "2", "next", "me")
    target, how = ("3", PROMOTED) if action == "promote" else ("1", ROLLED_BACK)
    done = subprocess.run([sys.executable, "-c", DIE, action, str(steps)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    left = client().get_registered_model(NAME)
    pending = [tag for tag in left.tags.values() if json.loads(tag)["state"] == PENDING]
    assert len(pending) == (steps > 0)
    assert alias() == (target if steps == 2 else "2")
    found = history(params, root)
    assert told(found)[2:] == [[], [(target, "2", how, ABANDONED)], [(target, "2", how, DONE)]][steps]
    assert champion_version(params, root) == alias()
    assert history(params, root) == found
    # Life goes on from there.
    if steps < 2:
        assert (promote(params, root, "3", "again", "me").number, alias()) == (3 + (steps > 0), "3")
    if (steps, action) != (2, "rollback"):
        assert rollback(params, root, "back", "me").version == "2"


def test_a_move_by_hand_after_a_crash_is_seen_too(workspace):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    subprocess.run([sys.executable, "-c", DIE, "promote", "1"], cwd=root, check=False)
    set_alias("2")
    assert told(history(params, root))[1:] == [("3", "1", PROMOTED, ABANDONED), ("2", "1", MOVED_BY_HAND, DONE)]
