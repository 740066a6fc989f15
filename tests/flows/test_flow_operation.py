"""encode_new, evaluate_and_promote and monitor in a clone, against a real Prefect server and MLflow store.

The tests build on each other: from no champion to a promoted one, batches, drift, and a champion chosen by hand.
"""

import json
import shutil
import signal
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from clone import ran
from documents import blocks
from prefect_server import until
from webhook import webhook

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet, ShardWriter
from ae_pipeline.operation.inbox.batches import statistics_path
from ae_pipeline.operation.inbox.run import encode_inbox, growing_store
from ae_pipeline.operation.monitoring import REPORTED_TAG, mark_reported, monitor_batches
from ae_pipeline.params import load_params
from ae_pipeline.store.latent_store import LatentStore

pytestmark = [pytest.mark.slow, pytest.mark.server]

SETTINGS = {"inbox": {"settle_seconds": 0.0}, "promotion": {"min_speed": 0.01}}


@pytest.fixture(scope="module")
def hook():
    """A webhook that is told of what the flows find."""
    with webhook() as hook, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AE_ALERT_URL", f"{hook.url}/services/geheim")
        yield hook


@pytest.fixture
def told(hook):
    """What the webhook was told since it was asked last."""

    def told():
        found = [payload for _, _, payload in hook.posted]
        hook.posted.clear()
        assert all(payload["text"].endswith(payload["message"]) for payload in found)
        return [(payload["event"], payload["flow"], payload["state"], payload["message"]) for payload in found]

    told()
    return told


@pytest.fixture(scope="module")
def clone(clone, hook):
    """A workspace in which everything has been built and published once."""
    clone.take_what_was_built()
    clone.change(SETTINGS)
    clone.dvc("repro")
    (clone.folder / "data/inbox").mkdir(parents=True)
    # Whatever runs the code of the model that was published fails.
    codes = list((clone.folder / "mlruns/artifacts").rglob("*.py"))
    assert "pyfunc_model.py" in [path.name for path in codes]
    for path in codes:
        path.write_text("raise SystemExit('model code was run')\n")
    return clone


@pytest.fixture
def client(clone):
    return clone.mlflow()


def champion(client):
    return str(client.get_model_version_by_alias("synthetic-ae", "champion").version)


def held_out(clone):
    return SampleSet.open(clone.folder / "data/prepared/test").load()


def deliver(clone, name, pixels, first_id):
    """Put a Parquet file with these rows into the inbox."""
    test = SampleSet.open(clone.folder / "data/prepared/test")
    block = test.load()
    with ShardWriter(clone.folder / "data/inbox" / name, test.attributes_schema, test.spec) as writer:
        attributes = block.attributes.slice(0, len(pixels))
        ids = np.arange(first_id, first_id + len(pixels))
        writer.write(attributes.set_column(0, attributes.schema.field(0), [ids]), np.ascontiguousarray(pixels))


def growing(clone):
    (folder,) = [path for path in (clone.folder / "data/growing").iterdir() if (path / "_manifest.json").exists()]
    return LatentStore.open(folder)


def ids_of(store):
    return sorted(
        row for part in store.manifest.parts for row in pq.read_table(store.path / part.name)["id"].to_pylist()
    )


def status(clone, server):
    """The page, but for disks, which are this machine's."""
    code, output = clone.run(sys.executable, "-m", "ae_pipeline", "status", "--json", check=False, **server.environment)
    page = json.loads(output)
    assert code == (4 if page["attention"] else 0)
    return page, [sentence for sentence in page["attention"] if "GiB are left" not in sentence]


def test_without_a_champion_nothing_is_encoded_or_monitored(run_flow, told):
    for flow in ("encode_new", "monitor"):
        run = run_flow(flow)
        assert (run.state.is_completed(), run.state.name) == (True, "Skipped")
        assert "no champion yet" in run.state.message
    assert told() == []


