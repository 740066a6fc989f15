"""Codec: samples to integers and back; what a damaged or hostile codec folder may and may not do."""

import json
import pickle
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import change_header, flip_bit, random_codec, random_pixels, scaling_of, write_rows
from safetensors.torch import save_file

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.codec.header import HEADER_NAME, WEIGHTS_NAME
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.evaluation.baselines import build_pca_codec
from ae_pipeline.files import sha256_file
from ae_pipeline.params import Params
from ae_pipeline.training.batches import fit_scaling


@pytest.fixture
def copied(tiny_codec, tmp_path):
    """A codec folder that the test may damage."""
    return Path(shutil.copytree(tiny_codec, tmp_path / "codec"))


@pytest.mark.parametrize("model_name", ["dense", "conv", "patches"])
def test_a_loaded_codec_gives_what_the_saved_one_gives(model_name, tmp_path):
    saved = random_codec(tmp_path / "codec", model_name=model_name)
    loaded = Codec.load(tmp_path / "codec")
    pixels = random_pixels((50, 5, 4), "uint8", seed=1)
    latents = saved.encode(pixels)
    assert loaded.fingerprint == saved.fingerprint
    assert np.array_equal(loaded.encode(pixels), latents)
    assert np.array_equal(loaded.decode(latents), saved.decode(latents))
    assert len(np.unique(latents)) > 4


def test_a_copied_codec_is_the_same_codec(tiny_codec, copied):
    assert Codec.load(copied).fingerprint == Codec.load(tiny_codec).fingerprint


def test_what_a_row_means_is_part_of_the_codec_and_of_its_fingerprint(tmp_path):
    form = {"sort": "table", "column": "v", "type": "binary", "columns": ["v"], "label": None}
    kind = KindEntry(name="image", state={"form": form})
    none, one = random_codec(tmp_path / "none"), random_codec(tmp_path / "one", kind=kind)
    other = random_codec(tmp_path / "other", kind=KindEntry(name="image", state={"form": {**form, "column": "w"}}))
    assert "kind" not in json.loads((tmp_path / "none" / HEADER_NAME).read_text())
    assert Codec.load(tmp_path / "one").header.kind == kind
    assert len({codec.fingerprint for codec in (none, one, other)}) == 3
    change_header(tmp_path / "one", kind__state={"form": form, "more": "x" * 300_000})
    with pytest.raises(
        CodecError, match=r"codec.json is not a valid codec: kind.state: has 3\d\d,\d\d\d bytes, at most"
    ):
        Codec.load(tmp_path / "one")


