"""Stores that grow: one append is one snapshot, no shard is in it twice, and a killed run leaves it whole."""

import fcntl
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from handmade import bytes_of, random_codec, random_pixels, write_rows

from ae_pipeline.appending import append_samples
from ae_pipeline.codec import Codec
from ae_pipeline.codec_header import read_header
from ae_pipeline.decoding import decode_store
from ae_pipeline.errors import CodecError, DataError, StoreError, TargetError
from ae_pipeline.files import locked_folder, sha256_json
from ae_pipeline.latent_store import LatentStore
from ae_pipeline.manifest import MANIFEST_NAME, read_manifest, write_manifest
from ae_pipeline.params import EncodeParams
from ae_pipeline.samples import SampleSet


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """The folder of an untrained codec for uint8 5x4."""
    folder = tmp_path_factory.mktemp("appending") / "codec"
    random_codec(folder)
    return folder


def batch(folder, number, rows=30, ids=True, **columns):
    """One data set of rows that no other number has."""
    ids = {"id": list(range(100 * number, 100 * number + rows))} if ids else {}
    pixels = random_pixels((rows, 5, 4), "uint8", seed=number)
    return write_rows(folder / f"batch-{number}.parquet", pixels, **ids, **columns)


def append(store, sets, codec, *, layout="list", row_group_rows=10_000, **options):
    params = EncodeParams(layout=layout, row_group_rows=row_group_rows, device="cpu")
    return append_samples(store, sets, codec, params, name="growing", git={}, **options)


def ids_of(store):
    return [
        name
        for part in store.manifest.parts
        for rows in store.read_part(part, 1000)
        for name in rows.attributes["id"].to_pylist()
    ]


def hidden(folder):
    return sorted(item.name for item in folder.rglob("*") if item.name.startswith("."))


def test_every_append_is_a_snapshot_and_earlier_ones_stay_readable(codec, tmp_path):
    store = tmp_path / "store"
    written = []
    for number in (1, 2, 3):
        written += range(100 * number, 100 * number + 30)
        appended = append(store, [batch(tmp_path / "data", number)], codec)
        assert (len(appended.parts), appended.skipped) == (1, 0)
        assert ids_of(appended.store) == ids_of(LatentStore.open(store)) == written
    manifest = read_manifest(store)
    assert (manifest.snapshot, manifest.parent) == (3, 2)
    assert [part.name[:10] for part in manifest.parts] == ["part-00000", "part-00001", "part-00002"]
    assert manifest.source.digest == sha256_json([part.shard.digest for part in manifest.parts])
    assert (manifest.source.rows, manifest.totals.rows, manifest.totals.bytes_in) == (90, 90, 90 * 20)
    assert manifest.totals.bytes_parts == sum(file.stat().st_size for file in store.glob("part-*"))
    for number in (1, 2, 3):
        earlier = LatentStore.open(store, number)
        assert earlier.manifest.snapshot == number
        assert ids_of(earlier) == written[: 30 * number]
        assert earlier.nbytes < LatentStore.open(store).nbytes or number == 3
    assert not hidden(tmp_path)


def test_the_rows_are_what_the_codec_makes_of_them(codec, tmp_path):
    first, second = (batch(tmp_path, number) for number in (1, 2))
    append(tmp_path / "store", [first], codec)
    store = append(tmp_path / "store", [second], codec).store
    pixels = np.concatenate([samples.load().pixels for samples in (first, second)])
    expected = Codec.load(codec).decode(Codec.load(codec).encode(pixels))
    assert np.array_equal(decode_store(store, tmp_path / "decoded", device="cpu").load().pixels, expected)


def test_all_sets_of_one_call_are_one_snapshot(codec, tmp_path):
    store = append(tmp_path / "store", [batch(tmp_path, number) for number in (1, 2)], codec).store
    assert (store.manifest.snapshot, len(store.manifest.parts)) == (1, 2)
    store = append(tmp_path / "store", [batch(tmp_path, number) for number in (3, 4, 5)], codec).store
    assert (store.manifest.snapshot, len(store.manifest.parts)) == (2, 5)


def test_a_shard_that_the_store_has_adds_nothing(codec, tmp_path):
    first, second = (batch(tmp_path / "data", number) for number in (1, 2))
    append(tmp_path / "store", [first], codec)
    shutil.copy(first.files[0], tmp_path / "another-name.parquet")
    same = SampleSet.open(tmp_path / "another-name.parquet")
    before = bytes_of(tmp_path / "store")
    appended = append(tmp_path / "store", [first, same], codec)
    assert (appended.parts, appended.skipped, appended.store.manifest.snapshot) == ([], 2, 1)
    assert bytes_of(tmp_path / "store") == before
    appended = append(tmp_path / "store", [same, second, second], codec)
    assert (len(appended.parts), appended.skipped, appended.store.manifest.snapshot) == (1, 2, 2)


