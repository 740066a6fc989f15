"""Columns of any name in a store: `meta.src` beside a column `meta` with a field `src`, quotes, case, nesting.

A dotted path is no name, wherever one is looked up: in statistics, in the choice of what is read, in sizes.
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from handmade import encode, random_codec, random_pixels, write_rows

from ae_pipeline.data.parquet import limits as parquet_limits
from ae_pipeline.data.parquet.columns import NamedColumnsFile, flat_columns, leaf_columns
from ae_pipeline.data.parquet.limits import chunk_range, chunk_size, read_footer
from ae_pipeline.errors import ConfigError
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.parts import column_bytes
from ae_pipeline.store.writing import checks

ROWS = 40
NUMBERS = np.arange(ROWS)
TEXTS = [f"t{number:02d}" for number in NUMBERS]
# Each name is also the path of a leaf of another column, or differs from another one in something small.
COLUMNS = {
    "id": pa.array(NUMBERS + 100),
    "id.high": pa.array(-NUMBERS),
    "meta": pa.array([{"src": "x", "to": {"src": number}} for number in range(ROWS)]),
    "meta.src": pa.array(TEXTS),
    "meta.to": pa.array(NUMBERS * 2),
    "meta.to.src": pa.array(NUMBERS[::-1].copy()),
    "tags": pa.array([["x", "y"]] * ROWS),
    "tags.list.element": pa.array(TEXTS),
    "tags.list": pa.array(NUMBERS),
    "map": pa.array([[("k", -5)]] * ROWS, pa.map_(pa.string(), pa.int64())),
    "map.key_value.key": pa.array(TEXTS),
    "map.key_value.value": pa.array(NUMBERS),
    "latent.list.element": pa.array(NUMBERS + 7),
    "error.": pa.array(NUMBERS),
    ".": pa.array(NUMBERS),
    'quo"ted': pa.array(TEXTS),
    "back`tick": pa.array(NUMBERS),
    "it's": pa.array(TEXTS),
    "two  words ": pa.array(NUMBERS),
    "Meta.Src": pa.array(NUMBERS),
    "META": pa.array(TEXTS),
    "\0": pa.array(NUMBERS),
    "d" * 9 + "." * 150: pa.array(NUMBERS),
    "twice": pa.array([{"a": [{"b": number}], "a.list": number} for number in range(ROWS)]),
}
FLAT = {name: values for name, values in COLUMNS.items() if not pa.types.is_nested(values.type)}


@pytest.fixture(scope="module", params=["list", "coded"])
def store(request, tmp_path_factory):
    """Row groups of four rows; statistics of every flat column tell them apart.

    A new store refuses names that differ only by case; this one is of before that.
    """
    folder = tmp_path_factory.mktemp("names")
    random_codec(folder / "codec")
    samples = write_rows(folder / "rows.parquet", random_pixels((ROWS, 5, 4), "uint8"), **COLUMNS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "refuse_alike", lambda *arguments: None)
        return encode(samples, folder / "codec", folder / "store", row_group_rows=4, layout=request.param)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def ids_of(tables):
    return [value for table in tables for value in table["id"].to_pylist()]


@pytest.mark.parametrize("name", FLAT)
def test_a_column_of_any_name_is_found_by_its_own_values(name, store):
    for row in (0, 21, ROWS - 1):
        value = FLAT[name][row].as_py()
        literal = f"'{value}'" if isinstance(value, str) else str(value)
        wanted = [COLUMNS["id"][row].as_py()]
        assert ids_of(store.scan(["id"], filter=f"{quoted(name)} = {literal}")) == wanted
        assert ids_of(store.scan(["id"], filter=pc.field(name) == value)) == wanted
        assert ids_of(store.scan(["id"], filter=f"NOT {quoted(name)} <> {literal}")) == wanted


def test_a_name_with_dots_and_without_quotes_is_said_to_need_them(store):
    with pytest.raises(ConfigError, match=r'write the column as "meta\.to\.src", in double quotes'):
        next(store.scan(filter="meta.to.src = 3"))


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_name_is_read_alone_and_as_it_was(name, store):
    (found,) = {tuple(table.column_names) for table in store.scan([name])}
    assert found == (name,)
    assert pa.concat_tables(store.scan([name]))[name].to_pylist() == COLUMNS[name].to_pylist()
    assert (
        ids_of(store.scan(list({"id": 0, name: 0}), filter=f"{quoted(name)} IS NOT NULL")) == COLUMNS["id"].to_pylist()
    )


def test_the_whole_store_is_as_it_was_and_whole(store):
    table = pa.concat_tables(store.scan())
    assert table.select(list(COLUMNS)).to_pylist() == pa.table(COLUMNS).to_pylist()
    assert verify_store(store.path).whole


def test_nothing_of_other_columns_is_read_with_one(store):
    (part,) = store.manifest.parts
    with store.open_part(part) as parquet:
        assert parquet.read_row_group(0, columns=["meta.src"]).column_names == ["meta.src"]
        assert parquet.read_row_group(0, columns=["meta"]).column_names == ["meta"]
        assert all(batch.schema.names == ["id"] for batch in parquet.iter_batches(100, columns=["id"]))
        with pytest.raises(KeyError):
            parquet.read_row_group(0, columns=["meta.to.sr"])
    assert [name for ids in store.read_column(part, "id") for name in ids.to_pylist()] == COLUMNS["id"].to_pylist()


def test_bytes_of_latents_are_those_of_the_column_alone(store):
    (part,) = store.manifest.parts
    metadata = pq.read_metadata(store.path / part.name)
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    # The last two leaf columns are latents and errors.
    latents = sum(group.column(group.num_columns - 2).total_compressed_size for group in groups)
    assert column_bytes(metadata, "latent") == latents == store.latent_bytes()


def test_an_expression_that_names_floats_by_number_or_in_a_struct_finds_rows_that_are_none(tmp_path):
    random_codec(tmp_path / "codec")
    floats = [float("nan"), 1.0, 1.0, 1.0]
    columns = {"id": [0, 1, 2, 3], "x": floats, "s": [{"x": value} for value in floats], "s.x": [1.0] * 4}
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((4, 5, 4), "uint8"), **columns)
    store = encode(samples, tmp_path / "codec", tmp_path / "store", row_group_rows=4)
    for field in (pc.field("x"), pc.field(1), pc.field("s", "x")):
        assert ids_of(store.scan(["id"], filter=field != 1.0)) == [0]


def test_places_of_columns_are_those_that_arrow_gives_them(store):
    file = pq.ParquetFile(store.path / store.manifest.parts[0].name)
    leaves = leaf_columns(file.schema_arrow)
    assert [place for places in leaves.values() for place in places] == list(range(file.metadata.num_columns))
    for name, places in leaves.items():
        read = file.reader.read_row_group(0, column_indices=list(places))
        assert read.column_names == [name]
        assert read.column(0).type == file.schema_arrow.field(name).type
    flat = flat_columns(file.metadata)
    assert flat == {name: places[0] for name, places in leaves.items() if name in flat}
    assert set(FLAT) <= set(flat)
    assert not set(flat) & (set(COLUMNS) - set(FLAT))


def test_every_method_of_pyarrow_that_takes_columns_takes_names(tmp_path):
    """`NamedColumnsFile` overrides what these ask."""
    table = pa.table({"a": [{"b": 1}], "a.b": ["x"], "a.b.c": [2]})
    pq.write_table(table, tmp_path / "t.parquet")
    with NamedColumnsFile(tmp_path / "t.parquet") as file:
        for name in table.column_names:
            assert file.read([name]).equals(table.select([name]))
            assert file.read_row_group(0, [name]).equals(table.select([name]))
            assert file.read_row_groups([0], [name]).equals(table.select([name]))
            assert pa.Table.from_batches(file.iter_batches(columns=[name])).equals(table.select([name]))


def test_a_name_of_many_dots_is_not_nesting():
    deep = pa.array([1])
    for _ in range(102):
        deep = pa.StructArray.from_arrays([deep], ["a"])
    for table, nested in ((pa.table({"." * 300: [1]}), False), (pa.table({"a": deep, "." * 300: [1]}), True)):
        file = io.BytesIO()
        pq.write_table(table, file, store_schema=False)
        if not nested:
            assert read_footer(file).num_rows == 1
            continue
        with pytest.raises(ValueError, match="nested deeper than 100 levels"):
            read_footer(file)


@pytest.mark.parametrize("nested", [lambda text: {"src": text}, lambda text: {"src": [text]}], ids=["flat", "list"])
def test_texts_are_counted_in_the_column_that_they_are_in(nested, monkeypatch):
    """Two columns of one path, one of which repeats a long text: what it would take decides, whichever it is."""
    monkeypatch.setattr(parquet_limits, "MOST_ROW_GROUP_BYTES", 100_000)
    long, short = "x" * 10_000, "y"
    for texts in (
        ([long] * ROWS, [short] * ROWS),
        ([short] * ROWS, [long] * ROWS),
        ([long] + [short] * 39, [long] + [short] * 39),
    ):
        columns = {"meta": pa.array([nested(text) for text in texts[0]]), "meta.src": pa.array(texts[1])}
        if isinstance(columns["meta"][0].as_py()["src"], list):
            columns["meta.src.list.element"] = columns.pop("meta.src")
        for table in (pa.table(columns), pa.table(columns).select(list(reversed(columns)))):
            file = io.BytesIO()
            pq.write_table(table, file, compression="zstd")
            metadata = read_footer(file)
            for column in range(2):
                start, end = chunk_range(metadata, 0, column)
                data = file.getvalue()[start:end]
                is_nested = table.column_names[column] == "meta"
                mine = texts[0] if is_nested else texts[1]
                first = column == 0 and isinstance(nested(""), dict) and is_nested
                if mine.count(long) == ROWS:
                    with pytest.raises(ValueError, match="would take"):
                        chunk_size(data, metadata, 0, column)
                elif mine.count(long) == 1 and first and metadata.schema.column(0).max_repetition_level:
                    # What cannot be told apart by path, nor be read a few rows at a time, is taken for its worst.
                    with pytest.raises(ValueError, match="would take"):
                        chunk_size(data, metadata, 0, column)
                else:
                    assert chunk_size(data, metadata, 0, column) < 100_000
