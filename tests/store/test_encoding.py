"""Encoding: the same rows give the same bytes, whoever runs it; ids and attributes are kept as they are."""

import datetime
import json
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows
from pydantic import ValidationError

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, TargetError
from ae_pipeline.evaluation.evaluate import evaluate_codec
from ae_pipeline.evaluation.measures.row_errors import round_trip
from ae_pipeline.files import sha256_file
from ae_pipeline.params import EncodeParams
from ae_pipeline.store import executors
from ae_pipeline.store.format.entries import MOST_ROW_GROUP_ROWS
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.storage.work_folder import unfinished_work
from ae_pipeline.store.writing.encoding import finished_or_removed

ROWS = 20


@pytest.fixture
def train(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "train")


@pytest.fixture
def codec(tmp_path):
    """The folder of an untrained codec for uint8 5x4."""
    random_codec(tmp_path / "codec")
    return tmp_path / "codec"


def rows_with(folder, **columns):
    return write_rows(folder / "data" / "rows.parquet", random_pixels((ROWS, 5, 4), "uint8"), **columns)


def hidden(folder):
    return sorted(item.name for item in folder.iterdir() if item.name.startswith("."))


def test_a_store_holds_what_the_codec_makes_of_each_row(train, tiny_codec, tmp_path):
    store = encode(train, tiny_codec, tmp_path / "store")
    rows = [rows for part in store.manifest.parts for rows in store.read_part(part, 1000)]
    original = train.load()
    assert np.array_equal(
        np.concatenate([block.latents for block in rows]), Codec.load(tiny_codec).encode(original.pixels)
    )
    assert pa.concat_tables([block.attributes for block in rows]).equals(original.attributes)


