"""Where data comes from: one file per source, named as in params.yaml's `source.name`.

To add one: write `sources/<name>.py` whose last line is `SOURCE = <Class>` (contract: base.py), add its options and
name to `SourceParams` in params.py; `tests/house/test_contracts.py` and DVC find it by name.
"""

from importlib import import_module

from ae_pipeline.params.options import SourceParams
from ae_pipeline.sources.base import Source


def build_source(params: SourceParams) -> Source:
    """The source that params.yaml names, with its options."""
    source: Source = import_module(f"ae_pipeline.sources.{params.name}").SOURCE(**params.options)
    return source