def test_the_first_challenger_is_promoted_and_the_verdict_recorded(server, run_flow, client):
    run = run_flow("evaluate_and_promote")
    assert run.state.name == "Promoted"
    assert champion(client) == "1"
    assert "Promote" in server.artifacts(run)["promotion-verdict"].data
    version = client.get_model_version("synthetic-ae", "1")
    assert any(name.startswith("promotion") for name in version.tags)
    assert any(item.path == "promotion" for item in client.list_artifacts(version.run_id))


def test_the_same_challenger_again_changes_nothing(run_flow, client):
    assert run_flow("evaluate_and_promote").state.name == "Kept"
    assert champion(client) == "1"


def test_a_batch_is_encoded_and_a_bad_file_put_aside(clone, server, run_flow, told):
    pixels = held_out(clone).pixels
    deliver(clone, "first.parquet", pixels[:150], 10_000)
    (clone.folder / "data/inbox/bad.parquet").write_bytes(b"<html>not found</html>")
    run = run_flow("encode_new")
    assert run.state.is_completed()
    assert run.state.message == "1 file(s), 150 rows encoded; 1 in quarantine"
    found = server.artifacts(run)
    rows = json.loads(found["encode-new-quarantine"].data)
    assert rows[0]["file"].endswith("bad.parquet")
    assert (clone.folder / "data/quarantine").exists()
    assert growing(clone).manifest.totals.rows == 150
    ((event, flow, state, message),) = told()
    assert (event, flow, state) == ("quarantined", "encode_new", "Completed")
    assert message.startswith("1 file(s) could not be used and are in quarantine: bad.parquet: ")
    assert "0 in quarantine" in run_flow("encode_new").state.message
    assert growing(clone).manifest.snapshot == 1


