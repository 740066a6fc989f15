"""What the tests of the inbox share: files of every kind put into one, runs, and what came of them."""

import io
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
from handmade import random_pixels, write_rows
from PIL import Image

from ae_pipeline.codec.header import read_header
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.params import Params
from ae_pipeline.store.latent_store import LatentStore

OLD = time.time() - 3600


def params_with(**inbox):
    return Params.model_validate({"encode": {"device": "cpu"}, "inbox": inbox})


def run(root, codec, **inbox):
    return encode_inbox(params_with(**inbox), root, codec)


def settle(folder):
    for file in folder.rglob("*"):
        os.utime(file, (OLD, OLD))


def put(path, number, rows=30):
    """A Parquet file of rows that no other number has."""
    write_rows(
        path, random_pixels((rows, 5, 4), "uint8", seed=number), id=list(range(100 * number, 100 * number + rows))
    )
    os.utime(path, (OLD, OLD))


def put_image(path, number, size=(4, 5), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    pixels = random_pixels((*size[::-1], *channels), "uint16" if mode == "I;16" else "uint8", seed=number)
    Image.fromarray(pixels).save(path, **options)
    os.utime(path, (OLD, OLD))
    return pixels


def stored(store):
    """All rows of a store, as one table."""
    opened = LatentStore.open(store)
    return pa.concat_tables(rows.attributes for part in opened.manifest.parts for rows in opened.read_part(part, 1000))


def store_of(root, codec):
    return root / "data" / "growing" / read_header(codec).fingerprint[:12]


def reasons(root):
    folder = root / "data" / "quarantine"
    found = {str(file.relative_to(folder)): file.read_text().splitlines() for file in folder.rglob("*.reason.txt")}
    assert all(len(lines) == 3 and lines[1].startswith("time: 2") for lines in found.values())
    return {name.removesuffix(".reason.txt"): lines[0] for name, lines in found.items()}


def write_table(path, **columns):
    pq.write_table(pa.table(columns), path)


def png():
    file = io.BytesIO()
    Image.fromarray(random_pixels((5, 4), "uint8")).save(file, "png")
    return file.getvalue()


def put_table(path, seed=0, **columns):
    """A Parquet file with these columns, and pixels that no other seed has."""
    rows = len(next(iter(columns.values())))
    pixels = random_pixels((rows, 5, 4), "uint8", seed=seed)
    write_table(path, **columns, pixels=[row.tobytes() for row in pixels])
    os.utime(path, (OLD, OLD))


def types_of(store):
    """Names and types of a store's attributes."""
    return {field.name: str(field.type) for field in LatentStore.open(store).attributes_schema()}


def schemas(store):
    """The schemas that a store's parts have."""
    return {pq.read_schema(part).remove_metadata() for part in store.glob("part-*")}
