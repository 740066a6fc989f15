"""The champion in a real SQLite-backed MLflow: promoted, rolled back, and moved by hand."""

import json
import os
from dataclasses import asdict

import mlflow
import pytest
from trainings import NAME, alias, client, set_alias, told

from ae_pipeline.errors import ConfigError, TrackingError
from ae_pipeline.operation.champion.history import DONE, MOVED_BY_HAND, PROMOTED, ROLLED_BACK
from ae_pipeline.operation.champion.moves import champion_version, evaluate_and_promote, history, promote, rollback
from ae_pipeline.operation.tracking.connection import connect

pytestmark = pytest.mark.slow


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
        with pytest.raises(TrackingError, match="no version with the alias challenger; `ae-pipeline publish`"):
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
    # Taken away by hand: nothing puts it back but a person.
    for act in (lambda: champion_version(params, root), lambda: evaluate_and_promote(params, root, by="flow")):
        with pytest.raises(TrackingError, match="version 2, from which the alias was taken by hand"):
            act()
    last = history(params, root)[-1]
    assert (last.version, last.previous) == (None, "2")
    assert "removed" in last.why
    assert alias() is None
    assert rollback(params, root, "it was a slip", "me").version == "2"


def test_nothing_published_is_said_and_makes_no_database(tiny_params, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    acts = (
        lambda: history(tiny_params, tmp_path),
        lambda: evaluate_and_promote(tiny_params, tmp_path, by="me"),
        lambda: promote(tiny_params, tmp_path, None, "why", "me"),
    )
    for act in acts:
        with pytest.raises(TrackingError, match=r"no registered model synthetic-ae at sqlite:.*`ae-pipeline publish`"):
            act()
    assert champion_version(tiny_params, tmp_path) is None
    assert not list(tmp_path.iterdir())
    with connect(tiny_params, tmp_path):
        pass
    with pytest.raises(TrackingError, match="`ae-pipeline publish`"):
        history(tiny_params, tmp_path)
    assert champion_version(tiny_params, tmp_path) is None


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
    assert found == [asdict(entry) for entry in history(params, root)]
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