def test_both_layouts_decode_to_the_same_rows(train, tiny_codec, tmp_path):
    decoded = {}
    for layout in LAYOUTS:
        store = encode(train, tiny_codec, tmp_path / layout, layout=layout)
        decoded[layout] = decode_store(store, tmp_path / f"decoded-{layout}", device="cpu").load()
    assert np.array_equal(decoded["list"].pixels, decoded["binary"].pixels)
    assert decoded["list"].attributes.equals(decoded["binary"].attributes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bytes_of_a_store_do_not_depend_on_the_number_of_workers(layout, train, tiny_codec, tmp_path, monkeypatch):
    stores = []
    for workers in (1, 1, 2, 7):
        monkeypatch.setattr(executors, "cpu_count", lambda workers=workers: workers)
        target = tmp_path / str(len(stores))
        encode(train, tiny_codec, target, layout=layout)
        stores.append(bytes_of(target))
    assert all(store == stores[0] for store in stores)
    assert len(stores[0]) == 3 + 3


def test_row_groups_of_any_size_hold_the_same_rows(train, tiny_codec, tmp_path):
    tables = []
    for rows in (1, 77, 1024, 10_000):
        store = encode(train, tiny_codec, tmp_path / str(rows), row_group_rows=rows)
        tables.append(pa.concat_tables(pq.read_table(store.path / part.name) for part in store.manifest.parts))
    assert all(table.equals(tables[0]) for table in tables)


def test_progress_counts_every_row_once(train, tiny_codec, tmp_path):
    seen = []
    encode(train, tiny_codec, tmp_path / "store", progress=seen.append)
    assert sorted(seen) == [140, 200, 200]


def test_nothing_but_the_store_is_left(train, tiny_codec, tmp_path):
    encode(train, tiny_codec, tmp_path / "stores" / "new", work=tmp_path / "work")
    assert [item.name for item in (tmp_path / "stores").iterdir()] == ["new"]
    assert not list((tmp_path / "work").iterdir())
    assert not [name for name in bytes_of(tmp_path / "stores") if "tmp" in name]


@pytest.mark.parametrize("what", ["a store", "a file", "a dangling link"])
def test_a_target_that_exists_is_refused_and_left_alone(what, train, tiny_codec, tmp_path):
    target = tmp_path / "target"
    if what == "a store":
        encode(train, tiny_codec, target, layout="binary")
    elif what == "a file":
        target.write_bytes(b"mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = bytes_of(tmp_path)
    with pytest.raises(TargetError, match=re.escape(f"{target} exists already; choose another target")):
        encode(train, tiny_codec, target)
    assert bytes_of(tmp_path) == before
    assert not hidden(tmp_path)


def test_a_store_that_is_finished_is_left_as_it_is(train, tiny_codec, tmp_path):
    # A run that was stopped after its last step, and is repeated.
    encode(train, tiny_codec, tmp_path / "store")
    before = bytes_of(tmp_path)
    seen = []
    assert encode(train, tiny_codec, tmp_path / "store", progress=seen.append).manifest.totals.rows == 540
    assert bytes_of(tmp_path) == before
    assert sum(seen) == 540


def test_a_store_that_is_finished_is_read_once(train, tiny_codec, tmp_path, monkeypatch):
    """Hashing it is what costs: of two looks at it, each hashes every file once."""
    store = encode(train, tiny_codec, tmp_path / "store")
    hashed = []

    def note(path):
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr("ae_pipeline.store.writing.encoding.sha256_file", note)
    files = sorted(name for name in bytes_of(store.path) if name != "_manifest.json")
    params = EncodeParams(layout="list", device="cpu")
    for look in (
        lambda: encode(train, tiny_codec, store.path),
        lambda: finished_or_removed(store.path, train, tiny_codec, params),
    ):
        assert look().manifest == store.manifest
        assert sorted(hashed) == sorted(name.rpartition("/")[2] for name in files)
        hashed.clear()


def test_what_is_not_the_finished_store_is_removed(train, tiny_codec, tmp_path):
    encode(train, tiny_codec, tmp_path / "store")
    params = EncodeParams(layout="binary", device="cpu")
    assert finished_or_removed(tmp_path / "store", train, tiny_codec, params) is None
    assert not (tmp_path / "store").exists()
    assert finished_or_removed(tmp_path / "store", train, tiny_codec, params) is None


@pytest.mark.parametrize("name", ["part-*", "_codec/weights.safetensors", "_manifest.json"])
def test_a_damaged_store_is_not_taken_for_a_finished_one(name, train, tiny_codec, tmp_path):
    encode(train, tiny_codec, tmp_path / "store")
    flip_bit(next(iter((tmp_path / "store").glob(name))), 300)
    before = bytes_of(tmp_path)
    with pytest.raises(TargetError, match="exists already"):
        encode(train, tiny_codec, tmp_path / "store")
    assert bytes_of(tmp_path) == before


def test_a_work_folder_on_another_file_system_is_refused_before_any_work(train, tiny_codec, tmp_path):
    places = [path for path in (Path("/dev/shm"), Path("/tmp"), Path(__file__).parent) if path.is_dir()]
    others = [path for path in places if path.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("needs a second file system")
    with (
        tempfile.TemporaryDirectory(dir=others[0]) as elsewhere,
        pytest.raises(TargetError, match="are on different file systems"),
    ):
        encode(train, tiny_codec, tmp_path / "store", work=Path(elsewhere), progress=pytest.fail)


def test_an_empty_folder_may_be_the_target(train, tiny_codec, tmp_path):
    (tmp_path / "target").mkdir()
    assert encode(train, tiny_codec, tmp_path / "target").manifest.totals.rows == 540


def test_a_target_below_a_file_is_refused_before_any_work(train, tiny_codec, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for work in (None, tmp_path / "work"):
        with pytest.raises(TargetError, match=r"cannot make the folder .*file"):
            encode(train, tiny_codec, tmp_path / "file" / "store", work=work)
    assert bytes_of(tmp_path) == {"file": b"mine"}


def test_of_two_writers_the_later_one_loses_and_changes_nothing(train, tiny_codec, tmp_path):
    target = tmp_path / "store"

    def another_writer_wins(rows):
        if not target.exists():
            target.mkdir()
            (target / "theirs").write_bytes(b"theirs")

    with pytest.raises(TargetError, match=re.escape(str(target))):
        encode(train, tiny_codec, target, progress=another_writer_wins)
    assert bytes_of(target) == {"theirs": b"theirs"}


def test_two_runs_of_the_same_work_do_not_touch_each_other(train, tiny_codec, tmp_path):
    refused = []

    def start_another(rows):
        with pytest.raises(TargetError, match="another run is writing") as caught:
            encode(train, tiny_codec, tmp_path / "store")
        refused.append(caught.value)

    store = encode(train, tiny_codec, tmp_path / "store", progress=start_another)
    assert len(refused) == 3
    assert sum(len(rows.latents) for part in store.manifest.parts for rows in store.read_part(part, 100)) == 540


@pytest.mark.parametrize("name", ["latent", "error", "residual", "residual_bound"])
def test_reserved_column_names_are_refused(name, codec, tmp_path):
    samples = rows_with(tmp_path, id=list(range(ROWS)), **{name: [0] * ROWS})
    with pytest.raises(
        DataError, match=rf"\.parquet: column names {name} are reserved in a latent store; rename them first"
    ):
        encode(samples, codec, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_codec_for_other_samples_is_refused(train, codec, tmp_path):
    with pytest.raises(CodecError, match="is for samples of uint8 5x4, but the data set has uint8 12x12"):
        encode(train, codec, tmp_path / "store")
    assert not (tmp_path / "store").exists()


# Ids and attributes.


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_ids_may_be_strings(kind, codec, tmp_path):
    ids = [f"row-{n * 37 % ROWS:02d}" for n in range(ROWS)]
    store = encode(rows_with(tmp_path, id=pa.array(ids, kind)), codec, tmp_path / "store")
    assert (store.manifest.parts[0].id_min, store.manifest.parts[0].id_max) == ("row-00", "row-19")
    assert decode_store(store, tmp_path / "decoded", device="cpu").load().attributes["id"].to_pylist() == ids


@pytest.mark.parametrize("kind", [pa.int16(), pa.int32(), pa.int64(), pa.uint64()], ids=str)
def test_ids_may_be_integers_of_any_width(kind, codec, tmp_path):
    ids = [n * 37 % ROWS for n in range(ROWS)]
    store = encode(rows_with(tmp_path, id=pa.array(ids, kind)), codec, tmp_path / "store")
    assert (store.manifest.parts[0].id_min, store.manifest.parts[0].id_max) == (0, 19)
    assert (
        next(store.read_part(store.manifest.parts[0], 100))
        .attributes["id"]
        .combine_chunks()
        .equals(pa.array(ids, kind))
    )


@pytest.mark.parametrize(
    "ids",
    [
        [0.5 * n for n in range(ROWS)],
        [n % 2 == 0 for n in range(ROWS)],
        [datetime.datetime(2020, 1, 1 + n, tzinfo=datetime.UTC) for n in range(ROWS)],
        [[n] for n in range(ROWS)],
    ],
    ids=["floats", "booleans", "times", "lists"],
)
def test_ids_of_other_types_are_refused(ids, codec, tmp_path):
    with pytest.raises(DataError, match=r"rows\.parquet: `id` is of type .*, expected integers or strings"):
        encode(rows_with(tmp_path, id=ids), codec, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("ids", [[None, *range(1, ROWS)], ["a"] * (ROWS - 1) + [None]], ids=["integers", "strings"])
def test_rows_without_an_id_are_refused(ids, codec, tmp_path):
    first = ids.index(None)
    with pytest.raises(DataError, match=rf"rows\.parquet: row {first} \(the first one is 0\) .*have no id"):
        encode(rows_with(tmp_path, id=ids), codec, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.glob(".*")), "nothing of a refused data set is left"


def test_data_without_ids_gets_row_numbers(codec, tmp_path):
    for number in range(2):
        pixels = random_pixels((1500, 5, 4), "uint8", seed=number)
        write_rows(tmp_path / "data" / f"{number}.parquet", pixels, label=[number] * 1500)
    store = encode(tmp_path / "data", codec, tmp_path / "store")
    assert [(part.id_min, part.id_max) for part in store.manifest.parts] == [(0, 1499), (1500, 2999)]
    decoded = decode_store(store, tmp_path / "decoded", device="cpu").load()
    assert decoded.attributes["id"].to_pylist() == list(range(3000))
    assert decoded.attributes["label"].to_pylist() == [0] * 1500 + [1] * 1500


def test_rows_before_a_shard_without_ids_are_part_of_its_job(codec, tmp_path):
    jobs = []
    for rows in (5, 6):
        write_rows(tmp_path / str(rows) / "0.parquet", random_pixels((rows, 5, 4), "uint8"))
        write_rows(tmp_path / str(rows) / "1.parquet", random_pixels((9, 5, 4), "uint8"))
        jobs.append(encode(tmp_path / str(rows), codec, tmp_path / f"store-{rows}").manifest.parts[1])
    assert jobs[0].shard == jobs[1].shard
    assert jobs[0].job != jobs[1].job
    assert jobs[0].sha256 != jobs[1].sha256


ATTRIBUTES = {
    "name": pa.array(["ä", None, "", "x"] * 5),
    "seen": pa.array([datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None] * 10, pa.timestamp("us", tz="UTC")),
    "day": pa.array([datetime.date(1999, 12, 31)] * ROWS),
    "flag": pa.array([True, False, None, True] * 5),
    "score": pa.array([0.1, None, float("inf"), -0.0] * 5),
    "small": pa.array([0, 255] * 10, pa.uint8()),
    "kind": pa.array(["a", "b", None, "a"] * 5).dictionary_encode(),
    "tags": pa.array([["a"], [], None, ["b", None]] * 5),
    "box": pa.array([{"x": 1, "y": None}] * ROWS, pa.struct([("x", pa.int8()), ("y", pa.string())])),
    "raw": pa.array([b"\x00", b""] * 10),
    "nothing": pa.nulls(ROWS),
    "lists of nothing": pa.array([[None, None]] * ROWS, pa.list_(pa.null())),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attributes_keep_type_and_values(layout, codec, tmp_path):
    samples = rows_with(tmp_path, id=list(range(ROWS)), **ATTRIBUTES)
    store = encode(samples, codec, tmp_path / "store", layout=layout, row_group_rows=7)
    decoded = decode_store(store, tmp_path / "decoded", device="cpu").load()
    stored = pa.concat_tables(rows.attributes for rows in store.read_part(store.manifest.parts[0], 6))
    for attributes in (stored, decoded.attributes):
        assert attributes.column_names == ["id", *ATTRIBUTES]
        for name, values in ATTRIBUTES.items():
            assert attributes.schema.field(name).type == values.type
            assert attributes[name].to_pylist() == values.to_pylist()


def test_the_manifest_names_shards_without_their_folder(train, tiny_codec, tmp_path):
    store = encode(train, tiny_codec, tmp_path / "store")
    assert [part.shard.file for part in store.manifest.parts] == [Path(file).name for file in train.files]
    assert str(tmp_path) not in (store.path / "_manifest.json").read_text(encoding="utf-8")


def test_the_error_of_floats_whose_squares_do_not_fit_float32_is_finite(tmp_path):
    random_codec(tmp_path / "codec", dtype="float32")
    pixels = random_pixels((5, 5, 4), "float32")
    pixels[3, 2, 1] = 3e19
    samples = write_rows(tmp_path / "rows.parquet", pixels)
    store = encode(samples, tmp_path / "codec", tmp_path / "store")
    error = next(iter(store.rows())).error
    scale = store.codec_header().scaling.scale
    assert error[3] == pytest.approx((3e19 / scale) ** 2 / 20, rel=0.003)
    decoded = decode_store(store, tmp_path / "decoded", device="cpu")
    assert round_trip(samples, decoded, store)["worst_row_mse"] == pytest.approx(error[3], rel=0.003)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = evaluate_codec(tmp_path / "codec", samples, EncodeParams(device="cpu")).metrics
    json.dumps(metrics, allow_nan=False)


def test_rows_whose_error_no_float32_can_hold_are_refused(tmp_path):
    random_codec(tmp_path / "codec", dtype="float32")
    pixels = random_pixels((5, 5, 4), "float32")
    pixels[3] = 3e38
    samples = write_rows(tmp_path / "rows.parquet", pixels)
    with pytest.raises(DataError, match=r"rows.parquet: samples reach from 3e\+38 to 3e\+38, so far from the -2.* to "):
        encode(samples, tmp_path / "codec", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("ids", [[7, 5, 7, 9, 4], ["b", "a", "b", "c", "d"]])
def test_ids_that_pandas_wrote_as_categories_are_kept_as_what_they_stand_for(ids, tmp_path):
    random_codec(tmp_path / "codec")
    pixels = random_pixels((5, 5, 4), "uint8")
    plain = encode(write_rows(tmp_path / "a.parquet", pixels, id=ids), tmp_path / "codec", tmp_path / "plain")
    coded = write_rows(tmp_path / "b.parquet", pixels, id=pa.array(ids).dictionary_encode())
    store = encode(coded, tmp_path / "codec", tmp_path / "store")
    assert store.schema() == plain.schema()
    assert pa.concat_tables(store.scan()) == pa.concat_tables(plain.scan())


def test_work_left_beside_a_store_is_found(tmp_path):
    random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((5, 5, 4), "uint8"))
    (tmp_path / ".a[b].0123456789abcdef.partial").mkdir()
    (tmp_path / ".ab.0123456789abcdef.partial").mkdir()
    encode(samples, tmp_path / "codec", tmp_path / "a[b]")
    assert unfinished_work(tmp_path / "a[b]") == [tmp_path / ".a[b].0123456789abcdef.partial"]


def test_a_store_is_not_made_inside_another(tmp_path):
    random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((5, 5, 4), "uint8"))
    encode(samples, tmp_path / "codec", tmp_path / "store")
    before = bytes_of(tmp_path / "store")
    for inside in ("store/inner", "store/_codec/../deep/inner"):
        with pytest.raises(TargetError, match=r"lies inside the store .*/store; choose a target outside it"):
            encode(samples, tmp_path / "codec", tmp_path / inside)
    assert bytes_of(tmp_path / "store") == before


def test_row_groups_may_be_as_large_as_the_format_allows():
    assert EncodeParams(row_group_rows=MOST_ROW_GROUP_ROWS).row_group_rows == MOST_ROW_GROUP_ROWS
    with pytest.raises(ValidationError, match="less than or equal to"):
        EncodeParams(row_group_rows=MOST_ROW_GROUP_ROWS + 1)
