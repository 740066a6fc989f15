"""The challenger against the champion in a real SQLite-backed MLflow: who is promoted, and what is recorded."""

import json
import os
import subprocess
import sys

import mlflow
import pytest
from trainings import NAME, alias, client, set_alias, told

from ae_pipeline.operation.champion.history import DONE, PROMOTED
from ae_pipeline.operation.champion.moves import compare, evaluate_and_promote, history, promote, rollback

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_commands")]


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
