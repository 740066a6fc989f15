"""Stores that grow: one append is one snapshot, and no shard is in it twice."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from grown import append, few, hidden, read_ids
from handmade import bytes_of

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError
from ae_pipeline.files import sha256_json
from ae_pipeline.store.format.manifest import MANIFEST_NAME, read_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store


def test_every_append_is_a_snapshot_and_earlier_ones_stay_readable(codec, tmp_path):
    store = tmp_path / "store"
    written = []
    for number in (1, 2, 3):
        written += range(100 * number, 100 * number + 30)
        appended = append(store, [few(tmp_path / "data", number)], codec)
        assert (len(appended.parts), appended.skipped) == (1, 0)
        assert read_ids(appended.store) == read_ids(LatentStore.open(store)) == written
    manifest = read_manifest(store)
    assert (manifest.snapshot, manifest.parent) == (3, 2)
    assert [part.name[:10] for part in manifest.parts] == ["part-00000", "part-00001", "part-00002"]
    assert manifest.source.digest == sha256_json([part.shard.digest for part in manifest.parts])
    assert (manifest.source.rows, manifest.totals.rows, manifest.totals.bytes_in) == (90, 90, 90 * 20)
    assert manifest.totals.bytes_parts == sum(file.stat().st_size for file in store.glob("part-*"))
    for number in (1, 2, 3):
        earlier = LatentStore.open(store, number)
        assert earlier.manifest.snapshot == number
        assert read_ids(earlier) == written[: 30 * number]
        assert earlier.nbytes < LatentStore.open(store).nbytes or number == 3
    assert not hidden(tmp_path)


def test_the_rows_are_what_the_codec_makes_of_them(codec, tmp_path):
    first, second = (few(tmp_path, number) for number in (1, 2))
    append(tmp_path / "store", [first], codec)
    store = append(tmp_path / "store", [second], codec).store
    pixels = np.concatenate([samples.load().pixels for samples in (first, second)])
    expected = Codec.load(codec).decode(Codec.load(codec).encode(pixels))
    assert np.array_equal(decode_store(store, tmp_path / "decoded", device="cpu").load().pixels, expected)


def test_all_sets_of_one_call_are_one_snapshot(codec, tmp_path):
    store = append(tmp_path / "store", [few(tmp_path, number) for number in (1, 2)], codec).store
    assert (store.manifest.snapshot, len(store.manifest.parts)) == (1, 2)
    store = append(tmp_path / "store", [few(tmp_path, number) for number in (3, 4, 5)], codec).store
    assert (store.manifest.snapshot, len(store.manifest.parts)) == (2, 5)


def test_a_shard_that_the_store_has_adds_nothing(codec, tmp_path):
    first, second = (few(tmp_path / "data", number) for number in (1, 2))
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
    first = few(tmp_path, 1)
    appended = append(tmp_path / "store", [first, first], codec)
    assert (len(appended.parts), appended.skipped) == (1, 1)
    assert appended.store.manifest.source.rows == 30


def test_row_numbers_go_on_after_the_rows_of_the_store(codec, tmp_path):
    sets = [few(tmp_path, number, rows=1500, id=None) for number in (1, 2, 3)]
    append(tmp_path / "store", sets[:1], codec)
    store = append(tmp_path / "store", sets, codec).store
    assert read_ids(store) == list(range(4500))
    assert [(part.id_min, part.id_max) for part in store.manifest.parts] == [(0, 1499), (1500, 2999), (3000, 4499)]


def test_nothing_to_make_a_store_of_is_an_error(codec, tmp_path):
    with pytest.raises(DataError, match=r"no data set to make .* of; give at least one"):
        append(tmp_path / "store", [], codec)
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    assert append(tmp_path / "store", [], codec).parts == []


def test_lists_and_dictionaries_are_the_same_columns_again(codec, tmp_path):
    # Their Arrow types are spelled differently before and after they were in Parquet.
    columns = {"tags": pa.array([["a"]] * 30), "kind": pa.array(["x", "y"] * 15).dictionary_encode()}
    for number in (1, 2):
        store = append(tmp_path / "store", [few(tmp_path, number, **columns)], codec).store
    assert store.manifest.snapshot == 2


def test_the_manifest_of_a_snapshot_is_kept_byte_for_byte(codec, tmp_path):
    append(tmp_path / "store", [few(tmp_path, 1)], codec)
    first = (tmp_path / "store" / MANIFEST_NAME).read_bytes()
    append(tmp_path / "store", [few(tmp_path, 2)], codec)
    assert (tmp_path / "store" / "_snapshots" / "1.json").read_bytes() == first
    assert re.match(r"\{\n  \"format\": 2", json.dumps(json.loads(first), indent=2))
