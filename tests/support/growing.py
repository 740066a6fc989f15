"""What the tests of growing stores share."""

from handmade import random_pixels, write_rows

from ae_pipeline.params import EncodeParams
from ae_pipeline.store.writing.appending import append_samples


def batch(folder, number, rows=30, ids=True, **columns):
    """One data set of rows that no other number has."""
    ids = {"id": list(range(100 * number, 100 * number + rows))} if ids else {}
    pixels = random_pixels((rows, 5, 4), "uint8", seed=number)
    return write_rows(folder / f"batch-{number}.parquet", pixels, **ids, **columns)


def append(store, sets, codec, *, layout="list", row_group_rows=10_000, **options):
    params = EncodeParams(layout=layout, row_group_rows=row_group_rows, device="cpu")
    return append_samples(store, sets, codec, params, name="growing", git={}, **options)


def ids_of(store):
    return [
        name
        for part in store.manifest.parts
        for rows in store.read_part(part, 1000)
        for name in rows.attributes["id"].to_pylist()
    ]


def hidden(folder):
    return sorted(item.name for item in folder.rglob("*") if item.name.startswith("."))
