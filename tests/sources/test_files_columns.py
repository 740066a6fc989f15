"""The source `files` on columns of a table that are taken together: each scaled on its own, the others kept."""

import numpy as np
import pyarrow as pa
import pytest
from own_columns import NAMES, ROWS, save, table
from own_files import fetch, rows_of

from ae_pipeline.errors import DataError
from ae_pipeline.kinds import open_kind
from ae_pipeline.params import SourceParams

FOUND = table()


def take(tmp_path, **options):
    return fetch(tmp_path, **{"kind": "vector", "column": NAMES, **options})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.parquet"


def changed(name, values, kind=None):
    """The table with another column in the place of one."""
    place = FOUND.column_names.index(name)
    return FOUND.set_column(place, name, pa.array(values, kind or FOUND.schema.field(name).type))


def test_each_rows_numbers_are_its_vector_in_the_order_given(path, tmp_path, capsys):
    splits = take(tmp_path, path=save(path, FOUND, row_group_size=13), label="class")
    assert "scaled columns rounded to float32, root mean square error" in capsys.readouterr().out
    found = rows_of(splits)
    assert len(found) == ROWS
    kind, state = open_kind(splits["train"].kind, "here")
    rows = np.stack([row for _, row in found])
    assert rows.dtype == np.float32
    # All columns lie alike, whatever their units.
    assert (np.abs(np.median(rows, axis=0) - 0.5) < 0.55).all()
    assert np.abs(rows).max() < 5
    back = kind.from_rows(rows, pa.table({}), state)
    for name, column in zip(NAMES, back.flatten(), strict=True):
        wanted = FOUND.column(name).combine_chunks()
        assert column.type == wanted.type
        if pa.types.is_floating(wanted.type):
            width = state.ranges[NAMES.index(name)].width
            np.testing.assert_allclose(column.to_numpy(), wanted.to_numpy(), rtol=1e-6, atol=1e-6 * width)
        else:
            assert column.to_pylist() == wanted.to_pylist()
    for line, _ in found:
        number = line["id"]
        assert line == {
            "id": number, "source_file": "mine.parquet", "word": f"w{number}", "list": [1, 2], "label": number,
        }  # fmt: skip


def test_a_columns_scaling_is_that_of_the_records_that_are_trained_on(path, tmp_path):
    splits = take(tmp_path, path=save(path, FOUND), column=["real", "class"])
    held_out = splits["test"].attributes["word"].to_pylist()
    values = np.array([1e30 if word in held_out else 1.0 for word in FOUND["word"].to_pylist()])
    splits = take(tmp_path, path=save(path, changed("real", values)), column=["real", "class"])
    _, state = open_kind(splits["train"].kind, "here")
    assert (state.ranges[0].low, state.ranges[0].high) == (1.0, 1.0)
    assert (splits["train"].pixels[:, 0] == 0).all()
    assert (splits["test"].pixels[:, 0] > 1).all()


def test_the_same_table_gives_the_same_bytes_and_one_column_is_enough(path, tmp_path):
    save(path, FOUND)
    made = [
        {file.name: file.read_bytes() for file in (tmp_path / "raw").iterdir()}
        for _ in range(2)
        if take(tmp_path, path=path)
    ]
    assert made[0] == made[1]
    splits = take(tmp_path, path=path, column=["big"])
    assert splits["train"].pixels.shape[1:] == (1,)
    assert set(splits["train"].attributes) == {"id", "source_file", *FOUND.column_names} - {"big"}


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["big", "lost"], r"mine.parquet has no column `lost`, found the columns word .*; name some of `big`, `tiny`"),
        (
            ["big", "tiny", "big"],
            r"has one column `big`, and source.files.column names it 2 times; name each column on",
        ),
        (
            ["big", "word"],
            r"has `word` of type string, which cannot be one of several .*; make numbers of it, or leave it out",
        ),
        (["big", "list"], r"has `list` of type list<.*>, which cannot be one of several"),
        (
            ["big", "id"],
            r"has a column `id` among those of its records, by which the rows are called; leave it out, or",
        ),
    ],
)
def test_columns_that_cannot_be_taken_are_refused_by_name(names, why, path, tmp_path):
    save(path, FOUND.append_column("id", pa.array(range(ROWS))))
    with pytest.raises(DataError, match=why):
        take(tmp_path, path=path, column=names)


