"""A workspace that published three trainings to a real SQLite-backed MLflow, and MLflow's client to look at them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from guarding import Guard
from ready import copy_mlflow_database
from ruamel.yaml import YAML

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.operation.tracking.publish import publish
from ae_pipeline.params import Params

NAME = "synthetic-ae"
_OUTS = {"train": "data/codec", "encode": "data/latents", "decode": "data/decoded"}
_EPOCHS = (8, 15, 30)
LAST_CODEC = f"epochs-{_EPOCHS[-1]}"
"""What dvc.lock calls the codec that is in the workspace."""


def write_lock(root, codec_md5):
    """Write dvc.lock as DVC would after a training with this codec."""
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


def published_three(root, params):
    """`publish_three` in a process of its own: MLflow remembers as long as one lives where a run's files were."""
    root.mkdir()
    (root / "params.json").write_text(params.model_dump_json())
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from trainings import Params, publish_three; root = Path(sys.argv[1])\n"
        "publish_three(root, Params.model_validate_json((root / 'params.json').read_bytes()))"
    )
    support = Path(__file__).parent
    (root / "guard").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, root, support, support.parents[1]],
        env={**os.environ, **Guard(root / "guard").environment, **warm.environment()},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root / "guard")


def publish_three(root, params):
    """Train and publish with 8, 15 and 30 epochs, each better than the one before; params.yaml has the last ones."""
    copy_mlflow_database(root / "mlruns/mlflow.db")
    tree = params.model_dump()
    tree["evaluate"]["gate"]["beat_pca"] = False
    # Speed and size are test_promotion's; here only the error decides.
    tree["promotion"] |= {"min_speed": 1e-6, "max_bits_increase": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for epochs in _EPOCHS:
            tree["train"]["epochs"] = epochs
            params = Params.model_validate(tree)
            stages = ("download", "prepare") if epochs == _EPOCHS[0] else ()
            for stage in (*stages, "train", "evaluate", "encode", "decode"):
                shutil.rmtree(root / _OUTS.get(stage, "none"), ignore_errors=True)
                run_stage(stage, params, root)
            write_lock(root, f"epochs-{epochs}")
            publish(params, root)
    YAML().dump(params.model_dump(mode="json"), root / "params.yaml")


def client():
    import mlflow

    uri = os.environ["MLFLOW_TRACKING_URI"]
    return mlflow.MlflowClient(uri, uri)


def set_alias(version, alias="champion"):
    client().set_registered_model_alias(NAME, alias, version)


def alias(name="champion"):
    found = client().get_registered_model(NAME).aliases.get(name)
    return None if found is None else str(found)


def told(entries):
    return [(entry.version, entry.previous, entry.action, entry.state) for entry in entries]
