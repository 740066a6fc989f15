"""The inbox: what is new is encoded once; what is not ready waits."""

import json
import shutil

import numpy as np
import pytest
from handmade import random_codec, random_pixels
from inboxes import put, reasons, run, settle, store_of, stored

from ae_pipeline.data.idx import write_idx
from ae_pipeline.errors import StoreError
from ae_pipeline.store.latent_store import LatentStore


def test_three_batches_with_one_bad_file(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    put(box / "sub" / "b.parquet", 2)
    first = run(tmp_path, codec)
    store = store_of(tmp_path, codec)
    assert (first.store, first.snapshot, first.files, first.rows) == (str(store), 1, ["a.parquet", "sub/b.parquet"], 60)
    put(box / "c.parquet", 3)
    (box / "d.parquet").write_bytes((box / "c.parquet").read_bytes()[:-100])
    put(box / "e.parquet", 4)
    settle(box)
    second = run(tmp_path, codec)
    assert (second.snapshot, second.files, second.known) == (2, ["c.parquet", "e.parquet"], 2)
    assert list(second.quarantined) == ["d.parquet"]
    assert second.quarantined["d.parquet"].startswith("d.parquet is not a readable Parquet file: ")
    assert reasons(tmp_path) == second.quarantined
    assert sorted(file.name for file in box.iterdir()) == ["a.parquet", "c.parquet", "e.parquet", "sub"]
    assert (tmp_path / "data" / "quarantine" / "d.parquet").exists()
    put(box / "f.parquet", 5, rows=7)
    third = run(tmp_path, codec)
    assert (third.snapshot, third.rows, third.bytes_in, third.quarantined) == (3, 7, 140, {})
    assert stored(store)["id"].to_pylist() == [n for k in (1, 2, 3, 4) for n in range(100 * k, 100 * k + 30)] + [
        *range(500, 507)
    ]
    assert [LatentStore.open(store, number).manifest.totals.rows for number in (1, 2, 3)] == [60, 120, 127]
    again = run(tmp_path, codec)
    assert (again.snapshot, again.files, again.rows, again.mean_error, again.known) == (3, [], 0, None, 5)


@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
def test_an_empty_inbox_is_no_mistake(there, codec, tmp_path):
    if there:
        (tmp_path / "data" / "inbox").mkdir(parents=True)
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.quarantined, done.rows) == (None, [], {}, 0)
    assert not store_of(tmp_path, codec).exists()


def test_the_same_content_under_another_name_adds_nothing(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    shutil.copy2(box / "a.parquet", box / "copy.parquet")
    assert run(tmp_path, codec).files == ["a.parquet"]
    shutil.copy2(box / "a.parquet", box / "0.parquet")
    (box / "a.parquet").unlink()
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.known, done.quarantined) == (1, [], 2, {})


def test_new_content_under_the_same_name_is_new(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    put(box / "a.parquet", 2)
    assert run(tmp_path, codec).files == ["a.parquet"]
    assert stored(store_of(tmp_path, codec)).num_rows == 60


@pytest.mark.parametrize("how", ["deleted", "damaged", "of another inbox"])
def test_the_ledger_is_only_a_cache(how, codec, box, tmp_path):
    put(box / "a.parquet", 1)
    put(box / "b.parquet", 1, rows=9)
    write_idx(box / "c-images-idx3-ubyte", random_pixels((9, 5, 4), "uint8", seed=3))
    settle(box)
    first = run(tmp_path, codec)
    ledger = tmp_path / "data" / "growing" / ".inbox" / "ledger.json"
    assert set(json.loads(ledger.read_text())["files"]) >= set(first.files)
    if how == "deleted":
        ledger.unlink()
    elif how == "damaged":
        ledger.write_text('{"location": "data/inbox", "files": {"a.parquet": 7, "b.parquet": []}}')
    else:
        ledger.write_text(ledger.read_text().replace("data/inbox", "elsewhere"))
    done = run(tmp_path, codec)
    assert (done.snapshot, done.files, done.known) == (1, [], 2)


def test_files_encoded_under_an_earlier_champion_are_not_encoded_again(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    random_codec(tmp_path / "next", seed=1)
    put(box / "b.parquet", 2)
    done = run(tmp_path, tmp_path / "next")
    assert (done.snapshot, done.files, done.known) == (1, ["b.parquet"], 1)
    assert done.store == str(store_of(tmp_path, tmp_path / "next")) != str(store_of(tmp_path, codec))


def test_a_damaged_store_stops_the_run_before_anything_is_encoded_twice(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    run(tmp_path, codec)
    (store_of(tmp_path, codec) / "_manifest.json").write_text("{")
    random_codec(tmp_path / "next", seed=1)
    with pytest.raises(StoreError, match="not readable JSON"):
        run(tmp_path, tmp_path / "next")


# Files that are not ready.


@pytest.mark.parametrize("name", [".a.parquet", "_a.parquet", "a.parquet.tmp", "a.parquet.part", "a.png.crdownload"])
def test_hidden_and_unfinished_files_are_left_alone(name, codec, box, tmp_path):
    put(box / "good.parquet", 1)
    for file in (box / name, box / "_hidden" / "a.parquet", box / ".hidden" / "a.parquet"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, done.quarantined, done.waiting) == (["good.parquet"], {}, 0)
    assert (box / name).exists()


def test_a_file_that_is_still_being_written_waits(codec, box, tmp_path):
    put(box / "a.parquet", 1)
    (box / "b.parquet").write_bytes((box / "a.parquet").read_bytes()[:50])
    done = run(tmp_path, codec)
    assert (done.files, done.waiting, done.quarantined) == (["a.parquet"], 1, {})
    put(box / "b.parquet", 2)
    assert run(tmp_path, codec).files == ["b.parquet"]


def test_images_wait_for_labels_that_are_still_being_written(codec, box, tmp_path):
    write_idx(box / "x-images-idx3-ubyte", random_pixels((6, 5, 4), "uint8"))
    settle(box)
    write_idx(box / "x-labels-idx1-ubyte", np.arange(6))
    assert run(tmp_path, codec).waiting == 1
    settle(box)
    assert run(tmp_path, codec).files == ["x-images-idx3-ubyte"]
    assert stored(store_of(tmp_path, codec))["label"].to_pylist() == list(range(6))
