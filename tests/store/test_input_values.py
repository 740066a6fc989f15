"""What other people's files hold comes back as it was, or is refused by name: INT96 times, views, lists, ids."""

import datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from handmade import encode, random_codec, random_pixels, write_rows
from inboxes import run, settle, store_of, stored

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.store.reading.decode import decode_store

SHAPE = (5, 4)
SPEC = SampleSpec(SHAPE, "uint8")
FAR = [datetime.datetime(9999, 12, 31), datetime.datetime(1000, 1, 1), None, datetime.datetime(2020, 1, 1, 0, 0, 0, 1)]
NEAR = [datetime.datetime(2020, 1, 1, 0, 0, 0, number) for number in range(4)]
FINE = pa.array([1, 1001, -1, None], pa.timestamp("ns"))
# The first and the last nanosecond that 64 bits hold.
ENDS = pa.array([-(2**63) + 1, 2**63 - 1, 0, None], pa.timestamp("ns"))


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values") / "codec"
    random_codec(folder, SHAPE)
    return folder


def old_file(path, *, store_schema=False, **columns):
    """A file with INT96 times and `pixels`, as Spark and Impala wrote them."""
    rows = max(len(values) for values in columns.values())
    pixels = [row.tobytes() for row in random_pixels((rows, *SHAPE), "uint8")]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({**columns, "pixels": pixels})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, store_schema=store_schema)
    return path


def decoded_column(samples, codec, folder, name="t"):
    """A column after encoding and decoding, as Arrow has it."""
    store = encode(samples, codec, folder / "store")
    decode_store(store, folder / "decoded", device="cpu")
    (file,) = (folder / "decoded").iterdir()
    return pq.read_table(file)[name]


# --- times of 96 bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store_schema", [True, False], ids=["arrow schema", "none"])
@pytest.mark.parametrize("values", [FAR, NEAR], ids=["far", "near"])
def test_old_times_of_every_year_come_back_as_they_were(ae, codec, tmp_path, values, store_schema):
    file = old_file(tmp_path / "a.parquet", store_schema=store_schema, t=pa.array(values, pa.timestamp("us")))
    assert ae("encode", file, "--codec", codec, "--store", tmp_path / "store")[0] == 0
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "decoded.parquet")[0] == 0
    times = pq.read_table(tmp_path / "decoded.parquet")["t"]
    assert times.cast(pa.timestamp("us")).to_pylist() == values
    assert ae("verify", tmp_path / "store", "--deep", "--source", file)[0] == 0


def test_old_times_in_lists_and_structs_come_back_as_they_were(codec, tmp_path):
    times = pa.array(FAR, pa.timestamp("us"))
    nested = pa.StructArray.from_arrays([pa.array([[value] for value in FAR], pa.list_(times.type))], ["inner"])
    file = old_file(tmp_path / "a.parquet", t=nested)
    column = decoded_column(SampleSet.open(file, SPEC), codec, tmp_path)
    assert column.to_pylist() == [{"inner": [value]} for value in FAR]


@pytest.mark.parametrize("values", [FINE, ENDS], ids=["fine", "ends"])
def test_nanoseconds_of_old_times_are_not_cut(codec, tmp_path, values):
    samples = SampleSet.open(old_file(tmp_path / "a.parquet", t=values), SPEC)
    assert samples.changed_by == {}
    assert decoded_column(samples, codec, tmp_path).combine_chunks().equals(values)


def test_old_times_that_no_unit_holds_are_refused_by_name(tmp_path):
    far = pa.array(FAR, pa.timestamp("us"))
    file = old_file(tmp_path / "both.parquet", fine=FINE, far=far)
    with pytest.raises(DataError, match=r"both\.parquet: column `far` .* before the year 1678 or after 2261") as caught:
        SampleSet.open(file, SPEC)
    assert "column `fine` to the nanosecond" in str(caught.value)
    assert "no unit holds them all" in str(caught.value)


