"""Where data comes from: one file per source, named as in params.yaml's `source.name`.

To add one: write `sources/<name>.py` with its `class Options(Section)`, if it has any, and `SOURCE = <Class>` as its
last line (contract: base.py); write the options into params.yaml. params/options.py, dvc.yaml and
tests/house/test_contracts.py find it by its file.
"""

from importlib import import_module

from ae_pipeline.params.options import SourceParams
from ae_pipeline.sources.base import Source


def build_source(params: SourceParams) -> Source:
    """The source that params.yaml names, with its options."""
    source: Source = import_module(f"ae_pipeline.sources.{params.name}").SOURCE(**params.options)
    return source
