"""The champion in a real SQLite-backed MLflow: promoted, rolled back, moved by hand, and interrupted."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import mlflow
import psutil
import pytest
from ruamel.yaml import YAML

from ae_pipeline.champion_history import ABANDONED, DONE, MOVED_BY_HAND, PENDING, PROMOTED, ROLLED_BACK
from ae_pipeline.cli import main
from ae_pipeline.errors import ConfigError, TrackingError
from ae_pipeline.params import Params
from ae_pipeline.registry import (
    champion_version,
    compare,
    evaluate_and_promote,
    history,
    promote,
    rollback,
)
from ae_pipeline.stages import run_stage
from ae_pipeline.tracking import publish
from ae_pipeline.tracking_orphans import CLOSED_TAG, PROCESS_TAG, TRAINING_TAG, close_orphans, process_tag
from ae_pipeline.tracking_store import connect

NAME = "synthetic-ae"
OUTS = {"train": "data/codec", "encode": "data/latents", "decode": "data/decoded"}
DAY_MS = 24 * 3600 * 1000


def write_lock(root, codec_md5):
    codec, latents = {"path": "data/codec", "md5": codec_md5}, {"path": "data/latents", "md5": f"{codec_md5}.latents"}
    lock = {
        "stages": {
            "train": {"deps": [{"path": "data/prepared", "md5": "1.dir"}], "outs": [codec]},
            "evaluate": {"deps": [codec]},
            "encode": {"deps": [codec], "outs": [latents]},
            "decode": {"deps": [latents]},
        }
    }
    YAML().dump(lock, root / "dvc.lock")


@pytest.fixture(scope="module")
def published(tiny_params, tmp_path_factory):
    """A workspace that published three trainings, each better than the one before: versions 1, 2 and 3."""
    root = tmp_path_factory.mktemp("registry")
    tree = tiny_params.model_dump()
    tree["evaluate"]["gate"]["beat_pca"] = False
    # Speed and size are test_promotion's; here only the error decides.
    tree["promotion"] |= {"min_speed": 1e-6, "max_bits_increase": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for epochs in (2, 8, 30):
            tree["train"]["epochs"] = epochs
            params = Params.model_validate(tree)
            stages = ("download", "prepare") if epochs == 2 else ()
            for stage in (*stages, "train", "evaluate", "encode", "decode"):
                shutil.rmtree(root / OUTS.get(stage, "none"), ignore_errors=True)
                run_stage(stage, params, root)
            write_lock(root, f"epochs-{epochs}")
            publish(params, root)
    YAML().dump(params.model_dump(mode="json"), root / "params.yaml")
    shutil.copytree(root / "mlruns", root / "as_published")
    return root, params


@pytest.fixture
def workspace(published, tmp_path, monkeypatch):
    """The same before each test: a copy of the database (MLflow keeps one open for each address), and the artifacts
    put back where they were, for their addresses are absolute."""
    root, params = published
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(root)
    shutil.copy(root / "as_published/mlflow.db", tmp_path)
    shutil.rmtree(root / "mlruns/artifacts")
    shutil.copytree(root / "as_published/artifacts", root / "mlruns/artifacts")
    return root, params


@pytest.fixture
def ae(monkeypatch, capsys):
    """Run `ae-pipeline ARGUMENTS`; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ae-pipeline", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def client():
    uri = os.environ["MLFLOW_TRACKING_URI"]
    return mlflow.MlflowClient(uri, uri)


def set_alias(version, alias="champion"):
    client().set_registered_model_alias(NAME, alias, version)


def alias(name="champion"):
    found = client().get_registered_model(NAME).aliases.get(name)
    return None if found is None else str(found)


def told(entries):
    return [(entry.version, entry.previous, entry.action, entry.state) for entry in entries]


def test_promote_rollback_and_history(workspace):
    root, params = workspace
    assert champion_version(params, root) is None
    assert history(params, root) == []
    for version in ("1", "2", None):
        promote(params, root, version, f"try {version}", "me")
    assert alias() == champion_version(params, root) == "3"
    assert rollback(params, root, "worse than it looked", "you").version == "2"
    assert rollback(params, root, "still", "you").version == "1"
    assert alias() == "1"
    with pytest.raises(TrackingError, match=r"no champion before version 1; `ae-pipeline promote VERSION`"):
        rollback(params, root, "more", "me")
    found = history(params, root)
    assert told(found) == [
        ("1", None, PROMOTED, DONE),
        ("2", "1", PROMOTED, DONE),
        ("3", "2", PROMOTED, DONE),
        ("2", "3", ROLLED_BACK, DONE),
        ("1", "2", ROLLED_BACK, DONE),
    ]
    assert [entry.number for entry in found] == [1, 2, 3, 4, 5]
    assert (found[3].by, found[3].why, found[3].verdict) == ("you", "worse than it looked", None)
    assert found[2].run_id == client().get_model_version(NAME, "3").run_id
    assert found[0].at.endswith("+00:00")
    tags = client().get_registered_model(NAME).tags
    assert json.loads(tags["ae_pipeline.champion.000004"])["action"] == ROLLED_BACK