def test_a_shard_that_is_named_twice_is_in_the_first_snapshot_once(codec, tmp_path):
    first = batch(tmp_path, 1)
    appended = append(tmp_path / "store", [first, first], codec)
    assert (len(appended.parts), appended.skipped) == (1, 1)
    assert appended.store.manifest.source.rows == 30


def test_row_numbers_go_on_after_the_rows_of_the_store(codec, tmp_path):
    sets = [batch(tmp_path, number, rows=1500, ids=False) for number in (1, 2, 3)]
    append(tmp_path / "store", sets[:1], codec)
    store = append(tmp_path / "store", sets, codec).store
    assert ids_of(store) == list(range(4500))
    assert [(part.id_min, part.id_max) for part in store.manifest.parts] == [(0, 1499), (1500, 2999), (3000, 4499)]


def test_nothing_to_make_a_store_of_is_an_error(codec, tmp_path):
    with pytest.raises(DataError, match=r"no data set to make .* of; give at least one"):
        append(tmp_path / "store", [], codec)
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    assert append(tmp_path / "store", [], codec).parts == []


# What does not fit is refused by name, and changes nothing.


def fails(store, error, message, call):
    before = bytes_of(store)
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert bytes_of(store) == before
    assert not hidden(store.parent)


@pytest.mark.parametrize("column", [{"label": [1] * 30}, {"score": [0.5] * 30, "label": [1] * 30}, {}], ids=str)
def test_other_columns_are_refused(column, codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path / "a", 1, score=[0.5] * 30)], codec)
    other = batch(tmp_path / "b", 2, **column)
    wanted = r"batch-2\.parquet has the columns id: int64.*, expected id: int64, score: double as in .*store; "
    fails(tmp_path / "store", DataError, wanted, lambda: append(tmp_path / "store", [other], codec))


def test_sets_with_different_columns_make_no_store(codec, tmp_path):
    sets = [batch(tmp_path, 1), batch(tmp_path, 2, label=[1] * 30)]
    with pytest.raises(DataError, match=r"batch-2.* has the columns id: int64, label: int64, expected id: int64 as in"):
        append(tmp_path / "store", sets, codec)
    assert not (tmp_path / "store").exists()


def test_lists_and_dictionaries_are_the_same_columns_again(codec, tmp_path):
    # Their Arrow types are spelled differently before and after they were in Parquet.
    columns = {"tags": pa.array([["a"]] * 30), "kind": pa.array(["x", "y"] * 15).dictionary_encode()}
    for number in (1, 2):
        store = append(tmp_path / "store", [batch(tmp_path, number, **columns)], codec).store
    assert store.manifest.snapshot == 2


