"""Decoding: the store alone gives the rows back, and they are what the store says they are."""

import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows

from ae_pipeline import decoding
from ae_pipeline.codec import Codec
from ae_pipeline.comparison import round_trip
from ae_pipeline.decoding import decode_store
from ae_pipeline.errors import DataError, StoreError, TargetError
from ae_pipeline.latent_store import LatentStore
from ae_pipeline.layouts import LAYOUTS
from ae_pipeline.samples import SampleSet


@pytest.fixture
def train(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "train")


@pytest.fixture
def store(train, tiny_codec, tmp_path):
    return encode(train, tiny_codec, tmp_path / "store")


def decode(store, out, **more):
    return decode_store(store, out, device="cpu", **more)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_store_alone_gives_the_rows_back(layout, synthetic_prepared, tiny_codec, tmp_path):
    codec, data = tmp_path / "codec", tmp_path / "data"
    shutil.copytree(tiny_codec, codec)
    shutil.copytree(synthetic_prepared / "train", data)
    original, expected = SampleSet.open(data).load(), Codec.load(codec)
    expected = expected.decode(expected.encode(original.pixels))
    encode(data, codec, tmp_path / "store", layout=layout)
    shutil.rmtree(codec)
    shutil.rmtree(data)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    decoded = decode(LatentStore.open(tmp_path / "elsewhere"), tmp_path / "decoded").load()
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.attributes.equals(original.attributes)
    assert decoded.attributes.column_names == ["id", "label"]


def test_decoded_rows_are_closer_to_their_own_originals_than_to_others(store, train, tmp_path):
    original = train.load().pixels / 255.0
    decoded = decode(store, tmp_path / "decoded").load().pixels / 255.0
    own, other = ((decoded - rows) ** 2 for rows in (original, np.roll(original, 1, axis=0)))
    assert own.mean() < 0.8 * other.mean()


def test_every_part_becomes_one_shard_in_the_canonical_layout(store, train, tmp_path):
    decoded = decode(store, tmp_path / "decoded")
    assert [file.name for file in decoded.files] == [f"part-{number:05d}.parquet" for number in range(3)]
    assert [shard.rows for shard in decoded.shards] == [part.rows for part in store.manifest.parts]
    assert decoded.spec == train.spec


def test_decoded_bytes_do_not_depend_on_the_number_of_workers(store, tmp_path, monkeypatch):
    for workers in (1, 2, 5):
        monkeypatch.setattr(decoding, "cpu_count", lambda workers=workers: workers)
        decode(store, tmp_path / str(workers))
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2") == bytes_of(tmp_path / "5")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_the_error_column_is_the_error_of_the_decoded_rows(dtype, tmp_path):
    codec = random_codec(tmp_path / "codec", dtype=dtype)
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((1100, 5, 4), dtype, seed=1), id=list(range(1100)))
    store = encode(samples, tmp_path / "codec", tmp_path / "store")
    original, decoded = samples.load().pixels, decode(store, tmp_path / "decoded").load().pixels
    difference = (decoded.astype(np.float64) - original) / codec.header.scaling.scale
    stored = np.concatenate([rows.error for rows in store.read_part(store.manifest.parts[0], 100)])
    assert stored == pytest.approx((difference**2).mean(axis=(1, 2)), rel=0.00201)
    assert round_trip(samples, SampleSet.open(tmp_path / "decoded"), store)["error_column_deviation"] < 0.00201


def test_floats_far_from_zero_make_the_round_trip(tmp_path):
    pixels = 10_000 + random_pixels((300, 5, 4), "float32")
    random_codec(tmp_path / "codec", dtype="float32")
    samples = write_rows(tmp_path / "rows.parquet", pixels, id=list(range(300)))
    store = encode(samples, tmp_path / "codec", tmp_path / "store")
    report = round_trip(samples, decode(store, tmp_path / "decoded"), store)
    assert report["error_column_deviation"] < 0.00201
    assert report["mse"] > 1e5


def test_a_round_trip_reports_what_was_lost(store, train, tmp_path):
    decoded = decode(store, tmp_path / "decoded")
    report = round_trip(train, decoded, store)
    row_mse = ((train.load().pixels / 255.0 - decoded.load().pixels / 255.0) ** 2).mean(axis=(1, 2))
    assert report["rows"] == 540
    assert report["mse"] == pytest.approx(row_mse.mean(), rel=1e-6)
    assert report["worst_row_mse"] == pytest.approx(row_mse.max(), rel=1e-5)
    assert report["psnr"] == pytest.approx(-10 * np.log10(row_mse.mean()))
    assert 0 < report["error_column_deviation"] < 0.00201


def test_a_store_made_of_other_data_fails_the_round_trip(store, train, tmp_path):
    decoded = decode(store, tmp_path / "decoded")
    block = train.load()
    pixels = block.pixels.copy()
    pixels[300] = pixels[301]
    other = write_rows(tmp_path / "other.parquet", pixels, id=block.attributes["id"].combine_chunks())
    with pytest.raises(StoreError, match="was not made from this data, or is damaged"):
        round_trip(other, decoded, store)


def test_rows_of_another_decoding_fail_the_round_trip(store, train, tmp_path):
    decoded = decode(store, tmp_path / "decoded").load()
    ids = decoded.attributes["id"].combine_chunks()
    other = write_rows(tmp_path / "other.parquet", decoded.pixels[::-1], id=ids)
    with pytest.raises(StoreError, match="differs by"):
        round_trip(train, other, store)


def test_a_round_trip_compares_rows_of_the_same_ids_only(store, train, tmp_path):
    decoded = decode(store, tmp_path / "decoded")
    block = train.load()
    ids = block.attributes["id"].combine_chunks()
    swapped = pa.concat_arrays([ids.slice(1, 1), ids.slice(0, 1), ids.slice(2)])
    with pytest.raises(DataError, match="ids differ between original and decoded in rows 0 to"):
        round_trip(write_rows(tmp_path / "swapped.parquet", block.pixels, id=swapped), decoded, store)
    with pytest.raises(DataError, match="539 original rows, but 540 decoded ones"):
        round_trip(write_rows(tmp_path / "short.parquet", block.pixels[1:], id=ids.slice(1)), decoded, store)


def test_an_interrupted_decoding_leaves_nothing(store, tmp_path):
    def interrupt(rows):
        raise KeyboardInterrupt

    before = bytes_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        decode(store, tmp_path / "decoded", progress=interrupt)
    assert bytes_of(tmp_path) == before
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_a_damaged_part_is_named_and_nothing_is_written(store, tmp_path):
    part = store.path / store.manifest.parts[2].name
    flip_bit(part, 100)
    with pytest.raises(StoreError, match=re.escape(str(part))):
        decode(store, tmp_path / "decoded")
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_the_codec_of_another_store_is_refused_and_nothing_is_written(store, tmp_path):
    shutil.rmtree(store.codec_path)
    random_codec(store.codec_path, (12, 12), latent_size=6)
    with pytest.raises(StoreError, match="but the store was written with"):
        decode(store, tmp_path / "decoded")
    assert [item.name for item in tmp_path.iterdir()] == ["store"]


def test_a_target_that_exists_is_refused_and_left_alone(store, tmp_path):
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "mine").write_bytes(b"mine")
    with pytest.raises(TargetError, match="decoded exists already"):
        decode(store, tmp_path / "decoded")
    assert bytes_of(tmp_path / "decoded") == {"mine": b"mine"}


def test_progress_counts_every_row_once(store, tmp_path):
    seen = []
    decode(store, tmp_path / "decoded", progress=seen.append)
    assert sorted(seen) == [140, 200, 200]
