"""Decoding: the store alone gives the rows back, and they are what the store says they are."""

import re
import shutil
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DataError, StoreError, TargetError
from ae_pipeline.evaluation.measures.row_errors import round_trip
from ae_pipeline.store import executors
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_rows, decode_store
from ae_pipeline.store.storage.folder import LocalStorage


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
        monkeypatch.setattr(executors, "cpu_count", lambda workers=workers: workers)
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
    with pytest.raises(DataError, match="539 original rows, but there are 540 decoded ones"):
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


# --- chosen rows ------------------------------------------------------------------------------------------------------


def rows_of(store, **chosen):
    blocks = list(decode_rows(store, device="cpu", **chosen))
    assert all(0 < len(block.pixels) <= BLOCK_ROWS for block in blocks)
    return pa.concat_tables([block.attributes for block in blocks]), np.concatenate([block.pixels for block in blocks])


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of two parts, 1300 and 900 rows, by model and dtype; floats show every bit of the sums."""
    made = {}
    for model_name, dtype in product(("dense", "conv", "patches"), ("uint8", "int16", "float32")):
        folder = tmp_path_factory.mktemp(f"{model_name}-{dtype}")
        random_codec(folder / "codec", (9, 7), dtype, model_name=model_name, hidden_size=33, latent_size=10, levels=256)
        pixels = random_pixels((2200, 9, 7), dtype)
        for part, rows in enumerate((slice(0, 1300), slice(1300, 2200))):
            ids = list(range(rows.start, rows.stop))
            write_rows(folder / "rows" / f"{part}.parquet", pixels[rows], id=ids, label=[n % 10 for n in ids])
        made[model_name, dtype] = encode(folder / "rows", folder / "codec", folder / "store", row_group_rows=300)
    return made


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("model_name", ["dense", "conv", "patches"])
def test_a_row_decoded_alone_is_the_row_decoded_with_all(model_name, dtype, stores, tmp_path):
    store = stores[model_name, dtype]
    whole = decode(store, tmp_path / "whole").load()
    for row in (0, 1, 299, 300, 1023, 1024, 1025, 1299, 1300, 1307, 2047, 2048, 2199):
        attributes, pixels = rows_of(store, ids=[row])
        assert attributes["id"].to_pylist() == [row]
        assert pixels.dtype == np.dtype(dtype)
        assert np.array_equal(pixels[0], whole.pixels[row]), row
    for chosen, rows in (({}, slice(None)), ({"filter": "label = 7"}, slice(7, None, 10))):
        attributes, pixels = rows_of(store, **chosen)
        assert np.array_equal(pixels, whole.pixels[rows])
        assert attributes.equals(whole.attributes.take(np.arange(2200)[rows]))


def test_columns_of_decoded_rows_are_attributes_with_the_id_first(store):
    attributes, pixels = rows_of(store, columns=["label"], filter="label = 1")
    assert attributes.column_names == ["id", "label"]
    assert set(attributes["label"].to_pylist()) == {1}
    assert len(pixels) == len(attributes)
    assert rows_of(store, columns=[])[0].column_names == ["id"]
    for wrong, words in (("lable", "no column 'lable'"), ("latent", "'latent' is no attribute")):
        with pytest.raises(ConfigError, match=words):
            next(decode_rows(store, columns=[wrong]))


def test_no_row_that_fits_gives_no_block(store):
    assert list(decode_rows(store, filter="label = 250", device="cpu")) == []


def test_what_is_not_decoded_is_not_read(store):
    reads = []

    class Noting(LocalStorage):
        def read_range(self, name, start, size):
            reads.append((name, size))
            return super().read_range(name, start, size)

    noted = LatentStore.open(Noting(store.path))
    last = noted.manifest.parts[-1]
    rows_of(noted, ids=[last.id_max], columns=[])
    footer = {part.name: int(part.pieces[-1].split(":")[0]) for part in noted.manifest.parts}
    first = noted.manifest.parts[0].name
    parts = [(name, size) for name, size in reads if name.startswith("part-")]
    assert {name for name, _ in parts} == {first, last.name}
    assert [size for name, size in parts if name == first] == [footer[first]]  # for the schema
    of_last = sum(size for name, size in parts if name == last.name)
    assert of_last < last.bytes - 100  # without errors and labels
    assert not [name for name, _ in reads if name == noted.manifest.parts[1].name]


def test_a_damaged_part_can_be_left_out(store, train, tmp_path):
    parts = store.manifest.parts
    whole = decode(store, tmp_path / "whole").load()
    flip_bit(store.path / parts[1].name, 100)
    told = []
    decoded = decode(store, tmp_path / "rest", on_damaged=lambda part, error: told.append((part, str(error))))
    assert [part for part, _ in told] == [parts[1]]
    assert parts[1].name in told[0][1]
    assert [file.name for file in decoded.files] == ["part-00000.parquet", "part-00002.parquet"]
    left = np.r_[0 : parts[0].rows, parts[0].rows + parts[1].rows : whole.pixels.shape[0]]
    assert np.array_equal(decoded.load().pixels, whole.pixels[left])
    attributes, pixels = rows_of(store, on_damaged=lambda part, error: told.append((part, str(error))))
    assert [part for part, _ in told] == [parts[1]] * 2
    assert np.array_equal(pixels, whole.pixels[left])
    assert attributes.equals(whole.attributes.take(left))


def test_a_store_without_a_readable_part_is_an_error_even_if_damage_is_left_out(store, tmp_path):
    for part in store.manifest.parts:
        (store.path / part.name).write_bytes(b"x" * part.bytes)
    with pytest.raises(StoreError, match="damaged"):
        decode(store, tmp_path / "rest", on_damaged=lambda part, error: None)
    assert [item.name for item in tmp_path.iterdir()] == ["store"]
