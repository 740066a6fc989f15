"""What does not fit a growing store is refused by name, and changes nothing."""

import shutil

import pytest
from grown import append, few, hidden
from handmade import bytes_of, random_codec, random_pixels, write_rows

from ae_pipeline.codec.header import read_header
from ae_pipeline.errors import CodecError, DataError, StoreError
from ae_pipeline.store.latent_store import LatentStore


def fails(store, error, message, call):
    before = bytes_of(store)
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert bytes_of(store) == before
    assert not hidden(store.parent)


@pytest.mark.parametrize("column", [{"label": [1] * 30}, {"score": [0.5] * 30, "label": [1] * 30}, {}], ids=str)
def test_other_columns_are_refused(column, codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path / "a", 1, score=[0.5] * 30)], codec)
    other = few(tmp_path / "b", 2, **column)
    wanted = r"batch-2\.parquet has the columns id: int64.*, expected id: int64, score: double as in .*store; "
    fails(tmp_path / "store", DataError, wanted, lambda: append(tmp_path / "store", [other], codec))


def test_sets_with_different_columns_make_no_store(codec, tmp_path):
    sets = [few(tmp_path, 1), few(tmp_path, 2, label=[1] * 30)]
    with pytest.raises(DataError, match=r"batch-2.* has the columns id: int64, label: int64, expected id: int64 as in"):
        append(tmp_path / "store", sets, codec)
    assert not (tmp_path / "store").exists()


def test_another_codec_is_refused(codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    random_codec(tmp_path / "other", seed=1)
    prints = [read_header(folder).fingerprint[:12] for folder in (tmp_path / "other", codec)]
    wanted = f"has fingerprint {prints[0]}.*was written with {prints[1]}"
    second = few(tmp_path, 2)
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
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    second = few(tmp_path, 2)
    fails(tmp_path / "store", DataError, message, lambda: append(tmp_path / "store", [second], codec, **options))


def test_samples_of_another_shape_are_refused(codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    other = write_rows(tmp_path / "other.parquet", random_pixels((9, 4, 4), "uint8"), id=list(range(9)))
    fails(tmp_path / "store", CodecError, "uint8 5x4.*uint8 4x4", lambda: append(tmp_path / "store", [other], codec))


def test_a_snapshot_that_is_not_there_is_named_with_those_that_are(codec, tmp_path):
    for number in (1, 2, 3):
        append(tmp_path / "store", [few(tmp_path, number)], codec)
    for wrong in (0, 4):
        with pytest.raises(StoreError, match=f"store has no snapshot {wrong}; it has 1, 2, 3: give one of them"):
            LatentStore.open(tmp_path / "store", wrong)
    kept = tmp_path / "store" / "_snapshots"
    shutil.copy(kept / "1.json", kept / "2.json")
    with pytest.raises(StoreError, match=r"2\.json is of snapshot 1, expected 2; put the right one back"):
        LatentStore.open(tmp_path / "store", 2)
    (kept / "1.json").write_text("{}")
    with pytest.raises(StoreError, match=r"1\.json was changed: its digest does not match"):
        LatentStore.open(tmp_path / "store", 1)
