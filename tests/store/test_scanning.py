"""Chosen rows of a store: the right ones, and nothing read that is not needed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from handmade import encode, flip_bit, random_codec, random_pixels, write_rows

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DamagedPartError
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_rows
from ae_pipeline.store.reading.scan import absent_ids
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.writing.appending import append_samples

GOLDEN = Path(__file__).parents[1] / "golden"
ROWS, PER_PART, PER_GROUP = 6000, 2000, 200


class CountingStorage(LocalStorage):
    """Notes every range that is read."""

    def __init__(self, path):
        super().__init__(path)
        self.read = []

    def read_range(self, name, start, size):
        data = super().read_range(name, start, size)
        self.read.append((name, start, len(data)))
        return data

    def bytes_of_parts(self):
        return sum(size for name, _, size in self.read if name.startswith("part-"))


@pytest.fixture(scope="module")
def table():
    """Sorted by label: 600 rows of each; names and numbers have nulls."""
    numbers = np.arange(ROWS)
    return pa.table(
        {
            "id": pa.array(numbers * 3 + 1000),
            "label": pa.array(numbers // 600, pa.uint8()),
            "name": pa.array([None if n % 7 == 0 else f"ähre {n % 11}" for n in numbers]),
            "weight": pa.array([None if n % 5 == 0 else float("nan") if n % 13 == 0 else n / 10 for n in numbers]),
        }
    )


@pytest.fixture(scope="module")
def place(table, tmp_path_factory):
    """A store of 3 parts with 10 row groups each."""
    folder = tmp_path_factory.mktemp("scanning")
    random_codec(folder / "codec", latent_size=24, hidden_size=30)
    pixels = random_pixels((ROWS, 5, 4), "uint8")
    for part in range(3):
        rows = slice(part * PER_PART, (part + 1) * PER_PART)
        columns = {name: table[name][rows.start : rows.stop] for name in table.column_names}
        write_rows(folder / "rows" / f"{part}.parquet", pixels[rows], **columns)
    encode(folder / "rows", folder / "codec", folder / "store", row_group_rows=PER_GROUP)
    return folder / "store"


@pytest.fixture
def counted(place):
    return LatentStore.open(CountingStorage(place))


@pytest.fixture
def damaged(place, tmp_path):
    """The same store, and the middle part's name; that part has one wrong bit in a column of latents."""
    copy = tmp_path / "damaged"
    copy.mkdir()
    for file in place.rglob("*"):
        target = copy / file.relative_to(place)
        target.parent.mkdir(exist_ok=True)
        if file.is_file():
            target.write_bytes(file.read_bytes())
    store = LatentStore.open(copy)
    part = store.manifest.parts[1]
    with store.open_part(part) as parquet:
        chunk = parquet.metadata.row_group(9).column(4)
        assert chunk.path_in_schema.startswith("latent")
    flip_bit(copy / part.name, chunk.data_page_offset + 30)
    return LatentStore.open(copy), part


def whole(store):
    return pa.concat_tables(store.scan())


def of_parts(store, number):
    return store.manifest.parts[number]


def chunk_bytes(store, part, groups, columns):
    """Bytes of some columns in some row groups, and of the part's footer."""
    with store.open_part(part) as parquet:
        metadata = parquet.metadata
    chunks = [metadata.row_group(group).column(column) for group in groups for column in range(metadata.num_columns)]
    footer = int(part.pieces[-1].split(":")[0])
    return footer + sum(
        chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns
    )


def test_a_scan_without_conditions_is_the_whole_store_in_its_order(counted, table):
    found = whole(counted)
    assert found.column_names == ["id", "label", "name", "weight", "latent", "error"]
    assert found.select(["id", "label", "name"]).equals(table.select(["id", "label", "name"]))
    assert (
        counted.storage.bytes_of_parts() <= counted.manifest.totals.bytes_parts + 10_000
    )  # a footer more for the schema


def test_columns_come_in_the_order_asked_for_and_nothing_else_is_read(counted):
    found = pa.concat_tables(counted.scan(columns=["label", "id"]))
    assert found.column_names == ["label", "id"]
    assert len(found) == ROWS
    plain = LatentStore.open(counted.storage.path)
    needed = [chunk_bytes(plain, part, range(10), {"id", "label"}) for part in plain.manifest.parts]
    assert counted.storage.bytes_of_parts() <= sum(needed) + 4 * 3


