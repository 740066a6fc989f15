"""Tables that are made up, with columns of every type that the kind `table` takes, and a codec of a small one."""

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa

from ae_pipeline.data.arrow_types import type_to_json
from ae_pipeline.kinds import build_kind
from ae_pipeline.kinds.state import Form


def columns_of_all_types(rows=400, seed=0):
    """A table with nulls, NaN, infinities, constants, free text, and numbers of all types."""
    r = np.random.default_rng(seed)
    day = datetime.date(2020, 1, 1)
    return pa.table(
        {
            "int8": pa.array(r.integers(-128, 128, rows), pa.int8()),
            "uint64": pa.array(r.integers(0, 1 << 63, rows).astype("u8") * 2 + 1, pa.uint64()),
            "int64": pa.array(r.integers(-(1 << 58), 1 << 58, rows)),
            "float16": pa.array(r.normal(size=rows).astype("f2")),
            "float32": pa.array(r.normal(size=rows).astype("f4")),
            "float64": pa.array(r.normal(size=rows)),
            "cents": pa.array(np.round(r.gamma(2, 50, rows), 2)),
            "bool": pa.array(r.random(rows) < 0.3),
            "text": pa.array(r.choice(["a", "b", None], rows).tolist()),
            "large": pa.array(r.choice(["a", "é"], rows), pa.large_string()),
            "words": pa.array(r.choice(["x", "y", "z"], rows)).dictionary_encode(),
            "zoned": pa.array(r.integers(0, 100, rows) * 3600, pa.timestamp("s", "UTC")),
            "nanoseconds": pa.array(1 + r.integers(0, 10**18, rows), pa.timestamp("ns")),
            "date": pa.array([day + datetime.timedelta(int(days)) for days in r.integers(0, 99, rows)]),
            "time": pa.array(r.integers(0, 80_000, rows) * 1_000_000, pa.int64()).cast(pa.time64("us")),
            "duration": pa.array(r.integers(0, 50, rows), pa.duration("ms")),
            "decimal": pa.array([Decimal(int(x)) / 100 for x in r.integers(-500, 500, rows)], pa.decimal128(10, 2)),
            "nothing": pa.nulls(rows, pa.float64()),
            "always": pa.array([3] * rows),
            "free": [f"free text, number {number}" for number in range(rows)],
            "gaps": pa.array([None if x < 0.3 else float("nan") if x < 0.4 else round(x, 2) for x in r.random(rows)]),
            "endless": pa.array([float("inf") if n == 5 else round((n % 7) / 10, 1) for n in range(rows)]),
            "negative_zero": pa.array([-0.0 if n == 3 else float(n % 5) for n in range(rows)]),
        }
    )


def related_columns(rows=600, seed=0):
    """A table whose columns say much of each other: a size, its price, its grade, and some gaps."""
    r = np.random.default_rng(seed)
    size = np.round(r.gamma(3, 0.4, rows) + 0.2, 2)
    grade = r.choice(["plain", "good", "best"], rows, p=[0.5, 0.3, 0.2])
    worth = np.select([grade == "plain", grade == "good"], [1.0, 1.5], 2.2)
    price = np.round(900 * size * worth * r.normal(1, 0.03, rows)).astype(np.int64)
    width = np.round(5 * np.cbrt(size) + r.normal(0, 0.02, rows), 2)
    seen = [None if x < 0.1 else round(float(x), 1) for x in r.random(rows)]
    return pa.table({"size": size, "grade": grade, "price": price, "width": width, "seen": seen})


def fitted(table, **settings):
    """The kind, its state for all rows of a table, and these as records."""
    kind = build_kind("table")
    schema = table.schema.remove_metadata()
    form = Form(sort="table", type=type_to_json(pa.struct(list(schema))), columns=tuple(table.column_names))
    records = records_of(table)
    half = len(records) // 2
    state = kind.fit(form, kind.Options(**settings), iter([records[:half], records[half:]]))
    return kind, state, records


def records_of(table):
    """Rows of a table as the reader gives them: structs."""
    columns = [pa.concat_arrays(column.chunks) for column in table.columns]
    return pa.StructArray.from_arrays(columns, fields=list(table.schema.remove_metadata()))


def there_and_back(kind, state, records, rows=None):
    """The records that come back of the rows, or of `rows` in their place."""
    made = np.stack(list(kind.to_rows(records, str, state)))
    beside = pa.table(kind.beside_together(records, state))
    return kind.from_rows(made if rows is None else rows, beside, state)
