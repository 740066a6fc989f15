"""Where data comes from: one file per source, named as in params.yaml's `source.name`.

To add one: write `sources/<name>.py` with `SOURCE = <Class>` as its last line (contract: base.py). If it has options,
write their `class Options(Section)` beside it, in `sources/<name>_options.py`, and them into params.yaml. If it reads
files of a person's, it is a `SourceOptions` with `state_of_files`, so that `dvc repro` sees when they change.
params/options.py, dvc.yaml and tests/house/test_contracts.py find it by its file.
`files` takes what people have; own_files/ is what it is made of.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # params/ asks for the options where NumPy is not wanted
    from ae_pipeline.params.options import SourceParams
    from ae_pipeline.sources.base import Source


def build_source(params: "SourceParams") -> "Source":
    """The source that params.yaml names, with its options."""
    return import_module(f"ae_pipeline.sources.{params.name}").SOURCE(**params.options)
