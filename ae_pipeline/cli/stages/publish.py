"""Make MLflow hold one complete run for what is in the workspace. Needs the tracking server; nothing else does."""

from pathlib import Path

from ae_pipeline.operation.tracking.publish import publish
from ae_pipeline.params import Params


def run(params: Params, root: Path) -> None:
    """dvc.lock, paths.codec, paths.reports -> MLflow"""
    print(publish(params, root).describe())
