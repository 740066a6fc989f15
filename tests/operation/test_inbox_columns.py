"""Columns of a file are fitted to those of the store, or the reason says what to do."""

import shutil

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import random_pixels
from inboxes import put_image, put_table, run, schemas, settle, store_of, stored, types_of, write_table

from ae_pipeline.operation.inbox.batches import statistics_path

# What fits.


def test_columns_may_come_in_any_order_and_be_missing(codec, box, tmp_path):
    put_table(box / "a.parquet", 1, label=[1, 2], id=["x", "y"], kind=["u", "v"])
    put_table(box / "b.parquet", 2, kind=["w"], id=["z"])
    put_table(box / "c.parquet", 3, label=[3, 4])
    done = run(tmp_path, codec)
    assert (done.rows, done.quarantined) == (5, {})
    rows = stored(store_of(tmp_path, codec)).to_pydict()
    assert list(rows) == ["id", "label", "kind", "file_sha256"]
    assert rows["id"] == ["x", "y", "z", "c.parquet#0", "c.parquet#1"]
    assert rows["label"] == [1, 2, None, 3, 4]
    assert rows["kind"] == ["u", "v", "w", None, None]


def test_rows_without_an_id_are_numbered_within_their_file(codec, box, tmp_path):
    (box / "sub").mkdir()
    table = pa.table({"pixels": [row.tobytes() for row in random_pixels((2500, 5, 4), "uint8")]})
    pq.write_table(table, box / "sub" / "a.parquet", row_group_size=700)
    settle(box)
    run(tmp_path, codec)
    assert stored(store_of(tmp_path, codec))["id"].to_pylist() == [f"sub/a.parquet#{row}" for row in range(2500)]


FITS = {
    "narrower integers": (pa.array([1], pa.int64()), pa.array([7, None], pa.uint8())),
    "wider integers": (pa.array([1], pa.int8()), pa.array([127, -128], pa.int64())),
    "integers as floats": (pa.array([0.5]), pa.array([2**53, None])),
    "whole floats": (pa.array([1]), pa.array([3.0, None])),
    "wider floats": (pa.array([0.1], pa.float32()), pa.array([0.5, float("nan")])),
    "narrower floats": (pa.array([0.5]), pa.array([0.1, float("nan")], pa.float32())),
    "large texts": (pa.array(["a"]), pa.array(["b", None], pa.large_string())),
    "dictionaries": (pa.array(["a"]), pa.array(["b", "c"]).cast(pa.dictionary(pa.int8(), pa.large_string()))),
    "a dictionary first": (pa.array(["a"]).dictionary_encode(), pa.array(["b", None])),
    "large bytes": (pa.array([b"a"], pa.large_binary()), pa.array([b"b", None])),
    "large lists": (pa.array([["a"]]), pa.array([["b"], None], pa.large_list(pa.large_string()))),
    "lists of floats": (
        pa.array([[0.5]], pa.list_(pa.float32())),
        pa.array([[0.25, float("nan")]], pa.large_list(pa.float64())),
    ),
    "times": (pa.array([1], pa.timestamp("ns")), pa.array([1, None], pa.timestamp("us"))),
    "only nulls": (pa.array([1]), pa.array([None, None])),
}


@pytest.mark.parametrize(("first", "second"), list(FITS.values()), ids=list(FITS))
def test_types_are_cast_where_no_value_changes(first, second, codec, box, tmp_path):
    put_table(box / "a.parquet", 1, value=first)
    run(tmp_path, codec)
    put_table(box / "b.parquet", 2, value=second)
    assert run(tmp_path, codec).quarantined == {}
    store = store_of(tmp_path, codec)
    assert len(schemas(store)) == 1
    assert "dictionary" not in types_of(store)["value"]
    np.testing.assert_equal(stored(store)["value"].slice(1).to_pylist(), second.to_pylist())


def test_polars_and_pandas_files_share_a_store(codec, box, tmp_path):
    columns = {"id": ["a", "b"], "kind": ["u", "v"], "tags": [["s"], ["t", "u"]]}
    first, second = ([row.tobytes() for row in random_pixels((2, 5, 4), "uint8", seed=seed)] for seed in (1, 2))
    frame = pd.DataFrame({**columns, "pixels": first})
    frame.assign(kind=frame["kind"].astype("category")).to_parquet(box / "a.parquet")
    pl.DataFrame({**columns, "pixels": second}).write_parquet(box / "b.parquet")
    settle(box)
    assert run(tmp_path, codec).quarantined == {}
    assert stored(store_of(tmp_path, codec)).drop_columns("file_sha256").to_pydict() == {
        name: values * 2 for name, values in columns.items()
    }


def test_numbers_become_text_where_the_ids_of_the_store_are_texts(codec, box, tmp_path):
    put_image(box / "a.png", 1)
    put_table(box / "b.parquet", id=pa.array([7, 8], pa.uint64()))
    assert run(tmp_path, codec).quarantined == {}
    assert stored(store_of(tmp_path, codec))["id"].to_pylist() == ["7", "8", "a.png"]


# What does not.

