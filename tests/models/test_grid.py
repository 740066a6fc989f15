"""Latents on a grid of blocks: each is made as all others are, and channels of latents are kept in all or in none."""

import numpy as np
import pytest
import torch
from handmade import write_rows

from ae_pipeline.codec.codec import Codec, freeze
from ae_pipeline.errors import ConfigError
from ae_pipeline.models import build_model
from ae_pipeline.params import Params
from ae_pipeline.params.base import replaced
from ae_pipeline.params.options import MODELS
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.rate import RateModel


def grid(shape, latent_size, **options):
    torch.manual_seed(0)
    return build_model("grid", shape, latent_size, dict(MODELS["grid"].model_validate(options)))


def x_of(shape, rows=3):
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def straight_only(model):
    for layer in (model.encoder["latents"], model.decoder["pixels"]):
        layer.weight.zero_()
    return model


@pytest.mark.parametrize("shape", [(16, 24, 3), (16, 24), (13, 18, 4)])
def test_it_begins_as_a_transform_that_loses_nothing_but_what_it_has_no_latents_for(shape):
    channels = shape[2] if len(shape) == 3 else 1
    x = x_of(shape)
    whole = straight_only(grid(shape, 6 * 64 * channels))
    torch.testing.assert_close(whole.decode_raw(whole.encode(x)), x, atol=2e-6, rtol=0)
    # Where a block has one latent, it is the block's mean brightness.
    one = straight_only(grid((8, 8), 1))
    torch.testing.assert_close(one.encode(x_of((8, 8))), (x_of((8, 8)).mean((1, 2)) - 0.5)[:, None] * 8)


def test_a_block_is_made_alike_wherever_it_lies():
    model = grid((48, 48, 3), 36 * 4)
    picture = torch.zeros(1, 48, 48, 3)
    piece = x_of((8, 8, 3), 1)
    here, there = picture.clone(), picture.clone()
    here[:, 16:24, 16:24] = piece
    there[:, 16:24, 24:32] = piece
    found = [model.encode(one).unflatten(1, (6, 6, 4)) for one in (here, there)]
    torch.testing.assert_close(found[0][:, 2, 2], found[1][:, 2, 3])


def test_channels_of_latents_are_kept_in_all_blocks_or_in_none():
    model = grid((16, 16, 3), 4 * 5).eval()
    kept = model.kept_together(torch.tensor([1, 8]))
    assert kept.tolist() == [1, 3, 6, 8, 11, 13, 16, 18]
    frozen = freeze(model, "grid", kept)
    assert frozen.latent_size == 8
    x = x_of((16, 16, 3))
    z = model.encode(x)
    torch.testing.assert_close(frozen.encode(x), z[:, kept], atol=2e-3, rtol=2e-3)
    alone = torch.zeros_like(z)
    alone[:, kept] = z[:, kept]
    torch.testing.assert_close(frozen.decode(frozen.encode(x)), model.decode(alone), atol=2e-3, rtol=2e-3)


def test_latents_that_cannot_be_shared_out_among_blocks_are_refused():
    with pytest.raises(ConfigError, match=r"has 16 blocks in samples of \[32, 32, 3\].* multiple of 16, found 36"):
        grid((32, 32, 3), 36)
    with pytest.raises(ConfigError, match="multiple of 16, found 8"):
        grid((32, 32), 8)


def test_channels_stand_in_the_order_of_their_use_and_compute_the_same():
    model = grid((16, 16, 3), 4 * 5).eval()
    rate = RateModel(20, shared=False, channels=5)
    z = model.encode(x_of((16, 16, 3)))
    spread = z.reshape(-1, 5).std(0)
    with torch.no_grad():
        rate.log_steps.copy_((torch.tensor([2.0, 0.4, 0.0, 1.0, 3.0]) / spread.clamp_min(1e-6)).clamp_min(1e-9).log())
    ordered = rate.by_use(z, model.kept_together(rate.used(z)))
    assert ordered[:4].tolist() == [1, 3, 0, 4]
    assert ordered.reshape(4, 4)[2].tolist() == [11, 13, 10, 14]
    some = freeze(model, "grid", ordered)
    torch.testing.assert_close(some.encode(x_of((16, 16, 3))), z[:, ordered], atol=2e-3, rtol=2e-3)
    alone = torch.zeros_like(z)
    alone[:, ordered] = z[:, ordered]
    torch.testing.assert_close(some.decode(z[:, ordered]), model.decode(alone), atol=2e-3, rtol=2e-3)
    assert torch.equal(rate.of(ordered).log_steps, rate.log_steps[ordered[:4]])
    quantiser = rate.quantiser(z, ordered, 256)
    assert torch.equal(quantiser.of_channels(4).scale.repeat(4), quantiser.scale)


def test_a_codec_of_it_decodes_a_row_alone_as_among_others(tmp_path):
    random = np.random.default_rng(0)
    smooth = np.add.outer(random.normal(size=(200, 16)).cumsum(1), random.normal(size=16).cumsum())
    pixels = np.clip(128 + 9 * smooth[..., None] * np.array([1, 0.9, 0.5]), 0, 255).astype(np.uint8)
    samples = write_rows(tmp_path / "rows.parquet", pixels, id=list(range(200)))
    settings = {"model.name": "grid", "train.latent_size": 4 * 8, "train.epochs": 2, "train.batch_size": 50}
    settings |= {"train.rate_weight": 0.0001, "train.device": "cpu", "quantiser.levels": 256}
    params = replaced(Params(), settings)
    header, _ = build_codec(samples, samples, params, tmp_path / "codec", {}, lambda *_: None)
    assert not header.is_integer
    assert header.model.latent_size % 4 == 0
    codec = Codec.load(tmp_path / "codec")
    latents = codec.encode(pixels)
    decoded = codec.decode(latents)
    np.testing.assert_array_equal(codec.decode(latents[7:8]), decoded[7:8])
    np.testing.assert_array_equal(codec.encode(pixels[7:8]), latents[7:8])
    assert np.square(decoded.astype(float) - pixels).mean() < 0.5 * pixels.var()
