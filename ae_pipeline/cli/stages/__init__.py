"""The stages of dvc.yaml: `ae-pipeline stage NAME`. Each reads, calls one part, writes.

Only stages know paths, from `params.paths`, relative to the folder they run in.
"""

from importlib import import_module
from pathlib import Path

from ae_pipeline.errors import WorkspaceError
from ae_pipeline.params import Params

STAGES = ("download", "prepare", "train", "evaluate", "encode", "decode", "publish")
"""What the pipeline consists of, in order."""
CODE = "code"
"""The stage before them, which makes nothing of the data: it says what the package's code is."""


_MADE_BY = {"raw": "download", "prepared": "prepare", "codec": "train", "latents": "encode"}
_NEEDS = {
    "prepare": ("raw",),
    "train": ("prepared",),
    "evaluate": ("prepared", "codec"),
    "encode": ("prepared", "codec"),
    "decode": ("prepared", "latents"),
}
"""Folders (of `params.paths`) that stages read; `publish` says itself what it misses."""


def run_stage(name: str, params: Params, root: Path) -> None:
    """Run one stage in the workspace `root`. Raises WorkspaceError where a stage before it has not run."""
    for folder in _NEEDS.get(name, ()):
        path = getattr(params.paths, folder)
        if not (root / path).exists():
            raise WorkspaceError(
                f"{path} is missing, which stage `{_MADE_BY[folder]}` makes; run `dvc repro {name}`, which runs what "
                "it needs, too"
            )
    import_module(f"ae_pipeline.cli.stages.{name}").run(params, root)
