"""A champion that is gone from a real SQLite-backed MLflow: everything that needs it stops, and the way out works."""

import os
import shutil
import subprocess
import sys

import pytest
from grown import append
from trainings import NAME, alias, client

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import TrackingError
from ae_pipeline.operation.champion.moves import (
    champion_version,
    compare,
    evaluate_and_promote,
    history,
    promote,
    rollback,
)
from ae_pipeline.operation.inbox.run import growing_store
from ae_pipeline.operation.monitoring import monitor_batches
from ae_pipeline.operation.tracking.publish import publish

pytestmark = pytest.mark.slow

GONE = "has no champion, but there was one"


def everything_stops(params, root, match):
    """All that looks for the champion says the same, and nothing is promoted."""
    acts = (
        lambda: champion_version(params, root),  # encode_new
        lambda: monitor_batches(params, root),
        lambda: compare(params, root),
        lambda: evaluate_and_promote(params, root, by="flow"),
    )
    said = set()
    for act in acts:
        with pytest.raises(TrackingError, match=match) as raised:
            act()
        said.add(str(raised.value))
    assert len(said) == 1
    assert GONE in said.pop()


def told_by(act):
    with pytest.raises(TrackingError) as raised:
        act()
    return str(raised.value)


def renamed(params, name):
    return params.model_copy(update={"tracking": params.tracking.model_copy(update={"registered_model": name})})


@pytest.fixture
def champions(workspace):
    """Version 2 is champion, after version 1."""
    root, params = workspace
    promote(params, root, "1", "start", "me")
    promote(params, root, "2", "better", "me")
    yield root, params
    shutil.rmtree(root / "data/growing", ignore_errors=True)


@pytest.fixture
def grown(champions):
    """Rows that the workspace's codec encoded, as `encode_new` does it."""
    root, params = champions
    samples = SampleSet.open(root / "data/prepared/test", read_header(root / "data/codec").spec)
    store = growing_store(params, root, read_header(root / "data/codec").fingerprint)
    append(store, [samples], root / "data/codec")
    return champions


def test_the_champions_version_was_deleted(champions):
    root, params = champions
    client().delete_model_version(NAME, "2")
    everything_stops(params, root, "version 2, which was deleted .*`ae-pipeline promote 1 --why ...` goes back")
    assert [entry.version for entry in history(params, root)] == ["1", "2", None]
    assert alias() is None
    promote(params, root, "1", "as it said", "me")
    assert champion_version(params, root) == alias() == "1"
    assert evaluate_and_promote(params, root, by="flow").champion == "1"


def test_the_alias_was_deleted(champions):
    root, params = champions
    client().delete_registered_model_alias(NAME, "champion")
    everything_stops(params, root, "version 2, from which the alias was taken .*`ae-pipeline promote 2 --why ...`")
    promote(params, root, "2", "as it said", "me")
    assert champion_version(params, root) == "2"
    client().delete_registered_model_alias(NAME, "champion")
    assert rollback(params, root, "a slip", "me").version == "2"


@pytest.mark.parametrize("published_again", [False, True])
def test_the_registered_model_was_renamed(champions, published_again):
    root, params = champions
    client().rename_registered_model(NAME, "renamed-ae")
    if published_again:
        assert publish(params, root).outcome == "registered"
    everything_stops(params, root, "version 2 of renamed-ae, .*`tracking.registered_model: renamed-ae` in params.yaml")
    for act in (lambda: history(params, root), lambda: rollback(params, root, "why", "me")):
        assert GONE in told_by(act)
    assert champion_version(renamed(params, "renamed-ae"), root) == "2"
    # The other way: to begin anew.
    publish(params, root)
    assert "begins anew (there: 1)" in told_by(lambda: champion_version(params, root))
    promote(params, root, "1", "as it said", "me")
    assert champion_version(params, root) == "1"


def test_the_registered_model_was_deleted(champions):
    root, params = champions
    run_id = history(params, root)[-1].run_id
    client().delete_registered_model(NAME)
    everything_stops(params, root, f"run {run_id} trained it.*`ae-pipeline publish`, then `ae-pipeline promote VERSION")
    assert GONE in told_by(lambda: promote(params, root, "1", "why", "me"))
    publish(params, root)
    everything_stops(params, root, f"run {run_id} trained it.*begins anew")
    promote(params, root, "1", "as it said", "me")
    assert champion_version(params, root) == "1"


def test_the_history_was_deleted_with_the_alias(champions):
    root, params = champions
    for tag in client().get_registered_model(NAME).tags:
        client().delete_registered_model_tag(NAME, tag)
    client().delete_registered_model_alias(NAME, "champion")
    everything_stops(params, root, "run .* trained it")
    assert GONE in told_by(lambda: history(params, root))


