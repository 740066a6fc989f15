"""The stages of dvc.yaml: `ae-pipeline stage NAME`. Each reads, calls one part, writes.

Only stages know paths, from `params.paths`, relative to the folder they run in.
"""

from importlib import import_module
from pathlib import Path

from ae_pipeline.params import Params

STAGES = ("download", "prepare", "train", "evaluate", "encode", "decode", "publish")
"""What the pipeline consists of, in order."""
CODE = "code"
"""The stage before them, which makes nothing of the data: it says what the package's code is."""


def run_stage(name: str, params: Params, root: Path) -> None:
    """Run one stage in the workspace `root`."""
    import_module(f"ae_pipeline.cli.stages.{name}").run(params, root)
