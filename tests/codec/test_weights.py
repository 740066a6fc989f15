"""Weights of a byte: what a file of them says is what the codec computes with, and half of its bytes."""

import json

import numpy as np
import pytest
import torch
from handmade import change_header, encode, random_codec, random_pixels, write_rows
from safetensors.torch import load_file, save_file

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import HEADER_NAME, WEIGHTS_NAME
from ae_pipeline.codec.weights import SCALE, loaded_weights, stored_weights
from ae_pipeline.errors import CodecError
from ae_pipeline.files import sha256_file


def state_of(seed=0):
    torch.manual_seed(seed)
    small = torch.randn(6, 3) * torch.logspace(-9, 2, 6)[:, None]
    return {
        "a.weight": torch.randn(5, 4, 3, 3),
        "a.bias": torch.randn(5),
        "b.weight": small,
        "c.weight": torch.zeros(2, 2),
    }


def test_a_weight_is_at_most_half_a_step_off_and_comes_back_the_same_for_ever():
    state = state_of()
    stored = stored_weights(state, 8)
    loaded = loaded_weights(stored)
    assert loaded.keys() == state.keys()
    for name in ("a.weight", "b.weight", "c.weight"):
        assert stored[name].dtype == torch.int8
        scale = stored[name + SCALE].float().reshape(-1, *[1] * (state[name].dim() - 1))
        # A scale in float16 may be a little less than the largest weight asks for.
        assert bool(((loaded[name] - state[name]).abs() <= 0.501 * scale + 127 * scale * 2**-11 + 4e-6).all())
    again = stored_weights(loaded, 8)
    assert all(torch.equal(again[name], stored[name]) for name in stored)
    assert all(torch.equal(value, loaded[name]) for name, value in loaded_weights(again).items())


@pytest.mark.parametrize("model_name", ["dense", "conv", "patches", "grid"])
def test_a_codec_of_bytes_computes_what_its_file_says(model_name, tmp_path):
    latent_size = 16 if model_name == "grid" else 5
    settings = {"model_name": model_name, "latent_size": latent_size, "hidden_size": 60}
    saved = random_codec(tmp_path / "bytes", (8, 6, 3), weight_bits=8, **settings)
    halves = random_codec(tmp_path / "halves", (8, 6, 3), **settings)
    loaded = Codec.load(tmp_path / "bytes")
    pixels = random_pixels((40, 8, 6, 3), "uint8", 1)
    latents = saved.encode(pixels)
    assert np.array_equal(loaded.encode(pixels), latents)
    assert np.array_equal(loaded.decode(latents), saved.decode(latents))
    assert np.array_equal(loaded.encode(pixels[7:8]), latents[7:8])
    assert loaded.header.format == 3
    assert np.abs(halves.decode(latents).astype(int) - saved.decode(latents)).mean() < 20
    sizes = [
        sum(tensor.nbytes for tensor in load_file(tmp_path / name / WEIGHTS_NAME).values())
        for name in ("bytes", "halves")
    ]
    assert sizes[0] < 0.75 * sizes[1]


def test_a_grid_has_a_step_for_each_channel(tmp_path):
    random_codec(tmp_path / "codec", (8, 6, 3), model_name="grid", latent_size=16, weight_bits=8)
    quantiser = json.loads((tmp_path / "codec" / HEADER_NAME).read_text())["quantiser"]
    assert (len(quantiser["scale"]), len(quantiser["zero_point"])) == (4, 4)
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((9, 8, 6, 3), "uint8"), id=list(range(9)))
    store = encode(samples, tmp_path / "codec", tmp_path / "store", layout="packed")
    (part,) = store.manifest.parts
    latents = np.concatenate([rows.latents for rows in store.read_part(part, 4)])
    assert np.array_equal(latents, Codec.load(tmp_path / "codec").encode(samples.load().pixels))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantiser__scale": [1.0] * 3}, "must have model.latent_size values each"),
        ({"quantiser__scale": [], "quantiser__zero_point": []}, "must have model.latent_size values each"),
        (
            {"quantiser__scale": [1.0] * 3, "quantiser__zero_point": [0.0] * 3},
            "must have model.latent_size values each",
        ),
        ({"format": 1}, "short in a format"),
        ({"format": 6}, "has format 6, expected 1 to 5; use a newer ae-pipeline"),
        ({"format": 4}, "model grid in a codec of format 4"),
    ],
)
def test_a_header_of_other_sizes_is_refused(changes, said, tmp_path):
    random_codec(tmp_path, (8, 6, 3), model_name="grid", latent_size=16, weight_bits=8)
    change_header(tmp_path, **changes)
    with pytest.raises(CodecError, match=said):
        Codec.load(tmp_path)


@pytest.mark.parametrize("change", ["no scale", "float scale", "short scale", "half weights", "a scale too many"])
def test_weights_that_are_not_those_of_the_model_are_refused(change, tmp_path):
    random_codec(tmp_path, weight_bits=8)
    state = load_file(tmp_path / WEIGHTS_NAME)
    name = next(name for name in state if name + SCALE in state)
    if change == "no scale":
        del state[name + SCALE]
    elif change == "float scale":
        state[name + SCALE] = state[name + SCALE].float()
    elif change == "short scale":
        state[name + SCALE] = state[name + SCALE][:1].clone()
    elif change == "half weights":
        state[name] = state[name].half()
    else:
        state[name.replace("weight", "bias") + SCALE] = state[name + SCALE].clone()
    save_file(state, tmp_path / WEIGHTS_NAME)
    change_header(tmp_path, weights_sha256=sha256_file(tmp_path / WEIGHTS_NAME))
    with pytest.raises(CodecError, match="does not hold the weights of the model"):
        Codec.load(tmp_path)
