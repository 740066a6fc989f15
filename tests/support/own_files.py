"""The source `files`, fetched into a folder anew, and what it holds; the rows that a kind makes of a record."""

import shutil

import numpy as np
import pyarrow as pa

from ae_pipeline.kinds.base import Several
from ae_pipeline.params import SourceParams
from ae_pipeline.sources import build_source


def fetch(tmp_path, **options):
    """Both splits, read from tmp_path/raw; what was there is removed. Options are those of the source."""
    raw = tmp_path / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    options = {**options, "path": str(options["path"])}
    source = build_source(SourceParams.model_validate({"name": "files", "files": options}))
    source.announce()
    source.fetch(raw)
    return source.read(raw)


def rows_of(splits):
    """(columns as a dict, row) of every record of both splits, by id."""
    found = []
    for split in splits.values():
        names = list(split.attributes)
        values = zip(*(split.attributes[name].to_pylist() for name in names), strict=True)
        lines = [dict(zip(names, line, strict=True)) for line in values]
        found += zip(lines, split.pixels, strict=True)
    return sorted(found, key=lambda item: item[0]["id"])


def pieces_of(found, kind, state):
    """Rows and their columns of a record of which a kind with this state makes several."""
    assert isinstance(found, Several), found
    pieces = list(found.pieces)
    rows = np.concatenate([values for values, _ in pieces])
    assert len(rows) == found.rows
    schema = kind.row_columns(state)
    return rows, pa.concat_tables([pa.table(columns, schema=schema) for _, columns in pieces])
