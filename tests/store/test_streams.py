"""Stores of context codecs: all that holds for others, and a bound for every value."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from contexts import pictures, random_context_codec
from handmade import encode, flip_bit, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import WEIGHTS_NAME, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, ConfigError, DamagedPartError, DataError
from ae_pipeline.params import EncodeParams, Params
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_rows, decode_store
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.outlook import check_fits, look_ahead

SIDES = (12, 12)
STREAM = {"layout": "stream", "row_group_rows": 50}


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.parquet", pictures(120, SIDES), id=list(range(120)), label=[1, 2, 3] * 40)


@pytest.fixture(params=[0, 5])
def bound(request):
    return request.param


@pytest.fixture
def store(rows, bound, tmp_path):
    random_context_codec(tmp_path / "codec", SIDES, bound)
    return encode(rows, tmp_path / "codec", tmp_path / "store", **STREAM)


def test_every_value_comes_back_within_the_bound_from_the_store_alone(store, rows, bound, tmp_path):
    (tmp_path / "codec" / WEIGHTS_NAME).unlink()
    decoded = decode_store(LatentStore.open(store.path), tmp_path / "decoded", device="cpu").load()
    original = rows.load()
    distance = np.abs(decoded.pixels.astype(int) - original.pixels)
    assert distance.max() == bound if bound else (decoded.pixels == original.pixels).all()
    assert decoded.attributes.equals(original.attributes)
    errors = np.concatenate([block.error for part in store.manifest.parts for block in store.read_part(part, 64)])
    np.testing.assert_allclose(errors, np.square(distance / 255).mean((1, 2)), rtol=0.005)
    assert read_header(store.codec_path).max_error == bound
    assert verify_store(store.path).whole


def test_one_row_is_the_row_among_all(store, rows, tmp_path):
    decoded = decode_store(store, tmp_path / "decoded", device="cpu").load().pixels
    for number in (0, 49, 50, 119):
        (block,) = decode_rows(store, ids=[number], device="cpu")
        assert (block.pixels[0] == decoded[number]).all()
    found = list(decode_rows(store, filter="label = 2", device="cpu"))
    assert (np.concatenate([block.pixels for block in found]) == decoded[1::3]).all()


def test_an_append_and_a_repair_make_the_same_streams(store, rows, tmp_path):
    more = write_rows(tmp_path / "more.parquet", pictures(30, SIDES, 9), id=list(range(500, 530)), label=[4] * 30)
    settings = EncodeParams(**STREAM, device="cpu")
    append_samples(store.path, [more], store.codec_path, settings, name="more", git={})
    assert verify_store(store.path).whole
    part = sorted(store.path.glob("part-*"))[1]
    whole = part.read_bytes()
    flip_bit(part, 300)
    with pytest.raises(DamagedPartError):
        list(decode_rows(LatentStore.open(store.path), device="cpu"))
    repair_store(store.path, [rows, more], git={})
    assert part.read_bytes() == whole


def test_other_programs_read_all_but_the_streams(store):
    (part,) = store.manifest.parts
    table = pq.read_table(store.path / part.name)
    assert table.column_names == ["id", "label", "latent", "error"]
    lengths = [len(value) for value in table["latent"].to_pylist()]
    assert [place for place, length in enumerate(lengths) if length] == [0, 50, 100]  # a stream for each row group


def test_the_bound_and_the_family_are_part_of_the_codec(rows, tmp_path):
    prints = {random_context_codec(tmp_path / f"codec{bound}", SIDES, bound).fingerprint for bound in (0, 1, 5)}
    assert len(prints) == 3
    header = json.loads((tmp_path / "codec5/codec.json").read_text())
    assert (header["format"], header["model"]["options"]["max_error"], header["quantiser"]["scale"]) == (4, 5, [11.0])
    store = encode(rows, tmp_path / "codec5", tmp_path / "list", layout="binary")
    assert verify_store(store.path).whole  # indices can lie there as they are


def test_a_codec_whose_networks_were_exchanged_is_refused(tmp_path):
    random_context_codec(tmp_path / "codec", SIDES, 0)
    random_context_codec(tmp_path / "other", SIDES, 0, seed=1)
    (tmp_path / "codec" / WEIGHTS_NAME).write_bytes((tmp_path / "other" / WEIGHTS_NAME).read_bytes())
    with pytest.raises(CodecError, match="SHA-256"):
        Codec.load(tmp_path / "codec")


def test_streams_are_for_context_codecs_alone(tiny_codec, rows, tmp_path):
    with pytest.raises(DataError, match="the layout `stream` is for context codecs; choose another one"):
        encode(rows, tiny_codec, tmp_path / "store", **STREAM)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0, 127])
def test_training_learns_what_values_to_expect(bound, tmp_path):
    sets = {
        name: write_rows(tmp_path / f"{name}.parquet", pictures(count, (9, 8), seed), id=list(range(count)))
        for name, count, seed in (("train", 600, 1), ("validation", 60, 2))
    }
    params = Params.model_validate(
        {
            "codec": {"family": "context", "max_error": bound},
            "train": {"epochs": 3, "batch_size": 32, "learning_rate": 0.004, "device": "cpu"},
        }
    )
    assert "beat_pca is not asked" in look_ahead(sets["train"], params).warnings[-1]
    header, fitted = build_codec(sets["train"], sets["validation"], params, tmp_path / "codec", {}, lambda epoch: None)
    losses = [epoch.validation_loss for epoch in fitted.history]
    assert losses[-1] < 0.9 * losses[0]
    again, _ = build_codec(sets["train"], sets["validation"], params, tmp_path / "again", {}, lambda epoch: None)
    assert again.fingerprint == header.fingerprint
    coder = Codec.load(tmp_path / "codec").streams
    latents = Codec.load(tmp_path / "codec").encode(sets["validation"].load().pixels)
    stream = coder.encode_latents(latents)
    # What it was trained for is what streams take, but for blocks with nothing near, and the ends of lanes.
    assert 8 * len(stream) / 60 == pytest.approx(losses[-1], rel=0.2, abs=20)
    assert (coder.decode_latents(stream, 60) == latents).all()


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8, 3), "uint8"), ((70, 8), "uint8"), ((9,), "float32")])
def test_other_samples_are_refused_before_training(shape, dtype, tmp_path):
    random = np.random.default_rng(0)
    rows = write_rows(tmp_path / "rows.parquet", random.integers(0, 9, (20, *shape)).astype(dtype), id=list(range(20)))
    params = Params.model_validate({"codec": {"family": "context"}})
    with pytest.raises(
        ConfigError, match=r"grey pictures of uint8, at most 64 x 64, but samples are .*; .*set it to auto"
    ):
        check_fits(params, SampleSet.open(tmp_path / "rows.parquet").spec)
    several = Params.model_validate({"codec": {"family": "context"}, "train": {"processes": 2}})
    with pytest.raises(ConfigError, match=r"train.processes: 2, but codec.family: context trains in one; set it to 1"):
        check_fits(several, SampleSet.open(tmp_path / "rows.parquet").spec)
    with pytest.raises(ConfigError, match="set it to autoencoder"):
        build_codec(rows, rows, params, tmp_path / "codec", {}, lambda epoch: None)


def test_encode_asks_the_codec_for_its_promise(ae, rows, tiny_codec, tmp_path):
    random_context_codec(tmp_path / "near", SIDES, 5)
    data = ("encode", tmp_path / "rows.parquet", "--store", tmp_path / "made")
    code, _, error = ae(*data, "--codec", tmp_path / "near", "--exact")
    assert (code, "near promises 5, but every value as it was is asked for; take a codec" in error) == (1, True)
    code, _, error = ae(*data, "--codec", tiny_codec, "--max-error", 200)
    assert (code, "promises nothing of single values, but every value within 200 is asked" in error) == (1, True)
    assert not (tmp_path / "made").exists()
    code, _, error = ae(*data, "--codec", tmp_path / "near", "--max-error", 5)
    assert (code, error) == (0, "")
    latent = LatentStore.open(tmp_path / "made").manifest.latent
    assert (latent.layout, latent.row_group_rows) == ("stream", 1500)


def test_small_parts_are_joined_and_made_again(rows, tmp_path):
    random_context_codec(tmp_path / "codec", SIDES, 0)
    store = encode(rows, tmp_path / "codec", tmp_path / "store", **STREAM)
    settings = EncodeParams(**STREAM, device="cpu")
    sets = [rows]
    for number in range(3):
        ids = list(range(1000 * number + 500, 1000 * number + 503))
        sets.append(write_rows(tmp_path / f"{number}.parquet", pictures(3, SIDES, number), id=ids, label=[7] * 3))
        append_samples(store.path, sets[-1:], store.codec_path, settings, name="more", git={})
    before = decode_store(LatentStore.open(store.path), tmp_path / "before", device="cpu").load()
    assert compact_store(store.path, CompactParams(), git={}).joined == 3
    after = decode_store(LatentStore.open(store.path), tmp_path / "after", device="cpu").load()
    assert (after.pixels == before.pixels).all()
    assert verify_store(store.path).whole
    _, joined = (store.path / part.name for part in LatentStore.open(store.path).manifest.parts)
    whole = joined.read_bytes()
    flip_bit(joined, 200)
    repair_store(store.path, sets, git={})
    assert joined.read_bytes() == whole