def test_pca_of_rows_of_a_single_value(tmp_path):
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((50, 1, 1), "uint8"))
    build_pca_codec(samples, 1, 256, fit_scaling(samples), tmp_path / "codec")
    codec, pixels = Codec.load(tmp_path / "codec"), samples.load().pixels
    assert np.abs(codec.decode(codec.encode(pixels)).astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("model_name", ["dense", "conv", "patches"])
def test_a_row_alone_is_coded_as_among_others(model_name, tmp_path):
    # Floats are decoded unrounded, so that they show every bit of the sums; wide layers have long ones.
    codec = random_codec(
        tmp_path / "codec", (20, 19), "float32", model_name=model_name, hidden_size=200, latent_size=30, levels=256
    )
    pixels = random_pixels((1500, 20, 19), "float32", seed=1)
    latents = codec.encode(pixels)
    decoded = codec.decode(latents)
    for rows in (slice(0, 1), slice(700, 701), slice(1023, 1025), slice(1400, 1500)):
        assert np.array_equal(codec.encode(pixels[rows]), latents[rows])
        assert np.array_equal(codec.decode(latents[rows]), decoded[rows])
    assert np.array_equal(codec.decode(latents[::-1])[::-1], decoded)


@pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1])
def test_any_number_of_rows_can_be_coded(rows, tiny_codec, synthetic_prepared):
    codec = Codec.load(tiny_codec)
    some = SampleSet.open(synthetic_prepared / "test").load().pixels
    latents = codec.encode(np.resize(some, (rows, *some.shape[1:])))
    decoded = codec.decode(latents)
    assert (latents.shape, latents.dtype) == ((rows, codec.latent_size), np.int8)
    assert (decoded.shape, decoded.dtype) == ((rows, 12, 12), np.uint8)
    assert np.array_equal(latents, np.resize(codec.encode(some), latents.shape))


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
def test_latents_stay_within_the_levels(levels, tmp_path):
    codec = random_codec(tmp_path / "codec", levels=levels)
    latents = codec.encode(random_pixels((400, 5, 4), "uint8", seed=2) // 128 * 255)
    lowest = -(levels // 2)
    assert (latents.min(), latents.max()) == (lowest, lowest + levels - 1)


def test_several_threads_can_share_one_codec(tiny_codec, synthetic_prepared):
    codec = Codec.load(tiny_codec)
    pixels = SampleSet.open(synthetic_prepared / "test").load().pixels
    expected = codec.encode(pixels)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(latents, expected) for latents in pool.map(codec.encode, [pixels] * 8))


def test_the_measured_error_is_that_of_the_decoded_row(tiny_codec, synthetic_prepared):
    codec = Codec.load(tiny_codec)
    pixels = SampleSet.open(synthetic_prepared / "test").load().pixels
    latents, error = codec.encode_block(pixels, measure=True)
    difference = (codec.decode(latents).astype(np.float64) - pixels) / 255
    assert error == pytest.approx((difference**2).mean(axis=(1, 2)), rel=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_samples_of_every_dtype_come_back_close(dtype, tmp_path):
    # PCA with as many components as values loses nothing but what float16 weights and 256 levels lose.
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((300, 2, 3), dtype), id=list(range(300)))
    scaling = fit_scaling(samples)
    assert scaling == scaling_of(samples.load().pixels)
    build_pca_codec(samples, 6, 256, scaling, tmp_path / "codec")
    codec = Codec.load(tmp_path / "codec")
    original = samples.load().pixels
    decoded = codec.decode(codec.encode(original))
    assert (decoded.dtype, decoded.shape) == (original.dtype, original.shape)
    assert np.abs(decoded.astype(np.float64) - original).max() < 0.02 * scaling.scale


def test_bytes_in_the_other_order_are_the_same_samples(tmp_path):
    codec = random_codec(tmp_path / "codec", dtype="int16")
    pixels = random_pixels((9, 5, 4), "int16", seed=3)
    assert np.array_equal(codec.encode(pixels.astype(">i2")), codec.encode(pixels))


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((3, 12, 11), "uint8", "uint8 12x11"),
        ((3, 144), "uint8", "uint8 144"),
        ((3, 12, 12), "float32", "float32 12x12"),
    ],
)
def test_samples_that_do_not_fit_are_refused(shape, dtype, found, tiny_codec):
    with pytest.raises(DataError, match=f"{found}, expected uint8 12x12"):
        Codec.load(tiny_codec).encode(np.zeros(shape, dtype))


@pytest.mark.parametrize(("shape", "dtype"), [((3, 5), "int8"), ((3, 6), "uint8"), ((3, 6), "float32"), ((6,), "int8")])
def test_latents_that_do_not_fit_are_refused(shape, dtype, tiny_codec):
    with pytest.raises(DataError, match="expected int8"):
        Codec.load(tiny_codec).decode(np.zeros(shape, dtype))


def _rewrite(name, change):
    def damage(codec):
        (codec / name).write_bytes(change((codec / name).read_bytes()))

    return damage


def _without(key):
    def change(text):
        values = json.loads(text)
        del values[key]
        return json.dumps(values).encode()

    return _rewrite(HEADER_NAME, change)


