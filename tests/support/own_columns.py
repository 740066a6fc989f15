"""Tables whose columns of numbers are taken together as vectors, and untrained codecs for them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from handmade import random_codec

from ae_pipeline.data.arrow_types import type_to_json
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.state import Form, entry_of
from ae_pipeline.params.base import Section

RANDOM = np.random.default_rng(5)
ROWS = 60
NAMES = ["tiny", 'näme, "odd" 😀', "big", "narrow", "real", "yes", "same"]
"""Columns of numbers, in an order that is not the table's."""


def table(rows=ROWS):
    """Columns of all sorts of numbers, of very different ranges, with texts and a list between them."""
    turns = RANDOM.normal(size=rows)
    return pa.table(
        {
            "word": [f"w{number}" for number in range(rows)],
            "big": pa.array((turns * 1e6).astype(np.int64) + 10**12),
            "tiny": pa.array((turns * 20).astype(np.int8)),
            NAMES[1]: pa.array(turns.astype(np.float32) / 1000),
            "list": [[1, 2]] * rows,
            "narrow": pa.array(turns.astype(np.float16)),
            "real": pa.array(turns**3 * 1e9 + 7),
            "yes": pa.array(turns > 0),
            "same": pa.array([65000] * rows, pa.uint16()),
            "class": pa.array(range(rows), pa.uint64()),
        }
    )


def columns_codec(folder, found, names=tuple(NAMES), **form):
    """An untrained codec for these columns of a table, with the state that training would fit."""
    fields = [found.schema.field(name) for name in names]
    described = Form(sort="table", type=type_to_json(pa.struct(fields)), columns=tuple(found.column_names), **form)
    columns = [found.column(name).combine_chunks() for name in names]
    state = build_kind("vector").fit(described, Section(), iter([pa.StructArray.from_arrays(columns, fields=fields)]))
    latents = max(1, len(names) - 1)
    random_codec(folder, (len(names),), "float32", latent_size=latents, kind=entry_of("vector", state))
    return state


def save(path, found, **options):
    """Write a table; returns the path."""
    pq.write_table(found, path, **options)
    return path
