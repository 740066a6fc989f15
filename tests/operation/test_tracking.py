"""publish() against a real SQLite-backed MLflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from ready import copy_mlflow_database
from trainings import client

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError, TrackingError, WorkspaceError
from ae_pipeline.operation.tracking.connection import fetch_codec, tracking_uri, ui_command
from ae_pipeline.operation.tracking.publish import PUBLISHED_TAG, publish

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def workspace(published, tmp_path, monkeypatch):
    """The last of the published trainings, and an empty tracking store before each test; artifacts go beside it."""
    copy_mlflow_database(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return published


def all_runs():
    experiments = client().search_experiments(filter_string="name = 'ae-pipeline'")
    return client().search_runs([experiment.experiment_id for experiment in experiments])


def test_without_a_database_one_is_made_and_gets_one_complete_run(workspace, tmp_path):
    root, params = workspace
    (tmp_path / "mlflow.db").unlink()
    done = publish(params, root)
    assert done.outcome == "created"
    run = client().get_run(done.run_id)
    assert run.info.status == "FINISHED"
    curve = client().get_metric_history(done.run_id, "validation_loss")
    assert len(curve) == json.loads((root / "reports/metrics.json").read_text())["epochs"]
    assert [point.step for point in curve] == list(range(1, len(curve) + 1))
    contexts = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert set(contexts) == {"train", "validation", "test"}
    assert SampleSet.open(root / "data/prepared/train").digest.startswith(contexts["train"].digest)
    names = {item.path for item in client().list_artifacts(done.run_id, "pictures")}
    assert "pictures/reconstructions.png" in names
    codec = {item.path for item in client().list_artifacts(done.run_id, "codec/artifacts/codec")}
    assert codec == {"codec/artifacts/codec/codec.json", "codec/artifacts/codec/weights.safetensors"}


def test_publishing_again_changes_nothing(workspace):
    root, params = workspace
    first = publish(params, root)
    second = publish(params, root)
    assert second.outcome == "unchanged"
    assert second.run_id == first.run_id
    assert len(all_runs()) == 1
    assert len(client().search_model_versions("name = 'synthetic-ae'")) == 1
    assert len(client().get_metric_history(first.run_id, "mse")) == 1


def test_the_model_version_has_signature_example_alias_and_no_pickle(workspace):
    root, params = workspace
    done = publish(params, root)
    version = client().get_model_version_by_alias("synthetic-ae", "challenger")
    assert str(version.version) == done.version
    files = Path(mlflow.artifacts.download_artifacts(f"models:/synthetic-ae/{version.version}"))
    info = mlflow.models.get_model_info(str(files))
    assert info.signature.inputs.inputs[0].shape == (-1, 12, 12)
    assert list(files.glob("*input_example*"))
    assert not [path for path in files.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]


def test_other_people_can_load_it_as_pyfunc_in_a_process_without_our_package_on_its_path(workspace, tmp_path):
    root, params = workspace
    publish(params, root)
    test = SampleSet.open(root / "data/prepared/test").load().pixels[:5]
    np.save(tmp_path / "rows.npy", test)
    script = (
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/synthetic-ae@challenger')\n"
        "rows = np.load('rows.npy')\n"
        "np.save('decoded.npy', model.predict(rows))\n"
        "np.save('latents.npy', model.predict(rows, params={'task': 'encode'}))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    codec = Codec.load(root / "data/codec")
    assert np.array_equal(np.load(tmp_path / "latents.npy"), codec.encode(test))
    assert np.array_equal(np.load(tmp_path / "decoded.npy"), codec.decode(codec.encode(test)))


@pytest.mark.parametrize("uri", ["models:/synthetic-ae@challenger", "models:/synthetic-ae/1"])
def test_our_own_commands_take_the_codec_from_the_version_and_run_none_of_its_code(workspace, uri, tmp_path):
    root, params = workspace
    publish(params, root)
    # Model code that would fail if anything ran it.
    model_codes = list((root / "mlruns/artifacts").rglob("pyfunc_model.py"))
    assert model_codes
    for model_code in model_codes:
        model_code.write_text("raise SystemExit('model code was run')\n")
    folder = fetch_codec(uri, params, root, tmp_path / "fetched")
    assert Codec.load(folder).fingerprint == Codec.load(root / "data/codec").fingerprint


@pytest.mark.parametrize(
    "uri", ["models:/synthetic-ae@champion", "models:/nothing/1", "synthetic-ae", "models:/synthetic-ae"]
)
def test_a_model_that_is_not_there_is_a_clear_error(workspace, uri, tmp_path):
    root, params = workspace
    publish(params, root)
    with pytest.raises(TrackingError, match=r"models:/|synthetic-ae"):
        fetch_codec(uri, params, root, tmp_path / "fetched")


def test_a_run_that_a_crash_left_half_logged_is_completed_not_doubled(workspace):
    root, params = workspace
    done = publish(params, root)
    client().delete_tag(done.run_id, PUBLISHED_TAG)
    client().update_run(done.run_id, status="RUNNING")
    client().delete_model_version("synthetic-ae", "1")
    again = publish(params, root)
    assert again.run_id == done.run_id
    assert client().get_run(done.run_id).info.status == "FINISHED"
    assert str(client().get_model_version_by_alias("synthetic-ae", "challenger").version) == again.version
    assert len(client().get_metric_history(done.run_id, "train_loss")) == len(
        {point.step for point in client().get_metric_history(done.run_id, "train_loss")}
    )


def test_a_new_evaluation_updates_the_same_run(workspace, tiny_params):
    root, params = workspace
    first = publish(params, root)
    path = root / "reports/metrics.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(before), "mse": 0.5}))
        changed = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"seed": 9})})
        second = publish(changed, root)
    finally:
        path.write_text(before)
    assert (second.outcome, second.run_id, second.version) == ("updated", first.run_id, first.version)
    run = client().get_run(first.run_id)
    assert run.data.metrics["mse"] == 0.5
    assert run.data.params["evaluate.seed"] == "0"
    assert run.data.tags["later.evaluate.seed"] == "9"


def test_it_works_while_another_run_of_the_user_is_active(workspace):
    root, params = workspace
    uri = os.environ["MLFLOW_TRACKING_URI"]
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run() as active:
            done = publish(params, root)
            assert mlflow.active_run().info.run_id == active.info.run_id
    finally:
        mlflow.set_tracking_uri(None)
    assert done.run_id != active.info.run_id
    assert not mlflow.MlflowClient(uri, uri).get_run(active.info.run_id).data.metrics


@pytest.mark.usefixtures("warm_commands")
def test_two_processes_that_publish_at_once_make_one_run(workspace):
    root, _ = workspace
    command = [sys.executable, "-m", "ae_pipeline", "publish", "--json"]
    both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    done = [json.loads(process.communicate()[0]) for process in both]
    assert {result["outcome"] for result in done} == {"created", "unchanged"}
    assert len(all_runs()) == 1
    assert len(client().search_model_versions("name = 'synthetic-ae'")) == 1


def test_an_unreachable_server_is_one_line_with_the_way_out(workspace, monkeypatch):
    root, params = workspace
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"http://127.0.0.1:9 failed.*ae-pipeline publish"):
        publish(params, root)


def test_without_results_it_says_what_to_run_first(tiny_params, tmp_path):
    with pytest.raises(WorkspaceError, match=r"dvc.lock is missing; run `dvc repro` first"):
        publish(tiny_params, tmp_path)


@pytest.mark.parametrize("values", [{}, {"mse": "low"}, {"mse": None, "bits_per_row": 3}])
def test_metrics_of_another_shape_are_named(values, workspace):
    root, params = workspace
    path = root / params.paths.reports / "metrics.json"
    before = path.read_text()
    path.write_text(json.dumps(values))
    try:
        with pytest.raises(
            WorkspaceError, match=r"metrics.json (has .* as|lacks) mse, expected a number; run `dvc repro` again"
        ):
            publish(params, root)
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", ["round_trip.json", "drift_reference.json"])
@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_reports_that_nobody_could_read_are_not_attached(name, text, workspace):
    root, params = workspace
    path = root / params.paths.reports / name
    before = path.read_text()
    path.write_text(text)
    try:
        with pytest.raises((WorkspaceError, DataError), match=rf"{name} .*run `dvc repro"):
            publish(params, root)
    finally:
        path.write_text(before)
    assert client().search_experiments(filter_string="name = 'ae-pipeline'") == []


def test_the_default_store_is_absolute_and_experiments_in_temporary_copies_use_it_too(
    tiny_params, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    expected = f"sqlite:///{tmp_path.resolve()}/mlruns/mlflow.db"
    assert tracking_uri(tiny_params, tmp_path) == expected
    copy = tmp_path / ".dvc/tmp/exps/standalone/tmp1"
    copy.mkdir(parents=True)
    assert tracking_uri(tiny_params, copy) == expected


def test_the_ui_command_serves_the_store_on_loopback(tiny_params, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    command, environment = ui_command(tiny_params, tmp_path, 5123)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == tracking_uri(tiny_params, tmp_path)
    assert (tmp_path / "mlruns/mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    with pytest.raises(TrackingError, match=r"open that address"):
        ui_command(tiny_params, tmp_path, 5123)