def _folder_instead(name):
    def damage(codec):
        (codec / name).unlink()
        (codec / name).mkdir()

    return damage


def _other_weights(codec):
    random_codec(codec / "other", (12, 12), latent_size=6)
    (codec / "other" / WEIGHTS_NAME).replace(codec / WEIGHTS_NAME)


def _with_matching_digest(damage):
    """A hostile folder: digest and fingerprint are made to fit what was put in."""

    def hostile(codec):
        damage(codec)
        change_header(codec, weights_sha256=sha256_file(codec / WEIGHTS_NAME))

    return hostile


def _changed(*, keep=False, **changes):
    return lambda codec: change_header(codec, keep_fingerprint=keep, **changes)


def _one_tensor_only(codec):
    save_file({"encoder.linear0.weight": torch.zeros(32, 144)}, codec / WEIGHTS_NAME)


DAMAGE = {
    "no folder": (HEADER_NAME, shutil.rmtree),
    "no header": (HEADER_NAME, lambda codec: (codec / HEADER_NAME).unlink()),
    "header is a folder": (HEADER_NAME, _folder_instead(HEADER_NAME)),
    "truncated header": (HEADER_NAME, _rewrite(HEADER_NAME, lambda text: text[: len(text) // 2])),
    "empty header": (HEADER_NAME, _rewrite(HEADER_NAME, lambda text: b"")),
    "garbage header": (HEADER_NAME, _rewrite(HEADER_NAME, lambda text: bytes(range(256)))),
    "header nested too deeply": (HEADER_NAME, _rewrite(HEADER_NAME, lambda text: b"[" * 200_000)),
    "header is a list": (HEADER_NAME, _rewrite(HEADER_NAME, lambda text: b"[" + text + b"]")),
    "header too large": (HEADER_NAME, _rewrite(HEADER_NAME, lambda text: text + b" " * (17 << 20))),
    "extra key": (HEADER_NAME, _changed(surprise=1)),
    "extra key in a section": (HEADER_NAME, _changed(scaling__surprise=1)),
    "unknown option": (HEADER_NAME, _changed(model__options__surprise=1)),
    "missing options": (HEADER_NAME, _changed(model__options={})),
    "missing key": (HEADER_NAME, _without("quantiser")),
    "missing fingerprint": (HEADER_NAME, _without("fingerprint")),
    "unknown format": (HEADER_NAME, _changed(format=3)),
    "no format": (HEADER_NAME, _without("format")),
    "changed value": (HEADER_NAME, _changed(keep=True, scaling__scale=254.0)),
    "changed fingerprint": (HEADER_NAME, _changed(keep=True, fingerprint="0" * 64)),
    "not a number": (HEADER_NAME, _changed(keep=True, scaling__offset=float("nan"))),
    "scale of zero": (HEADER_NAME, _changed(scaling__scale=0)),
    "too many levels": (HEADER_NAME, _changed(quantiser__levels=257)),
    "too few scales": (HEADER_NAME, _changed(quantiser__scale=[1.0])),
    "unknown model": (HEADER_NAME, _changed(model__name="os")),
    "model does not fit the shape": (HEADER_NAME, _changed(samples__shape=[144], model__name="conv")),
    "no weights": (WEIGHTS_NAME, lambda codec: (codec / WEIGHTS_NAME).unlink()),
    "weights are a folder": (WEIGHTS_NAME, _folder_instead(WEIGHTS_NAME)),
    "flipped bit in weights": (WEIGHTS_NAME, lambda codec: flip_bit(codec / WEIGHTS_NAME, 5000)),
    "truncated weights": (WEIGHTS_NAME, _rewrite(WEIGHTS_NAME, lambda data: data[:-1])),
    "empty weights": (WEIGHTS_NAME, _rewrite(WEIGHTS_NAME, lambda data: b"")),
    "weights of another model": (WEIGHTS_NAME, _other_weights),
    "weights of another model, digest fits": (WEIGHTS_NAME, _with_matching_digest(_other_weights)),
    "truncated weights, digest fits": (
        WEIGHTS_NAME,
        _with_matching_digest(_rewrite(WEIGHTS_NAME, lambda data: data[: len(data) // 2])),
    ),
    "weights missing in the file, digest fits": (WEIGHTS_NAME, _with_matching_digest(_one_tensor_only)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_every_kind_of_damage_is_a_codec_error_that_names_the_file(what, copied):
    named, damage = DAMAGE[what]
    damage(copied)
    with pytest.raises(CodecError) as caught:
        Codec.load(copied)
    assert named in str(caught.value)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


class _Payload:
    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("save", [pickle.dump, torch.save])
def test_a_pickle_in_place_of_the_weights_never_runs(save, copied, tmp_path):
    with open(copied / WEIGHTS_NAME, "wb") as file:
        save(_Payload(tmp_path / "ran"), file)
    change_header(copied, weights_sha256=sha256_file(copied / WEIGHTS_NAME))
    with pytest.raises(CodecError, match=WEIGHTS_NAME):
        Codec.load(copied)
    assert not (tmp_path / "ran").exists()
    if save is pickle.dump:  # the payload is a live one
        pickle.loads((copied / WEIGHTS_NAME).read_bytes())
        assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model__options__hidden_sizes": [10**9]},
        {"model__options__hidden_sizes": [2**62, 2**62]},
        {"model__options__hidden_sizes": [10**30]},
        {"model__options__hidden_sizes": [1] * 500_000},
        {"samples__shape": [1 << 24] * 8},
    ],
    ids=["a billion", "beyond 64 bits together", "beyond 64 bits", "very deep", "shape"],
)
def test_gigantic_sizes_in_the_header_allocate_nothing(changes, copied):
    change_header(copied, **changes)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CodecError, match="codec"):
        Codec.load(copied)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB


def test_provenance_does_not_enter_the_fingerprint(copied):
    before = Codec.load(copied).fingerprint
    change_header(copied, keep_fingerprint=True, provenance={"note": "renamed", "data": None})
    assert Codec.load(copied).fingerprint == before


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling__offset": 1.0},
        {"quantiser__levels": 17},
        {"quantiser__zero_point": [0.5] * 6},
        {"model__options__activation": "tanh"},
        {"weights_sha256": "0" * 64},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_decides_the_output_enters_the_fingerprint(changes, copied):
    before = json.loads((copied / HEADER_NAME).read_text())["fingerprint"]
    change_header(copied, **changes)
    assert json.loads((copied / HEADER_NAME).read_text())["fingerprint"] != before


@pytest.mark.slow
def test_loading_a_codec_does_not_load_torchs_compiler(tiny_codec):
    """It takes a second and 150 MiB: whatever computes a shape on the meta device imports it."""
    code = (
        "import sys; from pathlib import Path; from ae_pipeline.codec.codec import Codec; Codec.load(Path(sys.argv[1]))"
    )
    code += "; print('torch._dynamo' in sys.modules)"
    command = [sys.executable, "-c", code, str(tiny_codec)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("train", "layout"),
    [
        ({"rate_weight": 1e-4, "rate_code": "separate"}, "coded"),
        ({"rate_weight": 1e-4, "rate_code": "shared"}, "binary"),
        ({"rate_weight": 0.0, "rate_code": "separate"}, "list"),
    ],
)
def test_a_codec_names_the_layout_that_suits_its_training(train, layout, tmp_path):
    """As training records its settings; what another program wrote there says nothing, and is no error."""
    header = random_codec(tmp_path / "codec").header
    used = Params.model_validate({"train": train}).used("train")
    assert header.model_copy(update={"provenance": {"params": used}}).layout == layout
    for other in ({}, {"params": None}, {"params": {"train": 3}}, {"params": [1]}):
        assert header.model_copy(update={"provenance": other}).layout == "list"