def test_another_name_in_params_for_a_model_of_the_same_data(champions):
    root, params = champions
    new = renamed(params, "new-ae")
    publish(new, root)
    everything_stops(new, root, f"version 2 of {NAME}, which may be the same under another name")
    assert promote(new, root, "1", "on purpose", "me").version == "1"
    assert champion_version(new, root) == "1"
    assert champion_version(params, root) == "2"


@pytest.mark.parametrize("how", ["emptied", "away", "renamed in params"])
def test_a_growing_store_without_its_champion(grown, how, tmp_path, monkeypatch):
    root, params = grown
    assert champion_version(params, root) == "2"
    if how == "renamed in params":
        params = renamed(params, "another-ae")
    uri = f"sqlite:///{tmp_path}/{'emptied' if how == 'emptied' else 'away'}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if how != "away":
        publish(params, root)
    name = growing_store(params, root, read_header(root / "data/codec").fingerprint).name
    everything_stops(params, root, rf"data/growing has rows that it encoded \({name}: ")
    assert (tmp_path / "away").exists() == (how == "renamed in params")  # looking makes no database
    publish(params, root)
    promote(params, root, "1", "as it said", "me")
    assert champion_version(params, root) == "1"


def test_batches_that_were_monitored(grown):
    root, params = grown
    promote(params, root, "3", "it is in the workspace", "me")
    assert list(monitor_batches(params, root).new) == [1]
    shutil.rmtree(root / "data/growing")
    c = client()
    for experiment in c.search_experiments():
        for run in c.search_runs([experiment.experiment_id], "tags.`ae_pipeline.champion` LIKE '%'"):
            c.delete_tag(run.info.run_id, "ae_pipeline.champion")  # as an older version left them
    c.delete_registered_model(NAME)
    everything_stops(params, root, "encoded with version 3 of it were monitored")


def test_what_has_never_been_promoted_is_a_fresh_start(workspace):
    root, params = workspace
    assert champion_version(params, root) is None
    assert monitor_batches(params, root).version is None
    # Somebody else's champion, of other data, on the same server.
    c = client()
    c.create_registered_model("other-ae")
    c.create_model_version("other-ae", c.get_model_version(NAME, "1").source, tags={"data_digest": "another"})
    c.set_registered_model_alias("other-ae", "champion", "1")
    assert champion_version(renamed(params, "other-ae"), root) == "1"
    assert champion_version(params, root) is None
    assert evaluate_and_promote(params, root, by="flow").entry.version == "3"


def test_runs_that_were_deleted_for_good(grown):
    """`mlflow gc` after the runs of champion and challenger were deleted."""
    root, params = grown
    promote(params, root, "3", "it is in the workspace", "me")
    c, uri = client(), os.environ["MLFLOW_TRACKING_URI"]
    run_ids = [c.get_model_version(NAME, version).run_id for version in ("2", "3")]
    for run_id in run_ids:
        c.delete_run(run_id)
    subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--run-ids", ",".join(run_ids)],
        check=True, capture_output=True,
    )  # fmt: skip
    assert champion_version(params, root) == "3"
    said = told_by(lambda: monitor_batches(params, root))
    assert "run of synthetic-ae version 3 was deleted" in said
    assert "`ae-pipeline publish`" in said
    done = publish(params, root)
    assert (done.outcome, done.version) == ("created", "4")
    promote(params, root, "4", "as it said", "me")
    assert monitor_batches(params, root).version == "4"


def test_a_reference_that_is_missing_comes_back_by_publishing(grown):
    root, params = grown
    promote(params, root, "3", "it is in the workspace", "me")
    run_id = client().get_model_version(NAME, "3").run_id
    (found,) = (root / "mlruns/artifacts").rglob(f"{run_id}/artifacts/drift_reference.json")
    found.unlink()
    assert "run `dvc repro evaluate` and `ae-pipeline publish`" in told_by(lambda: monitor_batches(params, root))
    assert publish(params, root).outcome == "updated"
    assert monitor_batches(params, root).run_id


def test_publish_says_what_it_did(workspace):
    root, params = workspace
    assert publish(params, root).outcome == "unchanged"
    client().set_registered_model_alias(NAME, "challenger", "1")
    assert publish(params, root).outcome == "challenger moved"
    client().delete_model_version(NAME, "3")
    done = publish(params, root)
    assert (done.outcome, done.version) == ("registered", "4")
    assert done.describe().startswith("registered: run ")
    client().delete_registered_model(NAME)
    assert (publish(params, root).outcome, alias("challenger")) == ("registered", "1")


def test_the_commands_say_it_in_one_line(champions, ae):
    client().delete_model_version(NAME, "2")
    for command in (("compare",), ("compare", "--promote")):
        code, out, err = ae(*command)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {NAME} {GONE}")
        assert err.count("\n") == 1
    assert ae("history")[1].splitlines()[-1].startswith("*  none")
