"""Make MLflow hold one complete run for what is in the workspace. Needs the tracking server; nothing else does."""

from pathlib import Path

from ae_pipeline.params import Params
from ae_pipeline.tracking import publish


def run(params: Params, root: Path) -> None:
    """dvc.lock, paths.codec, paths.reports -> MLflow"""
    print(publish(params, root).describe())