def test_another_codec_is_refused(codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    random_codec(tmp_path / "other", seed=1)
    prints = [read_header(folder).fingerprint[:12] for folder in (tmp_path / "other", codec)]
    wanted = f"has fingerprint {prints[0]}.*was written with {prints[1]}"
    second = batch(tmp_path, 2)
    fails(tmp_path / "store", CodecError, wanted, lambda: append(tmp_path / "store", [second], tmp_path / "other"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "binary"}, "encode.layout is binary, but .*store has list"),
        ({"row_group_rows": 7}, "encode.row_group_rows is 7, but .*store has 10000"),
    ],
    ids=["layout", "row groups"],
)
def test_another_layout_is_refused(options, message, codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    second = batch(tmp_path, 2)
    fails(tmp_path / "store", DataError, message, lambda: append(tmp_path / "store", [second], codec, **options))


def test_samples_of_another_shape_are_refused(codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    other = write_rows(tmp_path / "other.parquet", random_pixels((9, 4, 4), "uint8"), id=list(range(9)))
    fails(tmp_path / "store", CodecError, "uint8 5x4.*uint8 4x4", lambda: append(tmp_path / "store", [other], codec))


def test_a_snapshot_that_is_not_there_is_named_with_those_that_are(codec, tmp_path):
    for number in (1, 2, 3):
        append(tmp_path / "store", [batch(tmp_path, number)], codec)
    for wrong in (0, 4):
        with pytest.raises(StoreError, match=f"store has no snapshot {wrong}; it has 1, 2, 3: give one of them"):
            LatentStore.open(tmp_path / "store", wrong)
    kept = tmp_path / "store" / "_snapshots"
    shutil.copy(kept / "1.json", kept / "2.json")
    with pytest.raises(StoreError, match=r"2\.json is of snapshot 1, expected 2; restore the store"):
        LatentStore.open(tmp_path / "store", 2)
    (kept / "1.json").write_text("{}")
    with pytest.raises(StoreError, match=r"1\.json has format None"):
        LatentStore.open(tmp_path / "store", 1)


# Two writers.


def test_of_two_writers_one_is_told_and_changes_nothing(codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    second, third = batch(tmp_path, 2), batch(tmp_path, 3)

    def append_another(rows):
        before = bytes_of(tmp_path / "store")
        with pytest.raises(TargetError, match="another run is writing"):
            append(tmp_path / "store", [third], codec)
        assert bytes_of(tmp_path / "store") == before

    store = append(tmp_path / "store", [second], codec, progress=append_another).store
    assert ids_of(store) == [*range(100, 130), *range(200, 230)]


def test_of_two_that_make_the_store_one_is_told(codec, tmp_path):
    first, second = batch(tmp_path, 1), batch(tmp_path, 2)

    def append_another(rows):
        with pytest.raises(TargetError, match="another run is writing"):
            append(tmp_path / "store", [second], codec)

    assert ids_of(append(tmp_path / "store", [first], codec, progress=append_another).store) == list(range(100, 130))


def test_a_store_that_was_changed_in_spite_of_the_lock_is_not_overwritten(codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    theirs = read_manifest(tmp_path / "store").model_copy(update={"written_by": {"by": "somebody else"}})

    def change(rows):
        write_manifest(tmp_path / "store", theirs)

    with pytest.raises(TargetError, match="was changed while new rows were being encoded; append again"):
        append(tmp_path / "store", [batch(tmp_path, 2)], codec, progress=change)
    assert read_manifest(tmp_path / "store") == theirs
    assert len(list((tmp_path / "store").glob("part-*"))) == 1


def test_a_lock_on_a_folder_that_lost_its_name_does_not_count(tmp_path, monkeypatch):
    real = fcntl.flock

    def renamed_before_it_is_locked(descriptor, operation):
        (tmp_path / "folder").rename(tmp_path / "other")
        (tmp_path / "folder").mkdir()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", renamed_before_it_is_locked)
    with pytest.raises(TargetError, match="another run is writing"), locked_folder(tmp_path / "folder"):
        pass


# Cut off (at every step: test_faults.py).


def test_parts_of_an_interrupted_append_are_taken_if_they_are_whole(codec, tmp_path):
    class Cut(Exception):  # noqa: N818 (no error of the package)
        """Stands for whatever stops a run."""

    def cut(rows):
        raise Cut

    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    sets = [batch(tmp_path, number) for number in (2, 3)]
    with pytest.raises(Cut):
        append(tmp_path / "store", sets, codec, progress=cut)
    (work,) = tmp_path.glob(".store.*.partial")
    part = min(work.glob("part-*"))
    stamp = part.stat().st_ino
    # One of them as a crash between renaming and committing leaves it, and two that nobody can use.
    part.rename(tmp_path / "store" / part.name)
    (tmp_path / "store" / "part-00001-0123456789abcdef.parquet").write_bytes(b"another append's")
    (tmp_path / "store" / "._manifest.json.77.tmp").write_bytes(b"half")
    # Another file came meanwhile: what is there is used all the same.
    store = append(tmp_path / "store", [*sets, batch(tmp_path, 4)], codec).store
    assert (store.path / part.name).stat().st_ino == stamp
    assert len(ids_of(store)) == 120
    assert {file.name for file in store.path.glob("*part*")} == {part.name for part in store.manifest.parts}
    assert not hidden(tmp_path)


def test_a_damaged_part_in_the_stores_folder_is_never_trusted(codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    second = batch(tmp_path, 2)
    (part,) = append(tmp_path / "copy", [second], codec).parts
    (tmp_path / "store" / part.name).write_bytes((tmp_path / "copy" / part.name).read_bytes()[:-50])
    assert append(tmp_path / "store", [second], codec).parts == [part]
    assert bytes_of(tmp_path / "store") == bytes_of(tmp_path / "copy")


def test_leftovers_go_even_when_there_is_nothing_new(codec, tmp_path):
    first = batch(tmp_path, 1)
    append(tmp_path / "store", [first], codec)
    before = bytes_of(tmp_path / "store")
    (tmp_path / "store" / "part-00001-0123456789abcdef.parquet").write_bytes(b"another append's")
    append(tmp_path / "store", [first], codec)
    assert bytes_of(tmp_path / "store") == before


def test_the_manifest_of_a_snapshot_is_kept_byte_for_byte(codec, tmp_path):
    append(tmp_path / "store", [batch(tmp_path, 1)], codec)
    first = (tmp_path / "store" / MANIFEST_NAME).read_bytes()
    append(tmp_path / "store", [batch(tmp_path, 2)], codec)
    assert (tmp_path / "store" / "_snapshots" / "1.json").read_bytes() == first
    assert re.match(r"\{\n  \"format\": 2", json.dumps(json.loads(first), indent=2))