def test_old_times_beyond_microseconds_are_refused_by_name(tmp_path):
    """Julian day 0 and the last one of 32 bits, in the year 11 million: written over a file's own values."""
    days = pa.array([datetime.datetime(2020, 1, 1)], pa.timestamp("us"))
    file = tmp_path / "a.parquet"
    table = pa.table({"t": days, "pixels": [bytes(20)]})
    pq.write_table(table, file, use_deprecated_int96_timestamps=True, use_dictionary=False, compression="none")
    value = (0).to_bytes(8, "little") + (2_458_850).to_bytes(4, "little")
    assert file.read_bytes().count(value) == 1
    file.write_bytes(file.read_bytes().replace(value, bytes(8) + (2**32 - 1).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"column `t` .* of years that microseconds do not reach"):
        SampleSet.open(file, SPEC)


def test_files_of_one_data_set_have_their_old_times_in_one_unit(codec, tmp_path):
    """Also where one file alone is in nanoseconds: a store in microseconds takes it, and knows it again."""
    near = old_file(tmp_path / "data/a.parquet", t=pa.array(NEAR, pa.timestamp("us")))
    old_file(tmp_path / "data/b.parquet", t=pa.array(FAR, pa.timestamp("us")))
    samples = SampleSet.open(tmp_path / "data", SPEC)
    assert samples.load().attributes["t"].to_pylist() == [*NEAR, *FAR]
    assert samples.changed_by == {"int96": "us"}
    assert SampleSet.open(near, SPEC).changed_by == {}
    stored = {"t": "timestamp[us]"}
    assert SampleSet.open(near, SPEC, stored).changed_by == {"int96": "us"}


def test_a_store_in_microseconds_grows_by_files_that_nanoseconds_would_hold(ae, codec, tmp_path):
    far = old_file(tmp_path / "far.parquet", t=pa.array(FAR, pa.timestamp("us")))
    near = old_file(tmp_path / "near.parquet", t=pa.array(NEAR, pa.timestamp("us")))
    fine = old_file(tmp_path / "fine.parquet", t=FINE)
    store = tmp_path / "store"
    assert ae("encode", far, "--codec", codec, "--store", store)[0] == 0
    assert ae("append", store, near)[0] == 0
    code, _, err = ae("append", store, fine)
    assert code == 1
    assert "fine.parquet has the columns id: int64, t: timestamp[ns], expected id: int64, t: timestamp[us]" in err
    assert ae("verify", store, "--deep", "--source", near)[0] == 0
    part = sorted(store.glob("part-*"))[1]
    whole = part.read_bytes()
    part.unlink()
    assert ae("repair", store, "--source", near)[0] == 0
    assert part.read_bytes() == whole


# --- conditions -----------------------------------------------------------------------------------------------------


def test_times_of_different_units_are_compared_exactly_or_refused(ae, codec, tmp_path):
    near = pa.array(NEAR, pa.timestamp("us"))
    seconds = pa.array([2_000_000_000] * 4, pa.timestamp("ms"))
    write_rows(tmp_path / "a.parquet", random_pixels((4, *SHAPE), "uint8"), fine=near.cast("timestamp[ns]"), ms=seconds)
    ae("encode", tmp_path / "a.parquet", "--codec", codec, "--store", tmp_path / "store")
    out = tmp_path / "out.parquet"
    assert ae("decode", tmp_path / "store", "--out", out, "--where", "fine > ms")[0] == 0
    assert pq.read_metadata(out).num_rows == 4
    far = pa.array(FAR, pa.timestamp("us"))
    write_rows(tmp_path / "b.parquet", random_pixels((4, *SHAPE), "uint8"), fine=near.cast("timestamp[ns]"), far=far)
    ae("encode", tmp_path / "b.parquet", "--codec", codec, "--store", tmp_path / "store2")
    for condition in ("fine < far", "fine = '9999-12-31'"):
        code, _, err = ae("decode", tmp_path / "store2", "--out", tmp_path / "out2.parquet", "--where", condition)
        assert (code, err.count("\n")) == (1, 1)
        assert "fine: timestamp[ns]" in err
    assert not (tmp_path / "out2.parquet").exists()


def test_dates_of_years_that_python_does_not_have_can_be_asked_for(codec, tmp_path):
    """Arrow's statistics are Python's dates."""
    days = pa.array([2**31 - 1, -(2**31), 0], pa.int32()).cast(pa.date32())
    times = pa.array([2**62, -(2**62), 0], pa.timestamp("us"))
    samples = write_rows(tmp_path / "a.parquet", random_pixels((3, *SHAPE), "uint8"), day=days, time=times)
    store = encode(samples, codec, tmp_path / "store")
    for condition, ids in (
        ("day > '2020-01-01'", [0]),
        ("time < '2020-01-01'", [1, 2]),
        ("day IS NOT NULL", [0, 1, 2]),
    ):
        found = [table["id"].to_pylist() for table in store.scan(columns=["id"], filter=condition)]
        assert found == [ids]
    (decoded,) = decode_store(store, tmp_path / "decoded", device="cpu").files
    assert pq.read_table(decoded)["day"].combine_chunks().equals(days)
    assert pq.read_table(decoded)["time"].combine_chunks().equals(times)


def test_an_arrow_condition_in_another_unit_is_exact_or_refused_and_no_damage(codec, tmp_path):
    far, near = pa.array(FAR, pa.timestamp("us")), pa.array(NEAR, pa.timestamp("us"))
    samples = write_rows(tmp_path / "a.parquet", random_pixels((4, *SHAPE), "uint8"), far=far, near=near)
    store = encode(samples, codec, tmp_path / "store")
    second = pa.scalar(1_577_836_800_000_002_000, pa.timestamp("ns"))
    assert [len(table) for table in store.scan(filter=pc.field("near") >= second)] == [2]
    assert [len(table) for table in store.scan(filter=pc.field("far") > second)] == [1]
    with pytest.raises(
        ConfigError, match=r"the condition does not fit the store's columns: .* out of bounds timestamp"
    ):
        list(store.scan(filter=pc.field("far") > pa.scalar(5, pa.timestamp("ns"))))


def test_the_inbox_takes_times_of_other_units_where_they_are_the_same(codec, tmp_path):
    box = tmp_path / "data/inbox"
    old_file(box / "a.parquet", t=pa.array(FAR, pa.timestamp("us")))
    old_file(box / "b.parquet", t=pa.array(NEAR, pa.timestamp("us")))
    old_file(box / "c.parquet", t=FINE)
    settle(box)
    done = run(tmp_path, codec)
    assert (done.rows, list(done.quarantined)) == (8, ["c.parquet"])
    assert "not all of its values fit timestamp[us]" in done.quarantined["c.parquet"]
    assert stored(store_of(tmp_path, codec))["t"].to_pylist() == [*FAR, *NEAR]


# --- tensors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["list", "binary", "coded"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1)], ids=["C order", "transposed"])
def test_tensors_are_attributes_in_any_order_of_their_axes(codec, tmp_path, axes, layout):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(24.0).reshape(3, 2, 4).transpose(axes))
    pixels = [row.tobytes() for row in random_pixels((3, *SHAPE), "uint8")]
    pq.write_table(pa.table({"x": tensors, "pixels": pixels}), tmp_path / "a.parquet")
    store = encode(SampleSet.open(tmp_path / "a.parquet", SPEC), codec, tmp_path / "store", layout=layout)
    (found,) = store.scan(columns=["x"], filter=pc.field("id") > 0)
    assert found["x"].combine_chunks().equals(tensors[1:])
    (decoded,) = decode_store(store, tmp_path / "decoded", device="cpu").files
    assert pq.read_table(decoded)["x"].combine_chunks().equals(tensors)