@pytest.mark.parametrize(("name", "kind"), [("narrow", pa.float16()), ("tiny", pa.int8()), ("yes", pa.bool_())])
def test_a_row_without_a_value_is_refused_or_left_out(name, kind, path, tmp_path):
    values = FOUND.column(name).to_pylist()
    values[41] = None
    save(path, changed(name, values, kind), row_group_size=7)
    why = (
        rf"1 record.*mine.parquet: row 41 \(the first one is 0\) has no value in the column `{name}`; fill it, or remo"
    )
    with pytest.raises(DataError, match=why):
        take(tmp_path, path=path)
    found = rows_of(take(tmp_path, path=path, skip_unreadable=True))
    assert [line["id"] for line, _ in found] == [*range(41), *range(42, ROWS)]


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "an infinite value"), (-np.inf, "an infinite")])
def test_nan_and_infinity_are_refused_by_column_and_row(value, what, path, tmp_path):
    values = FOUND.column("real").to_numpy().copy()
    values[41] = value
    save(path, changed("real", values), row_group_size=7)
    with pytest.raises(
        DataError, match=rf"mine.parquet: row 41 \(the first one is 0\) has {what}.* in the column `real`"
    ):
        take(tmp_path, path=path, skip_unreadable=True)


def test_a_column_of_another_type_in_another_file_is_refused_by_name(tmp_path):
    (tmp_path / "many").mkdir()
    save(tmp_path / "many/a.parquet", FOUND)
    save(tmp_path / "many/b.parquet", changed("tiny", range(ROWS), pa.int16()))
    with pytest.raises(
        DataError, match=r"b.parquet has other columns than .*a.parquet: `tiny` is int16, and int8 in the"
    ):
        take(tmp_path, path=tmp_path / "many")


def test_names_that_stand_for_something_else(path, tmp_path):
    found = FOUND.append_column("label", pa.array(range(ROWS))).append_column("error", pa.array(range(ROWS)))
    (tmp_path / "a/b").mkdir(parents=True)
    save(tmp_path / "a/b/mine.parquet", found.drop_columns(["error"]))
    with pytest.raises(DataError, match="a column `label` among those of its records, and another one of that name"):
        take(tmp_path, path=tmp_path / "a", column=["big", "label"], label="folder")
    (tmp_path / "c/big=7").mkdir(parents=True)
    save(tmp_path / "c/big=7/b.parquet", FOUND)
    with pytest.raises(DataError, match=r"big=7/b.parquet has a column `big` among those of its records, and another"):
        take(tmp_path, path=tmp_path / "c", column=["big", "tiny"])
    save(path, found)
    with pytest.raises(DataError, match="has a column `error` among those of its records, which a latent store keeps"):
        take(tmp_path, path=path, column=["big", "error"])
    save(path, FOUND)
    with pytest.raises(DataError, match="no column `big` for the label"):
        take(tmp_path, path=path, column=["big", "tiny"], label="big")


@pytest.mark.parametrize("column", [["big", "tiny"], "list", None])
def test_columns_of_one_name_are_refused(column, path, tmp_path):
    save(path, FOUND.append_column("tiny", FOUND["tiny"]).append_column("word", FOUND["tiny"]))
    with pytest.raises(
        DataError, match=r"mine.parquet has several columns named `tiny`, `word`; rename or drop all but"
    ):
        take(tmp_path, path=path, column=column)


def test_what_source_files_column_can_be(path, tmp_path):
    save(path, FOUND.select(["word", "big", "tiny"]))
    with pytest.raises(
        DataError, match=r"no column that can be records.*columns of numbers make a vector together, as"
    ):
        take(tmp_path, path=path, column=None)
    with pytest.raises(
        DataError, match=r"`big` of type int64, .*; name it in a list, source.files.column: \[big\], alone"
    ):
        take(tmp_path, path=path, column="big")
    with pytest.raises(DataError, match=r"`big` of type int64, which cannot be one .*set another source.files.kind"):
        take(tmp_path, path=path, column=["big"], kind="image")
    save(path, FOUND)
    with pytest.raises(
        DataError, match=r"has records in `list`, found source.files.column: \[list\]; write it without"
    ):
        take(tmp_path, path=path, column=["list"])
    np.save(tmp_path / "a.npy", np.ones((9, 3), np.float32))
    with pytest.raises(DataError, match=r"a.npy is no table, found source.files.column: \[big, tiny\]; name Parquet"):
        take(tmp_path, path=tmp_path / "a.npy", column=["big", "tiny"])
    for wrong in ([], [3], "", 3, [""], {"a": 1}):
        with pytest.raises(ValueError, match="expected a name, a list of names, or null"):
            SourceParams.model_validate({"name": "files", "files": {"column": wrong}})


def test_more_columns_than_a_codec_keeps(path, tmp_path):
    many = pa.table({f"c{number}": [1.0, 2.0] for number in range(1025)})
    save(path, many)
    with pytest.raises(DataError, match="1,025 columns are named, of which a codec keeps at most 1,024; name fewer"):
        take(tmp_path, path=path, column=many.column_names)
    long = pa.table({f"{number} {'x' * 300}": [1.0, 2.0] for number in range(600)})
    save(path, long)
    with pytest.raises(
        DataError, match=r"what the codec would keep .* has .* bytes, at most 262,144 are supported; give"
    ):
        take(tmp_path, path=path, column=long.column_names)
