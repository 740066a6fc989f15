"""Write what the package's code is, so that DVC sees which stages an edit or an upgrade of it can change.

It starts every `dvc repro`, and must take no time: nothing heavy is imported here.
"""

from pathlib import Path

from ae_pipeline.files import write_json
from ae_pipeline.params import Params
from ae_pipeline.provenance import CODE_FILE, code_digests


def run(params: Params, root: Path) -> None:  # noqa: ARG001 (every stage takes the parameters)
    """The installed package -> code.json"""
    write_json(root / CODE_FILE, code_digests())
