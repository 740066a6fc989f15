"""Columns that are taken together: a table in, the same columns, types and order out, from the store alone."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, flip_bit, random_codec, write_rows
from own_columns import NAMES, ROWS, columns_codec, save, table

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.kinds import open_kind
from ae_pipeline.store.latent_store import LatentStore

FOUND = table()


def said(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def data(tmp_path):
    columns_codec(tmp_path / "codec", FOUND, label="class")
    return save(tmp_path / "in.parquet", FOUND, row_group_size=17)


def test_a_table_comes_back_with_its_columns_types_and_order(ae, data, tmp_path):
    store = tmp_path / "store"
    code, _, err = ae("encode", data, "--codec", tmp_path / "codec", "--store", store)
    assert code == 0
    assert "values of scaled columns were rounded to float32, root mean square error" in err
    shutil.rmtree(tmp_path / "codec")
    data.rename(tmp_path / "away.parquet")
    assert ae("decode", store, "--out", tmp_path / "out")[0] == 0
    found = pq.read_table(tmp_path / "out/part-00000.parquet")
    assert found.column_names == ["id", "source_file", *FOUND.column_names]
    mine = found.select(FOUND.column_names)
    assert [field.type for field in mine.schema] == [field.type for field in pq.read_schema(tmp_path / "away.parquet")]
    beside = ["word", "list", "class"]
    assert mine.select(beside).equals(pq.read_table(tmp_path / "away.parquet", columns=beside))
    # The codec is not trained: what comes back is what its rows stand for, no more.
    assert ae("decode", store, "--out", tmp_path / "plain", "--format", "rows")[0] == 0
    rows = pq.read_table(tmp_path / "plain")["pixels"].to_pylist()
    rows = np.frombuffer(b"".join(rows), np.float32).reshape(ROWS, len(NAMES))
    kind, state = open_kind(LatentStore.open(store).codec_header().kind, "here")
    for name, column in zip(NAMES, kind.from_rows(rows, pa.table({}), state).flatten(), strict=True):
        assert mine[name].combine_chunks().equals(column)
    # Chosen rows in one file are the same ones.
    ae("decode", store, "--out", tmp_path / "x.parquet", "--where", "label = 17 or label = 3", "--columns", "label")
    chosen = pq.read_table(tmp_path / "x.parquet")
    assert chosen.column_names == ["id", *(name for name in FOUND.column_names if name not in ("word", "list"))]
    assert chosen.equals(found.select(chosen.column_names).take([3, 17]))


def test_another_value_where_all_were_one_in_training_is_said_with_the_number_of_rows(ae, data, tmp_path):
    _, _, err = ae("encode", data, "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert "never changed" not in err
    place, same = FOUND.column_names.index("same"), FOUND["same"].to_pylist()
    later = FOUND.set_column(place, FOUND.schema.field("same"), pa.array([same[0] + 2] * 3 + same[3:], pa.uint16()))
    code, _, err = ae("append", tmp_path / "store", save(tmp_path / "later.parquet", later, row_group_size=2))
    assert code == 0
    assert "columns that never changed in training have other values, which are mostly lost: `same` (3 rows)" in err


def test_all_that_takes_own_files_takes_such_tables(ae, data, tmp_path):
    store, more = tmp_path / "store", save(tmp_path / "more.parquet", table(33))
    ae("encode", data, "--codec", tmp_path / "codec", "--store", store, "--row-group-rows", 7)
    metrics = said(ae("evaluate", data, "--store", store, "--json"))
    assert metrics["mse"] > 0
    assert said(ae("evaluate", data, "--codec", tmp_path / "codec", "--json"))["mse"] == pytest.approx(metrics["mse"])
    added = said(ae("append", store, more, "--json"))
    assert (added["added_rows"], added["rows"]) == (33, ROWS + 33)
    assert said(ae("append", store, more, "--json"))["added_rows"] == 0
    (tmp_path / "both").mkdir()
    for source in (data, more):
        shutil.copy(source, tmp_path / "both" / source.name)
    assert ae("verify", store, "--deep", "--source", tmp_path / "both")[0] == 0
    before = bytes_of(store)
    flip_bit(sorted(store.glob("part-*"))[1], 400)
    assert ae("verify", store)[0] == 1
    assert ae("repair", store, "--source", more)[0] == 0
    assert bytes_of(store) == before
    assert ae("verify", store, "--deep", "--source", save(data, FOUND.slice(1)))[0] == 1


def with_column(name, values):
    """The table with other values in a column."""
    return FOUND.set_column(FOUND.column_names.index(name), name, [values])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (FOUND.drop_columns(["real"]), r"has no column `real`, found the columns .*; give Parquet files with all"),
        (with_column("tiny", pa.array([1] * ROWS, pa.int32())), r"column `tiny` of type int32, expected int8, as"),
        (with_column("big", pa.array([None] * ROWS, pa.int64())), r"row 0 .* has no value in the column `big`; fill"),
        (with_column("real", pa.array([np.nan] * ROWS)), r"row 0 .* has NaN in the column `real`, expected a number"),
        (FOUND.append_column("source_file", FOUND["word"]), r"has a column `source_file`, the name of each"),
    ],
)
def test_tables_that_do_not_fit_the_codec_are_refused_by_column(changed, why, ae, data, tmp_path):
    save(data, changed)
    code, out, err = ae("encode", data, "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert re.search(why, err), err
    assert not (tmp_path / "store").exists()


def test_columns_stand_anywhere_and_others_may_differ(ae, data, tmp_path):
    others = FOUND.select(["yes", *reversed(NAMES[:5]), "same"]).append_column("new", FOUND["word"])
    code, _, err = ae("encode", save(data, others), "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    assert code == 0, err
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet")[0] == 0
    # Columns of the training are in its order; those that are new stand before them.
    names = [name for name in FOUND.column_names if name in NAMES]
    assert pq.read_schema(tmp_path / "x.parquet").names == ["id", "source_file", "new", *names]


def test_files_of_other_sorts_and_rows_of_a_table_of_lists_are_no_such_columns(ae, data, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((9, len(NAMES)), np.float32))
    save(tmp_path / "lists.parquet", pa.table({"v": [[1.0] * len(NAMES)] * 9}))
    for name, why in (
        ("a.npy", "is no Parquet file; the codec reads the columns `tiny`"),
        ("lists.parquet", "no column"),
    ):
        code, _, err = ae("encode", tmp_path / name, "--codec", tmp_path / "codec", "--store", tmp_path / "store")
        assert (code, why in err) == (1, True), err


def test_rows_without_a_value_are_left_out_if_asked_and_said(ae, data, tmp_path):
    values = FOUND["real"].to_pylist()
    values[5] = None
    save(data, with_column("real", pa.array(values)))
    command = ("encode", data, "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    code, _, err = ae(*command)
    assert (code, "row 5 (the first one is 0) has no value in the column `real`" in err) == (1, True)
    assert "--skip-unreadable" in err
    code, out, err = ae(*command, "--skip-unreadable", "--json")
    assert json.loads(out)["rows"] == ROWS - 1
    assert "1 record(s) that cannot be read" in err


REAL = {"name": "a", "type": "float64", "nullable": True}
BYTE = {"name": "b", "type": "int8", "nullable": True}


@pytest.mark.parametrize(
    ("fields", "ranges"),
    [
        ([REAL, BYTE], None),
        ([REAL, BYTE], []),
        ([REAL, BYTE], [{"low": 0.0, "high": 1.0}]),
        ([REAL, BYTE], [{"low": 0.0, "high": 1.0}] * 2),
        ([REAL, BYTE], [{"low": 0.0, "high": 1.0}, {"low": 0, "high": 300}]),
        ([REAL, BYTE], [{"low": 0.0, "high": 1.0}, {"low": 1, "high": 0}]),
        ([REAL, REAL], [{"low": 0.0, "high": 1.0}] * 2),
        ([REAL, {**BYTE, "type": "string"}], [{"low": 0.0, "high": 1.0}, {"low": 0, "high": 1}]),
        (None, [{"low": 0.0, "high": 1.0}]),
    ],
)
def test_a_codec_that_keeps_what_no_table_had_is_one_line(fields, ranges, ae, data, tmp_path):
    form = {"sort": "table", "type": {"struct": fields} if fields else "float64"}
    kind = KindEntry(name="vector", state={"form": form, "ranges": ranges})
    random_codec(tmp_path / "wrong", (2,), "float32", latent_size=1, kind=kind)
    code, _, err = ae("encode", data, "--codec", tmp_path / "wrong", "--store", tmp_path / "store")
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "has a state that the kind 'vector' cannot have made" in err


def test_a_codec_whose_rows_have_other_values_than_its_columns_is_one_line(ae, tmp_path):
    form = {"sort": "table", "type": {"struct": [REAL, BYTE]}, "columns": ["a", "b"]}
    kind = KindEntry(name="vector", state={"form": form, "ranges": [{"low": 0.0, "high": 1.0}, {"low": 0, "high": 9}]})
    random_codec(tmp_path / "wrong", (3,), "float32", latent_size=1, kind=kind)
    write_rows(tmp_path / "rows.parquet", np.ones((9, 3), np.float32))
    ae("encode", tmp_path / "rows.parquet", "--codec", tmp_path / "wrong", "--store", tmp_path / "store")
    code, _, err = ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet")
    assert (code, "2 columns, and rows of shape [3]" in err) == (1, True), err
