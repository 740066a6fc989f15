"""An inbox takes the user's own files where its codec has a kind: vectors in their column, and arrays."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from handmade import random_codec
from inboxes import run, settle, store_of, stored
from own_columns import NAMES, columns_codec, save
from own_columns import table as table_of_numbers
from PIL import Image

from ae_pipeline.data.arrow_types import type_to_json
from ae_pipeline.kinds.image import ImageState
from ae_pipeline.kinds.image_files import size_of
from ae_pipeline.kinds.state import Form, KindState, entry_of

VECTORS = np.random.default_rng(3).normal(size=(40, 6))


def test_vectors_in_their_column_and_arrays(ae, box, tmp_path):
    form = Form(sort="table", column="v", type=type_to_json(pa.list_(pa.float64())), columns=("word", "v"))
    codec = tmp_path / "own-codec"
    random_codec(codec, (6,), "float32", kind=entry_of("vector", KindState(form=form)))
    table = pa.table({"word": [f"w{n}" for n in range(40)], "v": list(VECTORS)})
    pq.write_table(table, box / "a.parquet")
    np.save(box / "b.npy", VECTORS[:7] + 1)
    pq.write_table(table.drop_columns(["v"]), box / "c.parquet")
    pq.write_table(table.set_column(1, "v", [pa.array([[np.nan] * 6] * 40)]), box / "d.parquet")
    (box / "e.txt").write_text("no vectors")
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.rows) == (["a.parquet", "b.npy"], 47)
    assert set(done.quarantined) == {"c.parquet", "d.parquet", "e.txt"}
    assert "has no column `v`" in done.quarantined["c.parquet"]
    assert "row 0 (the first one is 0) has values that are NaN" in done.quarantined["d.parquet"]
    store = store_of(tmp_path, codec)
    rows = stored(store)
    assert rows.column_names == ["id", "word", "file_sha256"]
    names = [f"a.parquet#{n}" for n in range(40)] + [f"b.npy#{n}" for n in range(7)]
    assert rows["id"].to_pylist() == names
    assert run(tmp_path, codec).files == []
    assert ae("verify", store)[0] == 0
    assert ae("decode", store, "--out", tmp_path / "x.parquet")[0] == 0
    found = pq.read_table(tmp_path / "x.parquet")
    assert found.column_names == ["id", "file_sha256", "word", "v"]
    assert found.schema.field("v").type == pa.list_(pa.float64())


def test_columns_that_are_taken_together(ae, box, tmp_path):
    found, codec = table_of_numbers(), tmp_path / "own-codec"
    columns_codec(codec, found)
    save(box / "a.parquet", found)
    save(box / "b.parquet", found.slice(7, 9))
    save(box / "c.parquet", found.drop_columns(["tiny"]))
    save(box / "d.parquet", found.set_column(7, "yes", [pa.array([None] * 60, pa.bool_())]))
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.rows) == (["a.parquet", "b.parquet"], 69)
    assert "has no column `tiny`" in done.quarantined["c.parquet"]
    assert "d.parquet: row 0 (the first one is 0) has no value in the column `yes`" in done.quarantined["d.parquet"]
    store = store_of(tmp_path, codec)
    assert not set(stored(store).column_names) & set(NAMES)
    assert run(tmp_path, codec).files == []
    assert ae("decode", store, "--out", tmp_path / "x.parquet")[0] == 0
    back = pq.read_table(tmp_path / "x.parquet")
    assert back.column_names == ["id", "file_sha256", *found.column_names]
    assert back.select(NAMES).schema.equals(found.select(NAMES).schema)


def test_pictures_of_many_sizes_are_taken_as_tiles_and_come_back(ae, box, tmp_path):
    codec = tmp_path / "own-codec"
    random_codec(codec, (8, 8), kind=entry_of("image", ImageState(form=Form(sort="files"), tile=8)))
    sizes = {"a.png": (8, 8), "b/c.png": (20, 9), "d.png": (1, 1)}
    for name, size in sizes.items():
        (box / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros(size, np.uint8)).save(box / name)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(box / "colour.png")
    (box / "cut.png").write_bytes(b"no picture")
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.rows) == (["a.png", "b/c.png", "d.png"], 1 + 6 + 1)
    assert set(done.quarantined) == {"colour.png", "cut.png"}
    assert "is uint8 8x8x3, expected uint8 8x8" in done.quarantined["colour.png"]
    store = store_of(tmp_path, codec)
    assert ae("verify", store)[0] == 0
    assert ae("decode", store, "--out", tmp_path / "out")[0] == 0
    assert {name: size_of(tmp_path / "out" / name) for name in sizes} == sizes
