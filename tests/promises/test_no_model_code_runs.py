"""Models in MLflow's registry are files to us: neither their code nor a pickle among them runs; MLflow loads none."""

import os
import shutil
import subprocess
import sys

import pytest
import warm
from guarding import SWITCH, Guard
from inboxes import settle
from payloads import PAYLOADS, fit_weights, pickled, refused, yaml_tag
from trainings import NAME, client

from ae_pipeline.codec.header import read_header
from ae_pipeline.errors import DataError
from ae_pipeline.evaluation.drift.reference import REFERENCE_NAME
from ae_pipeline.operation.champion.moves import promote
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.operation.monitoring import monitor_batches
from ae_pipeline.operation.tracking.connection import fetch_codec

pytestmark = pytest.mark.slow


@pytest.fixture
def version_folder(workspace):
    """Where MLflow keeps the files of the challenger (version 3)."""
    (path,) = [
        path.parent
        for path in (workspace[0] / "mlruns/artifacts").rglob("MLmodel")
        if read_header(path.parent / "artifacts/codec").fingerprint
        == read_header(workspace[0] / "data/codec").fingerprint
    ]
    return path


MODEL = (
    "encode data/prepared/test --model models:/synthetic-ae@challenger --store {out} --device cpu",
    "promote --why x",
)


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("name", ["codec.json", "weights.safetensors"])
def test_no_codec_of_the_registry_runs_code(name, kind, version_folder, tmp_path, mark, ae):
    (version_folder / "artifacts/codec" / name).write_bytes(PAYLOADS[kind][0](mark))
    if name == "weights.safetensors":
        fit_weights(version_folder / "artifacts/codec")
    commands = (*MODEL, "compare") if name == "codec.json" else (MODEL[0], "compare")
    for command in commands:
        result = ae(*command.format(out=tmp_path / "out").split())
        assert refused(result), result


def test_none_of_what_makes_a_model_of_mlflows_is_run(version_folder, tmp_path, mark, ae):
    """Its code, its pickles and its YAML; the codec is sound, and is all that is taken."""
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    for path in version_folder.rglob("*.py"):
        path.write_text(code)
    for name in ("python_model.pkl", "data/model.pth", "pickle_module_info.txt", "artifacts/codec/model.pkl"):
        (version_folder / name).parent.mkdir(exist_ok=True)
        (version_folder / name).write_bytes(pickled(mark))
    model = version_folder / "MLmodel"
    model.write_bytes(model.read_bytes() + yaml_tag(mark))
    for name in ("conda.yaml", "python_env.yaml"):
        (version_folder / name).write_bytes(yaml_tag(mark))
    assert (version_folder / "code/ae_pipeline/operation/tracking/pyfunc_model.py").read_text() == code
    for command in (*MODEL, "compare", "history"):
        code, _, err = ae(*command.format(out=tmp_path / "out").split())
        assert code == 0, err


def test_no_text_in_the_registry_runs_code(workspace, mark, ae):
    for text in (pickled(mark, protocol=0).decode(), yaml_tag(mark).decode()):
        client().set_registered_model_tag(NAME, "ae_pipeline.champion.000001", text)
        result = ae("history")
        assert refused(result), result


def test_no_reference_of_the_drift_runs_code(workspace, tmp_path, mark):
    published, params = workspace
    root = tmp_path / "operated"
    entry = promote(params, published, None, "to watch it", "a test")
    shutil.copytree(published / "data/prepared/test", root / "data/inbox")
    settle(root / "data/inbox")
    codec = fetch_codec(f"models:/{NAME}@champion", params, published, tmp_path)
    assert len(encode_inbox(params, root, codec).files) == 1
    assert monitor_batches(params, root).new
    (reference,) = (published / "mlruns/artifacts").glob(f"{entry.run_id}/artifacts/{REFERENCE_NAME}")
    for make, _ in PAYLOADS.values():
        reference.write_bytes(make(mark))
        with pytest.raises(DataError, match=REFERENCE_NAME):
            monitor_batches(params, root)


@pytest.fixture
def guard(tmp_path):
    (tmp_path / "guard").mkdir()
    return Guard(tmp_path / "guard")


def guarded(guard, *command, **environment):
    """Run it from nothing, unless it has the environment of warm.py."""
    inherited = {name: value for name, value in os.environ.items() if name != SWITCH}
    return subprocess.run(
        [sys.executable, *command],
        env={**inherited, **guard.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_publishing_has_mlflow_load_nothing_and_pickles_are_switched_off(guard, workspace, tmp_path):
    """Into an empty store, so that everything is logged."""
    done = guarded(
        guard, "-W", "ignore", "-m", "ae_pipeline", "publish", MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/empty.db"
    )
    assert done.returncode == 0, done.stderr
    assert guard.calls == []
    (line,) = guard.switches
    assert line.startswith("switch false in -W ignore -m ae_pipeline publish")


def test_a_loader_that_is_called_is_noted(guard, workspace):
    """What the other tests rely on."""
    done = guarded(guard, "-W", "ignore", "-c", f"import mlflow; mlflow.pyfunc.load_model('models:/{NAME}/1')")
    assert "mlflow.pyfunc.load_model is not to be called here" in done.stderr
    (call,) = guard.calls
    assert call.startswith("call of mlflow.pyfunc.load_model in ")


def test_whoever_wants_pickles_in_mlflow_can_have_them(guard, workspace):
    done = guarded(guard, "-m", "ae_pipeline", "history", **{**warm.environment(), SWITCH: "true"})
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in guard.switches] == ["true"]