def test_no_column_at_all_still_counts_the_rows(counted):
    assert sum(len(found) for found in counted.scan(columns=[], filter="label = 3")) == 600
    assert sum(len(found) for found in counted.scan(columns=[])) == ROWS


@pytest.mark.parametrize("number", [0, 199, 200, 1999, 2000, 3333, 5999])
def test_one_row_by_its_id_costs_its_row_group(counted, number):
    (found,) = counted.scan(ids=[1000 + 3 * number])
    assert found["id"].to_pylist() == [1000 + 3 * number]
    plain = LatentStore.open(counted.storage.path)
    part, group = of_parts(plain, number // PER_PART), number % PER_PART // PER_GROUP
    needed = chunk_bytes(plain, part, [group], set(found.column_names))
    schema = 0 if number < PER_PART else chunk_bytes(plain, of_parts(plain, 0), [], set())
    first_footer = int(of_parts(plain, 0).pieces[-1].split(":")[0])
    assert counted.storage.bytes_of_parts() <= needed + schema + first_footer + 4
    assert {name for name, _, _ in counted.storage.read if name.startswith("part-")} <= {
        part.name,
        of_parts(plain, 0).name,
    }


def test_an_id_between_others_that_no_row_has_reads_ids_only(counted):
    assert list(counted.scan(ids=[1001])) == []
    plain = LatentStore.open(counted.storage.path)
    part = of_parts(plain, 0)
    assert counted.storage.bytes_of_parts() <= chunk_bytes(plain, part, [0], {"id"}) * 2


def test_ids_beyond_every_part_read_no_row_at_all(counted):
    assert list(counted.scan(ids=[-5, 10**15, 10**40])) == []
    assert list(counted.scan(ids=[])) == []
    assert counted.storage.bytes_of_parts() == chunk_bytes(counted, of_parts(counted, 0), [], ())  # for the schema
    assert {name for name, _, _ in counted.storage.read if name.startswith("part-")} <= {of_parts(counted, 0).name}


def test_a_label_of_a_sorted_store_costs_its_row_groups(counted):
    found = pa.concat_tables(counted.scan(filter="label = 7"))
    assert found["label"].to_pylist() == [7] * 600
    plain = LatentStore.open(counted.storage.path)
    needed = chunk_bytes(plain, of_parts(plain, 2), [1, 2, 3], set(found.column_names))  # rows 4200 to 4799
    footers = sum(int(part.pieces[-1].split(":")[0]) for part in plain.manifest.parts)
    assert counted.storage.bytes_of_parts() <= needed + footers + 4 * 3 + footers / 3
    assert counted.storage.bytes_of_parts() < 0.4 * counted.manifest.totals.bytes_parts


def test_where_no_row_of_a_group_matches_its_other_columns_are_not_read(counted):
    assert list(counted.scan(columns=["latent"], filter="name = 'ähre 99'")) == []
    before = counted.storage.bytes_of_parts()
    assert list(counted.scan(columns=["latent"], filter="name = 'ähre 5' AND name = 'ähre 6'")) == []
    plain = LatentStore.open(counted.storage.path)
    needed = sum(chunk_bytes(plain, part, range(10), {"name"}) for part in plain.manifest.parts)
    assert counted.storage.bytes_of_parts() - before <= needed + 4 * 3


def test_nulls_do_not_stop_statistics_from_passing_over_row_groups(counted):
    (found,) = counted.scan(columns=["id"], filter="weight > 599.85")
    assert found["id"].to_pylist() == [1000 + 3 * 5999]
    groups = {start for name, start, _ in counted.storage.read if name == of_parts(counted, 2).name}
    assert len(groups) <= 3  # footer, weight and id of the last row group


@pytest.mark.parametrize(
    "condition",
    [
        "weight <> 1.1",
        "NOT weight < 590",
        "name LIKE '%5' AND label IN (1, 2)",
        "name IS NULL OR label = 9",
        "label BETWEEN 2 AND 3 AND NOT name = 'ähre 5'",
    ],
)
def test_what_is_chosen_does_not_depend_on_row_groups(condition, counted):
    from ae_pipeline.store.reading.where import parse_where

    everything = whole(counted)
    parsed, _ = parse_where(condition, everything.schema)
    expected = everything.filter(parsed.expression).drop_columns(["weight"])  # NaN equals nothing
    assert len(expected)
    assert pa.concat_tables(counted.scan(filter=condition)).drop_columns(["weight"]).equals(expected)


def test_an_arrow_expression_chooses_like_the_text(counted):
    text = pa.concat_tables(counted.scan(filter="label = 7 AND name IS NOT NULL", columns=["id"]))
    expression = (pc.field("label") == 7) & pc.field("name").is_valid()
    assert pa.concat_tables(counted.scan(filter=expression, columns=["id"])).equals(text)
    # The statistics of row groups leave NaN out.
    unequal = pa.concat_tables(counted.scan(filter=pc.field("weight") != 1.1, columns=["id"]))
    assert len(unequal) == len(pa.concat_tables(counted.scan(filter="weight <> 1.1")))


def test_ids_and_a_condition_together_are_both_asked(counted):
    found = pa.concat_tables(counted.scan(ids=[1000, 1003, 8000, 1003], filter="label < 3", columns=["id"]))
    assert found["id"].to_pylist() == [1000, 1003]
    assert pa.concat_tables(counted.scan(ids=["1600", 1000], columns=["id"]))["id"].to_pylist() == [1000, 1600]


def test_rows_are_the_scan_in_numpys_terms(counted):
    (rows,) = counted.rows(filter="label = 7", ids=[1000 + 3 * 4500])
    table = whole(counted).slice(4500, 1)
    assert rows.latents.tolist() == table["latent"].to_pylist()
    assert rows.error.tolist() == table["error"].to_pylist()
    assert rows.attributes.column_names == ["id", "label", "name", "weight"]


def test_absent_ids_are_named_in_the_order_given(counted):
    assert absent_ids(counted, [1000, 1001, -1, 1003, 5]) == [1001, -1, 5]
    assert absent_ids(counted, ["1003", "7"]) == [7]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"columns": ["id", "lable"]}, "no column 'lable' in the store; it has id, label, name, weight, latent, error"),
        ({"ids": ["x"]}, "no id 'x': the ids of .* are integers"),
        ({"ids": [3.7]}, "no id 3.7"),
        ({"ids": ["1_000"]}, "no id '1_000'"),
        ({"filter": "lable = 7"}, "names a column 'lable'"),
        ({"filter": pc.field("label") == "seven"}, "does not fit the store's columns.*label: uint8"),
        ({"filter": pc.field("lable") == 7}, "does not fit the store's columns"),
    ],
)
def test_what_the_store_does_not_have_is_said(asked, words, counted):
    with pytest.raises(ConfigError, match=words):
        list(counted.scan(**asked))