# --- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nullable", ["pixels", "embedding", "nested"])
def test_a_missing_list_of_a_fixed_size_is_named_and_not_called_damaged(tmp_path, nullable):
    rows = [[1] * 20, [2] * 20, None, [3] * 20]
    full = [[0] * 20] * 4
    columns = {
        "pixels": pa.array(rows if nullable == "pixels" else full, pa.list_(pa.uint8(), 20)),
        "embedding": pa.array(rows if nullable == "embedding" else full, pa.list_(pa.float32(), 20)),
        "nested": pa.array(
            [[{"e": value}] for value in (rows if nullable == "nested" else full)],
            pa.list_(pa.struct([("e", pa.list_(pa.int16(), 20))])),
        ),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(DataError) as caught:
        SampleSet.open(tmp_path / "a.parquet", SPEC).load()
    what = "no pixels" if nullable == "pixels" else f"no list in column `{nullable}`"
    assert f"a.parquet: {what} in row 2 (the first one is 0) and perhaps others; " in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_what_is_advised_for_a_missing_list_works(codec, tmp_path):
    values = pa.array([[1.0] * 3, None], pa.list_(pa.float32(), 3))
    samples = write_rows(
        tmp_path / "a.parquet", random_pixels((2, *SHAPE), "uint8"), e=values.cast(pa.list_(pa.float32()))
    )
    assert decoded_column(samples, codec, tmp_path, "e").to_pylist() == [[1.0] * 3, None]


INNER = {"lists": pa.list_, "large lists": pa.large_list, "fixed lists": lambda kind: pa.list_(kind, 4)}
OUTER = {"lists": pa.list_, "large lists": pa.large_list, "fixed lists": lambda kind: pa.list_(kind, 5)}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("values", [pa.uint8(), pa.int64(), pa.float32()], ids=str)
def test_pixels_may_be_lists_in_lists_as_the_shape_says(tmp_path, outer, inner, values):
    pixels = random_pixels((13, *SHAPE), "uint8")
    column = pa.array(pixels.tolist(), OUTER[outer](INNER[inner](values)))
    pq.write_table(pa.table({"pixels": column}), tmp_path / "a.parquet")
    block = SampleSet.open(tmp_path / "a.parquet", SPEC).load()
    np.testing.assert_array_equal(block.pixels, pixels)


def test_lists_of_arrows_list_view_are_refused_before_arrow_empties_them(codec, tmp_path):
    column = pa.array([[1], [2, 3]], pa.list_view(pa.int64()))
    samples = write_rows(tmp_path / "a.parquet", random_pixels((2, *SHAPE), "uint8"), tags=column)
    with pytest.raises(DataError, match=r"column `tags` is of type list_view.*write it as plain lists"):
        encode(samples, codec, tmp_path / "store")


# --- ids and texts --------------------------------------------------------------------------------------------------


NAMES = ["b", "a", "a long name of more than twelve bytes"]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(NAMES, pa.string_view()),
        pa.array(NAMES, pa.large_string()),
        pa.array(NAMES).dictionary_encode(),
        pa.array(NAMES, pa.large_string()).dictionary_encode(),
        pa.array([3, 1, 2]).dictionary_encode(),
    ],
    ids=lambda ids: str(ids.type).split(",")[0],
)
def test_ids_may_be_texts_of_every_kind_and_chosen_by(codec, tmp_path, ids):
    samples = write_rows(tmp_path / "a.parquet", random_pixels((3, *SHAPE), "uint8"), id=ids)
    store = encode(samples, codec, tmp_path / "store")
    assert store.manifest.parts[0].id_min == min(ids.to_pylist())
    found = pa.concat_tables(store.scan(columns=["id"], ids=ids.to_pylist()[1:]))
    assert found["id"].to_pylist() == ids.to_pylist()[1:]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.float64()], ids=str)
