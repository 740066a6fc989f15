"""Fetch the source's files into data/raw, verified."""

from pathlib import Path

from ae_pipeline.files import finished_folder
from ae_pipeline.params import Params
from ae_pipeline.sources import build_source


def run(params: Params, root: Path) -> None:
    """Source -> paths.raw"""
    with finished_folder(root / params.paths.raw) as raw:
        build_source(params.source).fetch(raw)