def test_values_that_do_not_compare_are_no_damage(tmp_path):
    random_codec(tmp_path / "codec")
    columns = {"id": [0, 1], "low": pa.array([-1, 1], pa.int8()), "high": pa.array([2**64 - 1, 1], pa.uint64())}
    write_rows(tmp_path / "rows.parquet", random_pixels((2, 5, 4), "uint8"), **columns)
    store = encode(tmp_path / "rows.parquet", tmp_path / "codec", tmp_path / "store")
    with pytest.raises(ConfigError, match="does not fit the store's columns"):
        list(store.scan(filter="low < high"))


@pytest.mark.parametrize("kind", ["string", "large_string", "int32", "uint64"])
def test_ids_of_every_type_are_found(kind, tmp_path):
    random_codec(tmp_path / "codec")
    values = [f"row {n:03d} ä" for n in range(90)] if "string" in kind else list(range(500, 590))
    for part in range(3):
        chosen = pa.array(values[part * 30 : part * 30 + 30], kind)
        write_rows(tmp_path / "rows" / f"{part}.parquet", random_pixels((30, 5, 4), "uint8"), id=chosen)
    encode(tmp_path / "rows", tmp_path / "codec", tmp_path / "store", row_group_rows=10)
    store = LatentStore.open(CountingStorage(tmp_path / "store"))
    wanted = [values[5], values[89], values[42]]
    found = pa.concat_tables(store.scan(ids=wanted, columns=["id"]))
    assert found["id"].to_pylist() == sorted(wanted)
    assert absent_ids(store, ["9999999", *wanted]) == (["9999999"] if "string" in kind else [9999999])
    constant = f"'{values[42]}'" if "string" in kind else values[42]
    (table,) = store.scan(filter=f"id = {constant}")
    assert table["id"].to_pylist() == [values[42]]


def test_a_repeated_id_gives_all_its_rows(tmp_path):
    random_codec(tmp_path / "codec")
    write_rows(tmp_path / "rows.parquet", random_pixels((6, 5, 4), "uint8"), id=[3, 1, 3, 2, 3, 1])
    store = encode(tmp_path / "rows.parquet", tmp_path / "codec", tmp_path / "store", row_group_rows=2)
    assert pa.concat_tables(store.scan(ids=[3, 2], columns=["id"]))["id"].to_pylist() == [3, 3, 2, 3]