def test_ids_of_other_kinds_are_refused_by_type(codec, tmp_path, kind):
    values = [1.0, 2.0, 3.0] if kind == pa.float64() else [b"a", b"b", b"c"]
    samples = write_rows(tmp_path / "a.parquet", random_pixels((3, *SHAPE), "uint8"), id=pa.array(values, kind))
    with pytest.raises(DataError, match=r"a\.parquet: `id` is of type .*, expected integers or strings"):
        encode(samples, codec, tmp_path / "store")


def test_views_of_texts_and_bytes_become_plain_and_can_be_asked_for(codec, tmp_path):
    columns = {
        "name": pa.array([*NAMES[:2], None], pa.string_view()),
        "raw": pa.array([b"x", None, b"z"], pa.binary_view()),
        "tags": pa.array([["p", "q"], None, []], pa.list_(pa.string_view())),
        "more": pa.array([{"k": "v"}, None, {"k": None}], pa.struct([("k", pa.string_view())])),
    }
    samples = write_rows(tmp_path / "a.parquet", random_pixels((3, *SHAPE), "uint8"), **columns)
    store = encode(samples, codec, tmp_path / "store")
    assert store.schema().field("name").type == pa.string()
    (found,) = store.scan(columns=list(columns), filter="name = 'a' OR name IS NULL")
    assert found.to_pydict() == {name: column.to_pylist()[1:] for name, column in columns.items()}


def test_a_store_that_has_views_already_keeps_them(tmp_path):
    write_rows(tmp_path / "a.parquet", random_pixels((2, *SHAPE), "uint8"), name=pa.array(["a", "b"], pa.string_view()))
    samples = SampleSet.open(tmp_path / "a.parquet", SPEC, {"name": "string_view"})
    assert samples.attributes_schema.field("name").type == pa.string_view()
    assert samples.load().attributes["name"].to_pylist() == ["a", "b"]


def test_a_file_of_polars_is_a_data_set(codec, tmp_path):
    pixels = random_pixels((3, *SHAPE), "uint8")
    frame = pl.DataFrame(
        {
            "id": NAMES,
            "pixels": pl.Series(pixels.tolist(), dtype=pl.Array(pl.UInt8, SHAPE)),
            "t": pl.Series([FAR[0], FAR[1], None], dtype=pl.Datetime("us")),
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    samples = SampleSet.open(tmp_path / "a.parquet", SPEC)
    np.testing.assert_array_equal(samples.load().pixels, pixels)
    assert decoded_column(samples, codec, tmp_path).to_pylist() == [FAR[0], FAR[1], None]
