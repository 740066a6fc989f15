"""Codecs in integers: the same result whichever way it is computed, and never one that is not exact."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import change_header, random_codec, random_pixels, write_rows
from safetensors.torch import load_file, save_file

from ae_pipeline.codec import arithmetic
from ae_pipeline.codec.codec import Codec, integer_block_rows
from ae_pipeline.codec.header import WEIGHTS_NAME
from ae_pipeline.codec.integer import EXACT, ByteTable, IntegerLayer, exact_product_of, shifted_products, sigmoid_table
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.files import sha256_file
from ae_pipeline.models.conv import Options as ConvOptions
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.models.patches import Options as PatchOptions
from ae_pipeline.params import Params
from ae_pipeline.training.build import build_codec

NETWORKS = {
    "dense": ("dense", DenseOptions(hidden_sizes=[33, 20], activation="relu")),
    "other encoder": ("dense", DenseOptions(hidden_sizes=[40], encoder_hidden_sizes=[], activation="relu")),
    "one layer": ("dense", DenseOptions(hidden_sizes=[], activation="relu", output_activation="linear")),
    "clamped": ("dense", DenseOptions(hidden_sizes=[17], activation="relu", output_activation="clamp")),
    "conv": ("conv", ConvOptions(channels=[3, 5], activation="relu")),
    "patches": ("patches", PatchOptions(encoder_channels=[5], decoder_channels=[6, 3], activation="relu")),
}


def layers_of(codec):
    return [module for module in codec.model.modules() if isinstance(module, IntegerLayer)]


def codec_of(network, folder):
    name, options = NETWORKS[network]
    return random_codec(folder, (9, 7), model_name=name, latent_size=6, options=dict(options), integer=True)


@pytest.fixture(params=NETWORKS)
def folder(request, tmp_path):
    codec_of(request.param, tmp_path / "codec")
    return tmp_path / "codec"


@pytest.fixture
def pixels():
    extremes = np.stack([np.zeros((9, 7), np.uint8), np.full((9, 7), 255, np.uint8)])
    return np.concatenate([random_pixels((1100, 9, 7), "uint8", 3), extremes])


def test_products_of_bytes_and_of_floats_are_the_same(folder, pixels):
    codec, by_floats = Codec.load(folder), Codec.load(folder)
    for layer in layers_of(by_floats):
        layer._bytes = None
    latents = codec.encode(pixels)
    assert len(np.unique(latents)) > 8
    assert np.array_equal(latents, by_floats.encode(pixels))
    every_latent = np.arange(-128, 128, dtype=np.int8).repeat(6).reshape(-1, 6)
    assert np.array_equal(codec.decode(every_latent), by_floats.decode(every_latent))
    if not any(layer.multiplies_bytes for layer in layers_of(codec)):
        pytest.skip("this processor has no products of bytes: both were floats")


def test_sums_in_64_bit_integers_are_the_same(tmp_path, pixels):
    """As docs/store-format.md says it, in another arithmetic altogether."""
    options = dict(NETWORKS["dense"][1])
    codec = random_codec(tmp_path / "codec", (9, 7), latent_size=6, options=options, integer=True)
    weights = {name: value.numpy() for name, value in load_file(tmp_path / "codec" / WEIGHTS_NAME).items()}

    def layer(name, v):
        weight, bias, shift = (weights[f"{name}.{key}"].astype(np.int64) for key in ("weight", "bias", "shift"))
        return np.rint((v @ weight.T + bias) / 2.0**shift)

    v = pixels.reshape(len(pixels), -1).astype(np.int64)
    for number in (0, 1):
        v = layer(f"encoder.linear{number}", v).clip(0, 255).astype(np.int64)
    q = layer("encoder.linear2", v).clip(-8, 7).astype(np.int64)
    assert np.array_equal(codec.encode(pixels), q)
    v = q
    for number in (0, 1, 2):
        v = layer(f"decoder.linear{number}", v).clip(0, 255).astype(np.int64)
    assert np.array_equal(codec.decode(q.astype(np.int8)).reshape(len(q), -1), weights["output.table"][v])


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 4)])
def test_convolutions_are_sums_of_products_whatever_the_library(kernel):
    """Where there is no oneDNN, others might use fractions: torch's float64, which holds all of it, is the judge."""
    random = torch.Generator().manual_seed(4)
    layer = torch.nn.Conv2d(16, 8, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    weight = torch.randint(-127, 128, layer.weight.shape, generator=random).float()
    bias = torch.randint(-9999, 9999, (8,), generator=random).float()
    a = torch.randint(0, 256, (40, 16, 9, 7), generator=random).float()
    wanted = torch.nn.functional.conv2d(a.double(), weight.double(), bias.double(), padding=layer.padding).float()
    assert torch.equal(exact_product_of(layer)(a, weight, bias), wanted)
    padded = torch.nn.functional.pad(a, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    assert torch.equal(shifted_products(padded, weight, bias), wanted)


def test_batches_threads_and_padding_do_not_matter(folder, pixels):
    codec = Codec.load(folder)
    latents = codec.encode(pixels)
    decoded = codec.decode(latents)
    for rows in (slice(0, 1), slice(7, 8), slice(1000, 1102), slice(3, 1000, 5)):
        assert np.array_equal(codec.encode(pixels[rows]), latents[rows])
        assert np.array_equal(codec.decode(latents[rows]), decoded[rows])
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, latents) for found in pool.map(codec.encode, [pixels] * 8))