def test_mlflows_own_addresses_are_left_as_they_were(workspace, monkeypatch):
    root, params = workspace
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    before = dict(os.environ)
    assert history(params, root) == []
    assert dict(os.environ).items() - before.items() <= {("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15"), ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")}  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///another.db")
    assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == "sqlite:///another.db"


def test_mistakes_say_what_to_do_and_move_nothing(workspace):
    root, params = workspace
    promote(params, root, "2", "start", "me")
    before = history(params, root)
    with pytest.raises(TrackingError, match=r"has no version 9 \(there: 1, 2, 3\).*promote VERSION"):
        promote(params, root, "9", "why", "me")
    with pytest.raises(TrackingError, match="no version x"):
        promote(params, root, "x", "why", "me")
    with pytest.raises(TrackingError, match="version 2 of synthetic-ae is champion already"):
        promote(params, root, "2", "why", "me")
    with pytest.raises(ConfigError, match="expected 1 to 1000"):
        promote(params, root, "3", " ", "me")
    with pytest.raises(ConfigError, match="has 1001 characters"):
        rollback(params, root, "x" * 1001, "me")
    client().delete_registered_model_alias(NAME, "challenger")
    for act in (lambda: promote(params, root, None, "why", "me"), lambda: evaluate_and_promote(params, root, by="me")):
        with pytest.raises(TrackingError, match="no version with the alias challenger; run `dvc repro`"):
            act()
    assert history(params, root) == before
    assert alias() == "2"


def test_a_deleted_version_is_not_rolled_back_to(workspace):
    root, params = workspace
    promote(params, root, "1", "first", "me")
    promote(params, root, "2", "second", "me")
    client().delete_model_version(NAME, "1")
    with pytest.raises(TrackingError, match=r"no version 1 \(there: 2, 3\), it may have been deleted"):
        rollback(params, root, "back", "me")
    assert alias() == "2"


def test_a_version_whose_codec_is_gone_does_not_become_champion(workspace):
    root, params = workspace
    for weights in root.glob("mlruns/artifacts/**/weights.safetensors"):
        weights.with_name("codec.json").unlink()
    with pytest.raises(Exception, match=r"codec.json is missing|no codec"):
        promote(params, root, "1", "why", "me")
    assert history(params, root) == []


def test_moves_by_hand_are_recorded_once_and_stay(workspace):
    root, params = workspace
    set_alias("1")
    assert told(history(params, root)) == [("1", None, MOVED_BY_HAND, DONE)]
    assert told(history(params, root)) == [("1", None, MOVED_BY_HAND, DONE)]
    promote(params, root, "3", "better", "me")
    set_alias("2")
    last = history(params, root)[-1]
    assert (last.version, last.previous, last.action, last.by) == ("2", "3", MOVED_BY_HAND, "unknown")
    assert last.run_id == client().get_model_version(NAME, "2").run_id
    client().delete_registered_model_alias(NAME, "champion")
    assert champion_version(params, root) is None
    last = history(params, root)[-1]
    assert (last.version, last.previous) == (None, "2")
    assert "removed" in last.why
    assert alias() is None
    # Taken away by hand: nothing puts it back but a person.
    outcome = evaluate_and_promote(params, root, by="flow")
    assert outcome.entry is None
    assert "taken away by hand" in outcome.verdict.reason
    assert alias() is None
    assert rollback(params, root, "it was a slip", "me").version == "2"


def test_from_nothing_the_gate_decides(workspace):
    root, params = workspace
    strict = params.model_copy(
        update={"evaluate": params.evaluate.model_validate({"gate": {"max_mse": 1e-6, "beat_pca": False}})}
    )
    refused = evaluate_and_promote(strict, root, by="flow")
    assert refused.entry is None
    assert "the gate asks for" in refused.verdict.reason
    outcome = evaluate_and_promote(params, root, by="flow")
    assert (outcome.champion, outcome.challenger, outcome.entry.version) == (None, "3", "3")
    assert outcome.artifact == "promotion/verdict-none-3.json"
    assert outcome.entry.verdict == outcome.artifact
    assert alias() == "3"


