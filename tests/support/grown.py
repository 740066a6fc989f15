"""Small stores that have grown, and damage to them."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from handmade import random_codec, random_pixels, write_rows

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.files import sha256_json, write_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.manifest import MANIFEST_NAME
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import Appended, append_samples

ROWS = 40


def batch(folder: Path, number: int, rows: int = ROWS, **columns) -> SampleSet:
    """Rows that no other number has, with ids and labels unless told otherwise (`id=None`: none)."""
    columns = {"id": [100 * number + row for row in range(rows)], "label": [number] * rows, **columns}
    columns = {name: values for name, values in columns.items() if values is not None}
    return write_rows(folder / f"batch-{number}.parquet", random_pixels((rows, 5, 4), "uint8", number), **columns)


few = partial(batch, rows=30, label=None)
"""A smaller `batch`, without labels."""


def append(
    store: Path, sets: list[SampleSet], codec: Path, *, layout="list", row_group_rows=10_000, **options
) -> Appended:
    """One append, on the CPU."""
    params = EncodeParams(layout=layout, row_group_rows=row_group_rows, device="cpu")
    return append_samples(store, sets, codec, params, name="growing", git={}, **options)


def grow(folder: Path, numbers=(1, 2, 3), **columns) -> LatentStore:
    """A store at `folder / "store"` of one snapshot for each number, its codec and its data beside it."""
    if not (folder / "codec").exists():
        random_codec(folder / "codec")
    for number in numbers:
        samples = batch(folder / "data", number, **columns)
        store = append(folder / "store", [samples], folder / "codec", row_group_rows=16).store
    return store


def copied(store: LatentStore, target: Path) -> Path:
    """A copy of a store that a test may damage."""
    return Path(shutil.copytree(store.path, target))


def hidden(folder: Path) -> list[str]:
    """What writers leave when they are cut off."""
    return sorted(item.name for item in folder.rglob("*") if item.name.startswith("."))


def read_ids(store: LatentStore, **options) -> list:
    """Ids of all rows in order."""
    return [name for table in store.scan(columns=["id"], **options) for name in table["id"].to_pylist()]


def rewrite_manifest(store: Path, change, name: str = MANIFEST_NAME) -> None:
    """Let `change` alter the manifest's values, and give it a digest that fits: written wrong, not damaged."""
    values = json.loads((store / name).read_bytes())
    del values["digest"]
    change(values)
    write_json(store / name, {**values, "digest": sha256_json(values)})


def spoil(path: Path, random: np.random.Generator) -> str:
    """Damage a file: mostly change one byte, else cut it short or remove it. Returns which."""
    data = bytearray(path.read_bytes())
    kind = str(random.choice(["flip", "cut", "remove"], p=[0.9, 0.05, 0.05]))
    place = int(random.integers(len(data)))
    if kind == "remove":
        path.unlink()
        return kind
    if kind == "flip":
        data[place] ^= int(random.integers(1, 256))
    else:
        del data[place:]
    path.write_bytes(data)
    return kind
