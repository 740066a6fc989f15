"""A workspace that published three trainings to a real SQLite-backed MLflow, and MLflow's client to look at them."""

import os
import shutil

import pytest
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


def publish_three(root, tiny_params):
    """Train and publish with 8, 15 and 30 epochs, each better than the one before; returns the last parameters."""
    copy_mlflow_database(root / "mlruns/mlflow.db")
    tree = tiny_params.model_dump()
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
    return params


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