def test_nothing_published_is_said_and_makes_no_database(tiny_params, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    acts = (
        lambda: history(tiny_params, tmp_path),
        lambda: evaluate_and_promote(tiny_params, tmp_path, by="me"),
        lambda: promote(tiny_params, tmp_path, None, "why", "me"),
    )
    for act in acts:
        with pytest.raises(TrackingError, match=r"no registered model synthetic-ae at sqlite:.*run `dvc repro`"):
            act()
    assert champion_version(tiny_params, tmp_path) is None
    assert not list(tmp_path.iterdir())
    with connect(tiny_params, tmp_path):
        pass
    with pytest.raises(TrackingError, match="run `dvc repro`"):
        history(tiny_params, tmp_path)
    assert champion_version(tiny_params, tmp_path) is None


def test_a_better_challenger_is_promoted_with_its_verdict(workspace):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    seen = compare(params, root)
    assert (seen.champion, seen.challenger, seen.verdict.promote, seen.entry) == ("1", "3", True, None)
    assert alias() == "1"
    outcome = evaluate_and_promote(params, root, by="nightly")
    assert alias() == "3"
    assert told(history(params, root))[-1] == ("3", "1", PROMOTED, DONE)
    assert history(params, root)[-1] == outcome.entry
    version = client().get_model_version(NAME, "3")
    assert version.tags["promotion.verdict"] == "promote"
    assert version.tags["promotion.reason"] == outcome.verdict.reason == outcome.entry.why
    assert version.tags["promotion.champion"] == "1"
    folder = mlflow.artifacts.download_artifacts(
        run_id=version.run_id, artifact_path="promotion", tracking_uri=os.environ["MLFLOW_TRACKING_URI"]
    )
    with open(f"{folder}/verdict-1-3.json") as file:
        logged = json.load(file)
    assert logged["verdict"] == json.loads(json.dumps(outcome.verdict.as_dict()))
    assert (logged["champion"], logged["challenger"], logged["by"]) == ("1", "3", "nightly")
    with open(f"{folder}/verdict-1-3.md") as file:
        assert outcome.verdict.reason in file.read()


def test_a_worse_challenger_is_not_and_the_verdict_is_logged_too(workspace):
    root, params = workspace
    promote(params, root, "3", "start", "me")
    set_alias("1", "challenger")
    outcome = evaluate_and_promote(params, root, by="nightly")
    assert outcome.entry is None
    assert alias() == "3"
    tags = client().get_model_version(NAME, "1").tags
    assert tags["promotion.verdict"] == "keep the champion"
    assert "MSE" in tags["promotion.reason"]
    assert outcome.artifact == "promotion/verdict-3-1.json"


def test_the_champion_itself_as_challenger_keeps_the_tags_it_was_promoted_with(workspace):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    evaluate_and_promote(params, root, by="nightly")
    before = client().get_model_version(NAME, "3").tags
    again = evaluate_and_promote(params, root, by="nightly")
    assert (again.entry, again.artifact) == (None, None)
    assert "nothing to do" in again.verdict.reason
    assert client().get_model_version(NAME, "3").tags == before
    assert len(history(params, root)) == 2


@pytest.mark.parametrize("how", ["rollback", "by hand", "promote"])
def test_a_challenger_that_a_person_took_back_is_not_promoted_again(workspace, how):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    assert evaluate_and_promote(params, root, by="nightly").entry.version == "3"
    if how == "rollback":
        rollback(params, root, "customers complain", "ann")
    elif how == "by hand":
        set_alias("1")
    else:
        promote(params, root, "1", "customers complain", "ann")
    outcome = evaluate_and_promote(params, root, by="nightly")
    assert outcome.entry is None
    assert alias() == "1"
    assert "only a person moves it back: `ae-pipeline promote 3 --why ...`" in outcome.verdict.reason
    assert how == "by hand" or "ann (customers complain)" in outcome.verdict.reason
    assert outcome.verdict.conditions[-1].name == "not_taken_back"
    assert client().get_model_version(NAME, "3").tags["promotion.verdict"] == "keep the champion"
    # Another challenger is judged as ever, and a person may promote the old one.
    set_alias("2", "challenger")
    assert evaluate_and_promote(params, root, by="nightly").entry.version == "2"
    assert promote(params, root, "3", "they got used to it", "ann").version == "3"


def test_a_champion_that_was_beaten_may_come_again(workspace):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    set_alias("2", "challenger")
    evaluate_and_promote(params, root, by="nightly")
    set_alias("3", "challenger")
    evaluate_and_promote(params, root, by="nightly")
    set_alias("2", "challenger")
    lenient = params.model_copy(update={"promotion": params.promotion.model_copy(update={"max_mse_increase": 100.0})})
    assert evaluate_and_promote(lenient, root, by="nightly").entry.version == "2"


def test_two_processes_that_compare_at_once_promote_once(workspace):
    root, params = workspace
    promote(params, root, "1", "start", "me")
    command = [sys.executable, "-m", "ae_pipeline", "compare", "--promote", "--json"]
    both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    done = [json.loads(process.communicate()[0]) for process in both]
    assert sorted(result["entry"] is None for result in done) == [False, True]
    assert told(history(params, root)) == [("1", None, PROMOTED, DONE), ("3", "1", PROMOTED, DONE)]


DIE = """
import os, signal, sys
from pathlib import Path
import mlflow
from ae_pipeline.params import load_params
from ae_pipeline.registry import promote, rollback

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


def orphan(experiment, tags):
    return client().create_run(experiment, tags={TRAINING_TAG: "another training", **tags}).info.run_id


def experiment_of():
    return client().get_experiment_by_name("ae-pipeline").experiment_id


def process(**changes):
    values = {**json.loads(process_tag()[PROCESS_TAG]), **changes}
    return {PROCESS_TAG: json.dumps(values)}


def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


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


def test_a_publish_that_was_killed_is_completed_by_the_next_and_closed_by_one_of_another_training(workspace):
    root, params = workspace
    write_lock(root, "new-training")
    killed = (
        "import os, signal; from pathlib import Path\n"
        "from ae_pipeline import tracking; from ae_pipeline.params import load_params\n"
        "tracking._log_results = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tracking.publish(load_params(Path('params.yaml')), Path.cwd())\n"
    )
    try:
        assert subprocess.run([sys.executable, "-c", killed], cwd=root, check=False).returncode == -signal.SIGKILL
        (half,) = client().search_runs([experiment_of()], "attributes.status = 'RUNNING'")
        write_lock(root, "epochs-30")
        publish(params, root)
        assert client().get_run(half.info.run_id).info.status == "KILLED"
        write_lock(root, "new-training")
        assert publish(params, root).run_id == half.info.run_id
        assert client().get_run(half.info.run_id).info.status == "FINISHED"
    finally:
        write_lock(root, "epochs-30")


def test_the_commands(workspace, ae, monkeypatch):
    root, params = workspace
    monkeypatch.setenv("LOGNAME", "ann")
    assert "no version has been champion yet" in ae("history")[1]
    assert json.loads(ae("promote", "1", "--why", "start", "--json")[1])["by"] == "ann"
    code, out, _ = ae("compare")
    assert code == 0
    assert "champion version 1, challenger version 3" in out
    assert "mse_increase" in out
    assert alias() == "1"
    assert "version 3 is champion now" in ae("compare", "--promote")[1]
    code, out, _ = ae("rollback", "--why", "hm")
    assert code == 0
    assert ROLLED_BACK in out
    lines = ae("history")[1].splitlines()
    assert lines[0].split() == ["version", "since", "(UTC)", "until", "by", "how", "why"]
    assert [line.startswith("*") for line in lines[1:]] == [False, False, True]
    assert "ann" in lines[3]
    assert lines[3].endswith("hm")
    found = json.loads(ae("history", "--json")[1])["history"]
    assert found == [entry.as_dict() for entry in history(params, root)]
    held_out = root / "data/prepared/validation"
    assert json.loads(ae("compare", "--held-out", str(held_out), "--json")[1])["verdict"]["rows"] == 60


def test_the_commands_mistakes_are_one_line(workspace, ae, tmp_path, monkeypatch):
    assert ae("promote")[0] == 2
    wrong = [
        (("promote", "9", "--why", "x"), "no version 9"),
        (("promote", "--why", ""), "say why"),
        (("rollback", "--why", "x"), "no champion before this"),
        (("compare", "--held-out", "nowhere"), "no data set at nowhere"),
        (("history", "--params", "nowhere.yaml"), "no nowhere.yaml here"),
    ]
    for arguments, word in wrong:
        code, out, err = ae(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert word in err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, err = ae("rollback", "--why", "x")
    assert code == 1
    assert "run `ae-pipeline rollback`" in err