PRINT_DIGESTS = """
import hashlib, sys
from pathlib import Path
from ae_pipeline.codec.codec import Codec
from handmade import random_pixels
for folder in sys.argv[1:]:
    codec, pixels = Codec.load(Path(folder), "cpu"), random_pixels((500, 9, 7), "uint8", 5)
    latents = codec.encode(pixels)
    print(hashlib.sha256(latents.tobytes() + codec.decode(latents).tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "instructions",
    [
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},  # products of bytes in 16 bits, which overflow: floats must be taken
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    ],
    ids=lambda instructions: instructions["ONEDNN_MAX_CPU_ISA"],
)
def test_other_instructions_give_the_same(instructions, tmp_path, monkeypatch):
    folders = [codec_of(name, tmp_path / name).folder for name in ("dense", "patches")]
    for name, value in instructions.items():
        monkeypatch.setenv(name, value)
    found = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS, *folders],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1] / "support",
    ).stdout  # fmt: skip
    pixels = random_pixels((500, 9, 7), "uint8", 5)
    wanted = []
    for folder in folders:
        codec = Codec.load(folder)
        latents = codec.encode(pixels)
        wanted.append(hashlib.sha256(latents.tobytes() + codec.decode(latents).tobytes()).hexdigest())
    assert found.split() == wanted


@pytest.mark.parametrize("values_at_once", [1, 100 * 63, arithmetic._CACHED_VALUES])
def test_errors_are_those_of_what_is_decoded(values_at_once, folder, pixels, monkeypatch):
    monkeypatch.setattr(arithmetic, "_CACHED_VALUES", values_at_once)
    pixels.setflags(write=False)  # as Arrow's are
    codec = Codec.load(folder)
    latents, error = codec.encode_block(pixels[:900], measure=True)
    difference = (codec.decode(latents).astype(np.float64) - pixels[:900]) / 255
    assert np.array_equal(error, np.square(difference).reshape(900, -1).mean(axis=1).astype(np.float32))


def test_errors_of_large_rows_are_exact(tmp_path):
    codec = random_codec(tmp_path / "codec", (40, 50), hidden_size=5, integer=True)
    rows = np.stack([np.zeros((40, 50), np.uint8), np.full((40, 50), 255, np.uint8)])
    latents, error = codec.encode_block(rows, measure=True)
    difference = (codec.decode(latents).astype(np.float64) - rows) / 255
    assert np.array_equal(error, np.square(difference).reshape(2, -1).mean(axis=1).astype(np.float32))


def test_blocks_have_many_narrow_rows_or_few_wide_ones(tmp_path):
    narrow = random_codec(tmp_path / "narrow", (9, 7), hidden_size=2, integer=True)
    wide = random_codec(tmp_path / "wide", (128, 256), hidden_size=2, integer=True)
    value_bytes = 1 if all(layer.multiplies_bytes for layer in layers_of(wide)) else 4
    assert (narrow.block_rows, wide.block_rows) == (16_384, 256 // value_bytes)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [integer_block_rows(3136, value_bytes, cpu) for value_bytes in (1, 4)] == [2674, 668]
    assert [integer_block_rows(widest, 4, gpu) for widest in (784, 1 << 15, 1 << 27)] == [16_384, 2048, 1]


def test_the_table_of_a_sigmoid():
    table = sigmoid_table().numpy()
    assert (table[0], table[128], table[255]) == (0, 128, 255)
    assert (np.diff(table.astype(int)) >= 0).all()
    for shape in ((5, 4), (5, 3)):  # pairs of bytes, and a byte too many
        index = torch.from_numpy(random_pixels(shape, "uint8"))
        layer = ByteTable()
        layer.table.copy_(sigmoid_table())
        by_one = layer(index.float())
        layer.prepare()
        assert torch.equal(layer(index), by_one)
        assert by_one.dtype == torch.uint8


@pytest.mark.parametrize("seed", range(3))
def test_a_rounded_network_is_close_to_the_float_one(tmp_path, seed):
    options = dict(NETWORKS["dense"][1])
    floats = random_codec(tmp_path / "float", (9, 7), latent_size=6, levels=64, options=options, seed=seed)
    integers = random_codec(
        tmp_path / "integer", (9, 7), latent_size=6, levels=64, options=options, seed=seed, integer=True
    )
    pixels = random_pixels((500, 9, 7), "uint8", seed)
    difference = integers.encode(pixels).astype(int) - floats.encode(pixels)
    assert np.abs(difference).mean() < 0.8
    assert np.abs(integers.decode(floats.encode(pixels)).astype(int) - floats.decode(floats.encode(pixels))).mean() < 2
    alone = integers.reconstruct_unquantised(pixels[:9])
    assert np.abs(alone - floats.reconstruct_unquantised(pixels[:9])).mean() < 2


# What an integer codec may not be.


def rewrite(folder, change):
    state = load_file(folder / WEIGHTS_NAME)
    change(state)
    save_file(state, folder / WEIGHTS_NAME)
    change_header(folder, weights_sha256=sha256_file(folder / WEIGHTS_NAME))


def test_sums_that_floats_do_not_hold_are_refused(folder):
    def grow(state):
        name = next(name for name in state if name.endswith(".bias"))
        state[name][0] = EXACT

    rewrite(folder, grow)
    with pytest.raises(CodecError, match=rf"{WEIGHTS_NAME}.*a sum can reach \d+, but only those below {EXACT}"):
        Codec.load(folder)


def test_a_weight_that_has_no_opposite_is_refused(folder):
    def lower(state):
        name = next(name for name in state if name.endswith(".weight"))
        state[name].flatten()[0] = -128

    rewrite(folder, lower)
    with pytest.raises(CodecError, match="a weight is -128, but at least -127 is expected"):
        Codec.load(folder)


def test_weights_of_another_type_are_refused(folder):
    def widen(state):
        name = next(name for name in state if name.endswith(".weight"))
        state[name] = state[name].float()

    rewrite(folder, widen)
    with pytest.raises(CodecError, match="does not hold the weights"):
        Codec.load(folder)


def shift_all(folder, shift):
    def change(state):
        for name in state:
            if name.endswith(".shift"):
                state[name][:] = shift

    rewrite(folder, change)


@pytest.mark.parametrize("shift", [-64, 64])
def test_the_largest_shifts_give_the_same_by_bytes_and_by_floats(folder, pixels, shift):
    shift_all(folder, shift)
    codec, by_floats = Codec.load(folder), Codec.load(folder)
    for layer in layers_of(by_floats):
        layer._bytes = None
    assert np.array_equal(codec.encode(pixels), by_floats.encode(pixels))
    every_latent = np.arange(-128, 128, dtype=np.int8).repeat(6).reshape(-1, 6)
    assert np.array_equal(codec.decode(every_latent), by_floats.decode(every_latent))


@pytest.mark.parametrize("shift", [-128, -65, 65, 127])
def test_shifts_beyond_are_refused(folder, shift):
    shift_all(folder, shift)
    with pytest.raises(CodecError, match="a shift is beyond -64 to 64"):
        Codec.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": {"shape": [9, 7], "dtype": "int8"}},
        {"scaling": {"offset": 1.0, "scale": 255.0}},
        {"scaling": {"offset": 0.0, "scale": 254.0}},
    ],
)
def test_headers_that_do_not_fit_integers_are_refused(folder, change):
    change_header(folder, **change)
    with pytest.raises(CodecError, match="an integer codec is for uint8 samples, scaled by 255"):
        Codec.load(folder)


# Training for it.


@pytest.fixture(scope="session")
def samples(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "train")


def params_of(**train):
    model = {"name": "dense", "dense": {"hidden_sizes": [24], "activation": "relu"}}
    settings = {"epochs": 10, "latent_size": 6, "arithmetic": "integer", "device": "cpu", "autocast": False, **train}
    return Params.model_validate({"model": model, "train": settings})


@pytest.mark.slow
@pytest.mark.parametrize("rate_weight", [0.0, 1e-3])
def test_a_codec_is_trained_in_integers(rate_weight, samples, tmp_path):
    params = params_of(rate_weight=rate_weight)
    header, _ = build_codec(samples, samples, params, tmp_path / "codec", {}, lambda epoch: None)
    tuned = header.provenance["integers"]
    assert (header.format, tuned["epochs"]) == (2, 1)
    assert tuned["loss"] <= tuned["rounded_loss"] < 1.1 * tuned["float_loss"]
    codec = Codec.load(tmp_path / "codec")
    pixels = samples.load().pixels
    floats, _ = build_codec(
        samples, samples, params_of(rate_weight=rate_weight, arithmetic="float"), tmp_path / "float", {},
        lambda epoch: None,
    )  # fmt: skip
    assert floats.format == 1

    def mse(codec):
        return np.square((codec.decode(codec.encode(pixels)).astype(float) - pixels) / 255).mean()

    assert mse(codec) < 1.1 * mse(Codec.load(tmp_path / "float"))
    assert sum(file.stat().st_size for file in (tmp_path / "codec").glob("*.safetensors")) < 0.7 * sum(
        file.stat().st_size for file in (tmp_path / "float").glob("*.safetensors")
    )


@pytest.mark.slow
def test_the_same_training_gives_the_same_codec(samples, tmp_path):
    prints = [
        build_codec(samples, samples, params_of(), tmp_path / name, {}, lambda epoch: None)[0].fingerprint
        for name in ("one", "two")
    ]
    assert prints[0] == prints[1]


def test_what_integers_cannot_do_is_said_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"train\.arithmetic: integer needs model\.dense\.activation: relu"):
        Params.model_validate({"model": {"dense": {"activation": "silu"}}, "train": {"arithmetic": "integer"}})
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((50, 5, 4), "int16"))
    with pytest.raises(DataError, match="integer is for uint8 samples, found int16 5x4; set it to auto"):
        build_codec(samples, samples, params_of(), tmp_path / "codec", {}, lambda epoch: None)
    assert not (tmp_path / "codec").exists()


@pytest.mark.gpu
def test_a_gpu_computes_the_same(folder, pixels):
    here, there = Codec.load(folder, "cpu"), Codec.load(folder, "cuda")
    latents = here.encode(pixels)
    assert np.array_equal(there.encode(pixels), latents)
    assert np.array_equal(there.decode(latents), here.decode(latents))


@pytest.mark.gpu
def test_threads_that_share_a_gpu_keep_their_rows_apart(folder, pixels):
    expected, there = Codec.load(folder, "cpu").encode(pixels), Codec.load(folder, "cuda")
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(there.encode, [np.roll(pixels, places, axis=0) for places in range(32)])
        for places, latents in enumerate(found):
            assert np.array_equal(latents, np.roll(expected, places, axis=0))