DOES_NOT_FIT = {
    "too large": (pa.array([1], pa.uint8()), pa.array([300]), "Integer value 300 not in range: 0 to 255"),
    "not whole": (pa.array([1]), pa.array([0.5]), "Float value 0.500000 was truncated converting to int64"),
    "not exact": (pa.array([0.5], pa.float32()), pa.array([1.0, 0.1]), "0.1 would become 0.10000000149011612"),
    "not exact integers": (pa.array([0.5]), pa.array([2**53 + 1]), "Integer value 9007199254740993 not in range"),
    "in a list": (
        pa.array([[0.5]], pa.list_(pa.float32())),
        pa.array([[0.5], None, [0.1]]),
        "0.1 would become 0.10000000149011612",
    ),
    "too fine": (pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("ns")), "would lose data"),
}


@pytest.mark.parametrize(("first", "second", "why"), list(DOES_NOT_FIT.values()), ids=list(DOES_NOT_FIT))
def test_values_that_would_change_are_quarantined(first, second, why, codec, box, tmp_path):
    put_table(box / "a.parquet", 1, value=first)
    put_table(box / "b.parquet", 2, value=second)
    done = run(tmp_path, codec)
    reason = done.quarantined["b.parquet"]
    wanted = f"column `value` is of type {second.type}, and not all of its values fit {first.type} as in {done.store}: "
    assert reason.replace("element", "item").startswith(f"b.parquet: {wanted}")
    assert why in reason
    assert "; correct them, drop the column, or begin another store: rename " in reason


@pytest.mark.parametrize("second", [pa.array(["7"]), pa.array([True]), pa.array([[7]]), pa.array([b"7"])], ids=str)
def test_values_of_another_kind_are_quarantined(second, codec, box, tmp_path):
    put_table(box / "a.parquet", 1, value=[7])
    put_table(box / "b.parquet", 2, value=second)
    done = run(tmp_path, codec)
    wanted = f"expected int64 as in {done.store}; convert it, drop the column, or begin another store: rename "
    assert wanted in done.quarantined["b.parquet"]


def test_a_bad_file_decides_no_columns(codec, box, tmp_path):
    write_table(box / "a.parquet", id=[1], other=[1], pixels=[[0.5] * 20])
    settle(box)
    put_table(box / "b.parquet", value=[7])
    done = run(tmp_path, codec)
    assert (list(done.quarantined), done.files) == (["a.parquet"], ["b.parquet"])
    assert list(types_of(store_of(tmp_path, codec))) == ["id", "value", "file_sha256"]


# The ways out that a reason names.


@pytest.fixture
def refused(codec, box, tmp_path):
    """A file with a column that the store has not, in quarantine. Returns where it is."""
    put_table(box / "a.parquet", 1, label=[1, 2])
    put_table(box / "b.parquet", 2, label=[3])
    run(tmp_path, codec)
    put_table(box / "c.parquet", 3, label=[4], score=[0.5])
    reason = run(tmp_path, codec).quarantined["c.parquet"]
    store = store_of(tmp_path, codec)
    assert reason == (
        f"c.parquet has columns that {store} does not have: score, expected id, label; drop them, rename them to one "
        f"of these, or begin another store: rename {store} and {store.name}.batches within their folder "
        '(docs/operations.md, "Another store")'
    )
    return tmp_path / "data" / "quarantine" / "c.parquet"


def test_a_column_that_is_dropped_is_no_longer_in_the_way(refused, codec, box, tmp_path):
    pd.read_parquet(refused).drop(columns="score").to_parquet(box / "c.parquet")
    settle(box)
    assert run(tmp_path, codec).files == ["c.parquet"]
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == [1, 2, 3, 4]


def test_a_store_that_is_renamed_makes_way_for_another_one(refused, codec, box, tmp_path):
    store = store_of(tmp_path, codec)
    before = store.with_name(f"{store.name}-until-june")
    store.rename(before)
    statistics_path(store, 1).parent.rename(statistics_path(before, 1).parent)
    shutil.move(refused, box / "c.parquet")
    settle(box)
    done = run(tmp_path, codec)
    # Nothing of the earlier store is encoded again, although its files are still in the inbox.
    assert (done.snapshot, done.files, done.known, done.quarantined) == (1, ["c.parquet"], 2, {})
    assert done.store == str(store)
    assert stored(store)["score"].to_pylist() == [0.5]
    assert stored(before)["label"].to_pylist() == [1, 2, 3]
    numbers = [statistics_path(folder, 1) for folder in (store, before)]
    assert [list(file.parent.iterdir()) for file in numbers] == [[file] for file in numbers]


def test_a_store_that_is_moved_away_is_made_again_with_what_is_still_in_the_inbox(refused, codec, box, tmp_path):
    store = store_of(tmp_path, codec)
    store.rename(tmp_path / "before")
    shutil.rmtree(statistics_path(store, 1).parent)
    shutil.move(refused, box / "0.parquet")  # first by name: it decides
    settle(box)
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.known) == (1, ["0.parquet", "a.parquet", "b.parquet"], 0)
    assert stored(store).select(["label", "score"]).to_pydict() == {
        "label": [4, 1, 2, 3],
        "score": [0.5, None, None, None],
    }
