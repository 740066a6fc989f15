"""Stores that an inbox began before every row had `file_sha256` go on: files are fitted to the columns they have."""

import numpy as np
import pyarrow as pa
import pytest
from grown import append
from handmade import random_pixels
from inboxes import put_image, put_table, run, settle, store_of, stored, write_table

from ae_pipeline.data.idx import write_idx
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet, ShardWriter
from ae_pipeline.files import sha256_file
from ae_pipeline.store.latent_store import LatentStore

SPEC = SampleSpec((5, 4), "uint8")


def begin(root, codec, name, fields, **columns):
    """A growing store of one file with these columns, as it was written then."""
    schema = pa.schema(fields)
    rows = len(next(iter(columns.values())))
    pixels = random_pixels((rows, 5, 4), "uint8", seed=99)
    (root / "then").mkdir()
    if fields[0].name == "id":
        with ShardWriter(root / "then" / name, schema, SPEC) as writer:
            writer.write(pa.table(columns, schema=schema), pixels)
    else:
        write_table(root / "then" / name, **columns, pixels=[row.tobytes() for row in pixels])
    append(store_of(root, codec), [SampleSet.open(root / "then" / name, SPEC)], codec)


def put_idx(box, labels):
    write_idx(box / "new-images-idx3-ubyte", random_pixels((2, 5, 4), "uint8", seed=3))
    write_idx(box / "new-labels-idx1-ubyte", np.array(labels, np.uint8))
    settle(box)


def test_a_store_whose_rows_are_numbered_goes_on_numbering_them(codec, box, tmp_path):
    begin(tmp_path, codec, "a.parquet", [pa.field("label", pa.int64())], label=[1, 2])
    put_table(box / "b.parquet", 1, label=[3])
    put_table(box / "c.parquet", 2, label=[4.0], id=[77])
    put_idx(box, [5, 6])
    put_image(box / "z.png", 1)
    done = run(tmp_path, codec)
    assert done.files == ["b.parquet", "c.parquet", "new-images-idx3-ubyte"]
    rows = stored(store_of(tmp_path, codec))
    assert rows.to_pydict() == {"id": [0, 1, 2, 77, 4, 5], "label": [1, 2, 3, 4, 5, 6]}
    assert "z.png has no `id`, and its rows cannot be called by its name" in done.quarantined["z.png"]
    assert run(tmp_path, codec).known == 3


def test_a_store_that_began_with_an_idx_file(codec, box, tmp_path):
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("label", pa.uint8())]
    begin(tmp_path, codec, "old-images-idx3-ubyte", fields, id=["old-images-idx3-ubyte#0"], label=[1])
    put_idx(box, [2, 3])
    put_table(box / "b.parquet", 1, label=[4])
    put_table(box / "c.parquet", 2, label=[300])
    put_image(box / "z.png", 1)
    done = run(tmp_path, codec)
    assert stored(store_of(tmp_path, codec)).to_pydict() == {
        "id": ["old-images-idx3-ubyte#0", "b.parquet#0", "new-images-idx3-ubyte#0", "new-images-idx3-ubyte#1"],
        "label": [1, 4, 2, 3],
    }
    assert list(done.quarantined) == ["c.parquet", "z.png"]
    assert done.quarantined["z.png"].startswith(
        f"z.png is an image, and {done.store}, begun by an older version, has no column `file_sha256` to know it by; "
        "give it as Parquet, or begin another store: rename "
    )


def test_a_store_that_began_with_images_still_knows_them(codec, box, tmp_path):
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("file_sha256", pa.binary(32))]
    put_image(box / "a.png", 1)
    digest = bytes.fromhex(sha256_file(box / "a.png"))
    begin(tmp_path, codec, "images.parquet", fields, id=["a.png"], file_sha256=[digest])
    put_image(box / "b.png", 2)
    put_table(box / "c.parquet", 1, id=[7])
    put_idx(box, [1, 2])
    done = run(tmp_path, codec)
    assert (done.files, done.known) == (["b.png", "c.parquet"], 1)
    assert "has columns that" in done.quarantined["new-images-idx3-ubyte"]
    assert stored(store_of(tmp_path, codec))["id"].to_pylist() == ["a.png", "7", "b.png"]


def test_columns_that_are_never_null_stay_so(codec, box, tmp_path):
    fields = [pa.field("id", pa.int64()), pa.field("label", pa.int64(), nullable=False)]
    begin(tmp_path, codec, "a.parquet", fields, id=[1], label=[1])
    put_table(box / "b.parquet", 1, id=[2])
    put_table(box / "c.parquet", 2, id=[3], label=[None])
    put_table(box / "d.parquet", 3, id=[4], label=[4])
    done = run(tmp_path, codec)
    assert done.quarantined == {
        "b.parquet": f"b.parquet has no column `label`, which is never null in {done.store}; add it",
        "c.parquet": f"c.parquet: column `label` has nulls, which {done.store} does not allow; fill them",
    }
    schema = LatentStore.open(store_of(tmp_path, codec)).attributes_schema()
    assert [field.nullable for field in schema] == [True, False]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_texts_of_a_store_stay_as_they_were_written_first(kind, codec, box, tmp_path):
    fields = [pa.field("id", pa.int64()), pa.field("kind", kind)]
    begin(tmp_path, codec, "a.parquet", fields, id=[1], kind=pa.array(["x"]).cast(kind))
    put_table(box / "b.parquet", 1, id=[2, 3], kind=["y", None])
    assert run(tmp_path, codec).quarantined == {}
    rows = stored(store_of(tmp_path, codec))
    assert rows["kind"].type == kind
    assert rows["kind"].to_pylist() == ["x", "y", None]