def test_a_damaged_part_stops_a_scan_that_needs_it(damaged):
    store, part = damaged
    with pytest.raises(DamagedPartError, match=part.name):
        whole(store)
    # What is read is checked; what is not read cannot hurt.
    assert len(pa.concat_tables(store.scan(columns=["id"]))) == ROWS
    assert len(pa.concat_tables(store.scan(filter="label = 0"))) == 600


def test_a_damaged_part_can_be_passed_over_whole(damaged):
    store, part = damaged
    told = []
    found = pa.concat_tables(store.scan(columns=["id"], on_damaged=lambda *what: told.append(what)))
    assert found["id"].to_pylist() == [1000 + 3 * n for n in (*range(2000), *range(4000, 6000))]
    ((of_part, error),) = told
    assert of_part == part
    assert part.name in str(error)
    assert absent_ids(store, [10_000, 1000], lambda *what: None) == [10_000]


def test_a_part_that_is_gone_can_be_passed_over_even_if_it_is_the_first(damaged):
    store, _ = damaged
    (store.path / of_parts(store, 0).name).unlink()
    told = []
    found = pa.concat_tables(store.scan(filter="label >= 0", on_damaged=lambda part, error: told.append(str(error))))
    assert len(found) == 2000
    assert "is missing" in told[0]


@pytest.mark.parametrize("name", ["store-v1", "store-v2", "store-v1-conv", "store-v2-conv"])
def test_stores_of_every_format_are_scanned_and_decoded(name):
    store = LatentStore.open(GOLDEN / name)
    everything = whole(store)
    ids = everything["id"].to_pylist()
    (found,) = store.scan(ids=[ids[2]])
    assert found.equals(everything.slice(2, 1))
    alone = [next(decode_rows(store, ids=[wanted], device="cpu")).pixels[0] for wanted in ids]
    together = np.concatenate([block.pixels for block in decode_rows(store, device="cpu")])
    assert np.array_equal(np.stack(alone), together)


def test_a_format_without_pieces_is_checked_whole_before_any_row(tmp_path):
    for file in (GOLDEN / "store-v1").rglob("*"):
        target = tmp_path / file.relative_to(GOLDEN / "store-v1")
        target.mkdir() if file.is_dir() else target.write_bytes(file.read_bytes())
    store = LatentStore.open(tmp_path)
    last = store.manifest.parts[-1]
    flip_bit(tmp_path / last.name, last.bytes // 2)
    with pytest.raises(DamagedPartError, match=last.name):
        list(store.scan(columns=["id"]))
    told = []
    assert list(store.scan(columns=["id"], on_damaged=lambda part, error: told.append(part.name)))
    assert told == [last.name]


def test_a_snapshot_is_scanned_as_it_was(tmp_path):
    random_codec(tmp_path / "codec")
    for number in range(2):
        ids = list(range(number * 10, number * 10 + 10))
        write_rows(tmp_path / f"{number}.parquet", random_pixels((10, 5, 4), "uint8", number), id=ids)
    encode(tmp_path / "0.parquet", tmp_path / "codec", tmp_path / "store")
    more = [SampleSet.open(tmp_path / "1.parquet")]
    append_samples(tmp_path / "store", more, tmp_path / "codec", EncodeParams(device="cpu"), name="more", git={})
    for snapshot, rows in ((None, 20), (2, 20), (1, 10)):
        store = LatentStore.open(tmp_path / "store", snapshot)
        assert pa.concat_tables(store.scan(columns=["id"]))["id"].to_pylist() == list(range(rows))
        assert sum(len(block.pixels) for block in decode_rows(store, ids=[5, 15], device="cpu")) == rows // 10


def test_numbers_are_no_ids_of_a_store_whose_ids_are_texts(tmp_path):
    random_codec(tmp_path / "codec")
    rows = write_rows(tmp_path / "rows.parquet", random_pixels((2, 5, 4), "uint8"), id=["5", "6"])
    store = encode(rows, tmp_path / "codec", tmp_path / "store")
    with pytest.raises(ConfigError, match=r"no id 5: the ids of .*store are texts, e.g. '5'"):
        list(store.scan(ids=[5]))
    assert len(list(store.scan(ids=["5"]))) == 1