def test_a_killed_run_loses_nothing_and_doubles_nothing(clone, server, run_flow, start_flow, told):
    pixels = held_out(clone).pixels
    for number in range(40):
        deliver(clone, f"second-{number:02}.parquet", np.roll(pixels[:200], number + 1, axis=0), 20_000 + 200 * number)
    before = len(server.runs())
    process = start_flow("encode_new")
    until(lambda: len(server.runs()) > before or process.poll() is not None)
    until(lambda: list((clone.folder / "data").rglob("*.partial")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = server.runs()[-1]
    store = growing(clone)
    assert store.manifest.totals.rows in (150, 150 + 8000)
    run = run_flow("encode_new")
    assert run.state.is_completed()
    store = growing(clone)
    assert ids_of(store) == [*range(10_000, 10_150), *range(20_000, 28_000)]
    assert store.manifest.snapshot == 2
    if not killed.state.is_final():
        with server.client() as api:
            assert api.read_flow_run(killed.id).state.is_crashed()
        assert [(event, flow, state) for event, flow, state, _ in told()] == [("crashed", "encode_new", "Crashed")]


def test_undisturbed_batches_are_as_trained_on(server, run_flow, client):
    run = run_flow("monitor")
    assert run.state.is_completed(), run.state.message
    rows = json.loads(server.artifacts(run)["drift-batches"].data)
    assert [row["snapshot"] for row in rows] == [1, 2]
    assert all(row["error drift"] <= row["error threshold"] for row in rows)
    assert all(row["latent drift"] <= row["latent threshold"] for row in rows)
    assert server.artifacts(run)["drift-picture"].data.startswith("data:image/png;base64,")
    experiment = client.get_experiment_by_name("ae-pipeline-monitor")
    (series,) = client.search_runs([experiment.experiment_id])
    assert series.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(series.info.run_id, "error_drift")]
    assert steps == [1, 2]
    assert "no new batch" in run_flow("monitor").state.message


def test_in_the_morning_all_is_well_or_it_is_said_what_is_not(clone, server):
    attention = status(clone, server)[1]
    assert attention == ["1 file(s) in quarantine (data/quarantine): correct them, or delete them"]
    shutil.rmtree(clone.folder / "data/quarantine")
    page, attention = status(clone, server)
    assert attention == []
    flows = page["prefect"]["flows"]
    assert (flows["rebuild"]["last"], flows["monitor"]["last"]["failed"]) == (None, False)
    assert flows["evaluate_and_promote"]["last"]["state"] == "Kept"
    assert (page["models"]["champion"]["version"], page["models"]["drift"]["drifted"]) == ("1", False)
    (store,) = page["stores"]
    assert (store["rows"], store["last_seven_days"]["snapshots"], page["inbox"]["waiting"]) == (8150, 2, 0)


def test_a_batch_that_was_measured_but_not_reported_is_reported_by_the_next_run(run_flow, client):
    experiment = client.get_experiment_by_name("ae-pipeline-monitor")
    (series,) = client.search_runs([experiment.experiment_id])
    client.set_tag(series.info.run_id, REPORTED_TAG, "1")
    assert "1 new batch(es)" in run_flow("monitor").state.message
    assert len(client.get_metric_history(series.info.run_id, "error_drift")) == 2


def test_a_batch_unlike_the_training_data_fails_the_monitor(clone, server, run_flow, told):
    deliver(clone, "third.parquet", 255 - held_out(clone).pixels[:200], 50_000)
    assert run_flow("encode_new").state.is_completed()
    run = run_flow("monitor", check=False)
    assert run.state.is_failed()
    assert "snapshot 3" in run.state.message
    assert told() == [("drifted", "monitor", "Failed", run.state.message)]
    assert [sentence.partition(",")[0] for sentence in status(clone, server)[1]] == [
        "the last batch that was measured is unlike the data that the champion was trained on",
        "monitor: Failed",
    ]


def test_drift_can_be_a_warning_only_and_a_webhook_that_is_away_stops_nothing(clone, server, hook, run_flow):
    deliver(clone, "fourth.parquet", 255 - held_out(clone).pixels[50:250], 60_000)
    run_flow("encode_new")
    hook.status = 500
    run = run_flow("monitor", "--on-drift", "warn", "--trigger-rebuild")
    hook.status = 200
    (said,) = [line for line in server.logs(run) if "was not told" in line]
    assert said.startswith(f"the webhook at {hook.url} was not told: it answers 500; ")
    assert (run.state.is_completed(), run.state.name) == (True, "Drifted")
    assert "There is no deployment rebuild/nightly to start" in run.state.message


def test_a_champion_chosen_by_hand_in_mlflow_is_respected(clone, run_flow, client):
    clone.change({"train": {"seed": 1}})
    clone.dvc("repro")
    client.set_registered_model_alias("synthetic-ae", "champion", "2")
    deliver(clone, "fifth.parquet", held_out(clone).pixels[:100], 70_000)
    assert "1 file(s), 100 rows encoded" in run_flow("encode_new").state.message
    stores = [path for path in (clone.folder / "data/growing").iterdir() if (path / "_manifest.json").exists()]
    assert sorted(LatentStore.open(path).manifest.totals.rows for path in stores) == [100, 150 + 8000 + 400]
    assert run_flow("evaluate_and_promote").state.name == "Kept"
    assert champion(client) == "2"
    _, output = clone.run(sys.executable, "-m", "ae_pipeline", "history")
    assert "moved by hand" in output


def test_a_champion_that_was_lost_fails_every_flow_that_needs_one(clone, run_flow, client, told):
    client.delete_registered_model_alias("synthetic-ae", "champion")
    for flow in ("encode_new", "monitor", "evaluate_and_promote"):
        run = run_flow(flow, check=False)
        assert run.state.is_failed(), flow
        assert "has no champion, but there was one: version 2" in run.state.message
        ((*what, message),) = told()
        assert (what, message) == (["failed", flow, "Failed"], run.state.message)
    clone.run(sys.executable, "-m", "ae_pipeline", "promote", "2", "--why", "it was a slip")
    assert run_flow("encode_new").state.is_completed()


def test_a_store_that_was_begun_in_the_place_of_another_has_a_series_of_its_own(clone, client):
    """As docs/operations.md tells to do it: "Another store"."""
    params = load_params(clone.folder / "params.yaml")
    codec = clone.folder / "data/codec"

    def monitor():
        found = monitor_batches(params, clone.folder)
        if found.new:
            mark_reported(params, clone.folder, found)
        return found.run_id, list(found.new)

    first, snapshots = monitor()
    assert snapshots == [1]
    assert monitor() == (first, [])
    store = growing_store(params, clone.folder, read_header(codec).fingerprint)
    for path in (store, statistics_path(store, 1).parent):
        path.rename(path.with_name(path.name.replace(store.name, f"{store.name}-before")))
    deliver(clone, "sixth.parquet", held_out(clone).pixels[100:150], 80_000)
    assert encode_inbox(params, clone.folder, codec).files == ["sixth.parquet"]
    second, snapshots = monitor()
    assert (second != first, snapshots) == (True, [1])
    assert len(client.get_metric_history(second, "error_drift")) == 1


def test_all_of_that_passed_with_pickles_of_mlflow_off_and_its_loaders_blocked(guard):
    """See tests/support/guarding.py."""
    assert guard.calls == []
    commands = (*(f"flows.{name}" for name in ("encode_new", "evaluate_and_promote", "monitor")), "ae_pipeline history")
    for command in commands:
        assert {line.split()[1] for line in guard.switches if f"-m {command}" in line} == {"false"}


def test_how_far_a_run_is_can_be_seen_in_prefect(server, monkeypatch):
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    from flows import progress

    monkeypatch.setattr(progress, "_EVERY_S", 0.0)

    @flow(name="told")
    def told():
        encoded = progress.Progress("encode-new-progress", "encode inbox")
        encoded.begin(100)
        encoded(25)
        stage = progress.Progress("encode-progress", "encode")
        stage.take("encode train: 1,500 of 3,000 rows (50%), 10 rows/s")
        stage.take("another line")
        ended = progress.Progress("ended-progress", "ended")
        ended.take("encode test: 1,500 of 3,000 rows (50%), 10 rows/s")
        ended.end()
        progress.Progress("short-progress", "short").end()

    with temporary_settings({PREFECT_API_URL: server.api, PREFECT_LOGGING_TO_API_ENABLED: False}):
        told()
    found = server.artifacts(server.runs()[-1])
    assert {key: artifact.data for key, artifact in found.items()} == {
        "encode-new-progress": 25.0,
        "encode-progress": 50.0,
        "ended-progress": 100.0,
    }
    assert found["ended-progress"].description == "ended: done"
    assert "25 of 100 rows (25%)" in found["encode-new-progress"].description
    assert "10 rows/s" in found["encode-progress"].description


def test_a_backup_that_is_restored_elsewhere_goes_on_as_if_nothing_had_happened(clone, server, tmp_path):
    """As docs/production.md tells to do it: "Backups". The original is gone, and nothing may look for it."""
    (line,) = [
        command
        for block in blocks("docs/production.md", "sh")
        for command, _ in block.commands()
        if command.startswith("tar -c")
    ]
    saved = [str(tmp_path / "backup.tar"), *line.split()[3:]]
    (clone.folder / "data/quarantine").mkdir(exist_ok=True)
    before = growing_rows(clone.folder)
    assert saved[1:3] == ["params.yaml", "dvc.lock"]
    clone.run("tar", "-cf", *saved)
    clone.run("git", "clone", "-q", str(clone.folder), str(tmp_path / "restored"))
    clone.folder.rename(tmp_path / "gone")
    clone.folder = tmp_path / "restored"
    clone.run("tar", "-xf", saved[0])
    clone.dvc("checkout", "dvc.yaml")
    _, output = clone.run(sys.executable, "-m", "ae_pipeline", "history")
    assert "it was a slip" in output
    _, output = clone.run(sys.executable, "-m", "ae_pipeline", "publish", "--json")
    assert json.loads(output[output.index("{") :])["outcome"] == "unchanged"
    deliver(clone, "seventh.parquet", held_out(clone).pixels[150:190], 90_000)
    clone.run(sys.executable, "-m", "flows.encode_new", **server.environment)
    after = growing_rows(clone.folder)
    assert sum(after.values()) == sum(before.values()) + 40
    assert before.keys() == after.keys()
    assert ran(clone.dvc("repro", "decode")[1]) == ["code"]


def growing_rows(folder):
    stores = [path.parent for path in (folder / "data/growing").glob("[!.]*/_manifest.json")]
    return {store.name: LatentStore.open(store).manifest.totals.rows for store in stores}
