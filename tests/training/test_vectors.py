"""A linear path beside a dense network, and a loss that knows neighbours: what vectors are trained with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import write_rows

from ae_pipeline.codec.codec import Codec, freeze
from ae_pipeline.codec.header import Scaling, fingerprint
from ae_pipeline.errors import ConfigError
from ae_pipeline.evaluation.baselines import fit_pca
from ae_pipeline.evaluation.neighbours import Neighbours
from ae_pipeline.models import build_model
from ae_pipeline.models.dense import Options
from ae_pipeline.models.neighbours import neighbour_loss
from ae_pipeline.params import Params, TrainParams
from ae_pipeline.params.base import replaced
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.outlook import misfits
from ae_pipeline.training.steps.linear_start import begin_as_klt

GOLDEN = Path(__file__).parents[1] / "golden"
VALUES = 12
PATH = {
    "hidden_sizes": [16],
    "latent_norm": "none",
    "output_activation": "linear",
    "linear_path": True,
}
SETTINGS = {
    "model.name": "dense",
    **{f"model.dense.{name}": value for name, value in PATH.items()},
    "train.latent_size": VALUES,
    "train.learning_rate": 0.003,
    "train.batch_size": 64,
    "train.epochs": 8,
    "train.rate_weight": 0.0002,
    "train.rate_code": "separate",
    "train.device": "cpu",
    "train.autocast": False,
    "quantiser.levels": 256,
}


def vectors(rows, seed=0):
    """Float vectors around an offset, most of whose variance lies in few directions: what PCA is good at."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(VALUES, VALUES)))[0]
    return (random.normal(size=(rows, VALUES)) * 0.6 ** np.arange(VALUES) @ turn + 0.5).astype(np.float32)


def model_of(latent_size=VALUES, **options):
    torch.manual_seed(0)
    return build_model("dense", (VALUES,), latent_size, dict(Options.model_validate({**PATH, **options})))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    return {
        name: write_rows(folder / f"{name}.parquet", vectors(rows, seed), id=list(range(rows)))
        for seed, (name, rows) in enumerate({"train": 600, "validation": 100, "test": 200}.items())
    }


@pytest.fixture(scope="module")
def trained(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "codec"
    params = replaced(Params(), {**SETTINGS, "train.neighbour_weight": 0.001})
    build_codec(sets["train"], sets["validation"], params, folder, {}, lambda epoch: None)
    return folder


def test_a_linear_path_begins_as_pca(sets):
    scaling = fit_scaling(sets["train"])
    mean, components = fit_pca(sets["train"], scaling, 10_000)
    model = model_of(5).eval()
    begin_as_klt(model, MemoryRows(sets["train"].load().pixels, torch.device("cpu")), scaling, 0.0)
    x = torch.from_numpy((sets["test"].load().pixels - scaling.offset) / scaling.scale).float()
    kept = torch.from_numpy(components[:5].copy()).float()
    centre = torch.from_numpy(mean).float()
    wanted = (x - centre) @ kept.t() @ kept + centre
    torch.testing.assert_close(model.decode(model.encode(x)).detach(), wanted, rtol=0, atol=1e-4)


def test_first_steps_are_those_that_are_worth_the_rate_weight(sets):
    """One bit less in a value makes its squared error, step ** 2 / 12, four times as large."""
    scaling = Scaling(offset=0.0, scale=1.0)
    model = model_of()
    begin_as_klt(model, MemoryRows(sets["train"].load().pixels, torch.device("cpu")), scaling, 0.0002)
    step = float(model.decoder_path.weight[:, 0].detach().norm()) / 4
    gained = 2 * np.log(2) * step**2 / 12 / VALUES
    assert gained == pytest.approx(0.0002, rel=1e-3)


def test_more_latents_than_values_stay_unused_at_first(sets):
    scaling = fit_scaling(sets["train"])
    model = model_of(VALUES + 3)
    begin_as_klt(model, MemoryRows(sets["train"].load().pixels, torch.device("cpu")), scaling, 0.0)
    z = model.encode(torch.rand(4, VALUES))
    assert (z[:, VALUES:] == 0).all()
    assert (z[:, :VALUES] != 0).any()


@pytest.mark.slow
def test_leaving_a_klt_that_is_nearly_perfect_is_no_divergence(tmp_path):
    """Three columns, of which two go together: before training the loss was a hundredth of what steps then made."""
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 1000))
    rows = np.stack([one, 2 * one + 0.1 * other, 0 * one], 1).astype(np.float32)
    samples = write_rows(tmp_path / "rows.parquet", rows, id=list(range(1000)))
    settings = {"train.latent_size": 2, "train.learning_rate": 0.01, "train.rate_weight": 1e-6, "train.batch_size": 16}
    settings |= {"train.rate_latents": "rounded", "train.neighbour_weight": 0.005, "model.dense.hidden_sizes": []}
    params = replaced(Params(), {**SETTINGS, **settings})
    build_codec(samples, samples, params, tmp_path / "codec", {}, lambda epoch: None)
    codec = Codec.load(tmp_path / "codec")
    assert np.square(codec.decode(codec.encode(rows)) - rows).mean() < 0.02 * rows.var(0).mean()


def test_a_trained_linear_path_is_in_the_codec_and_no_worse_than_the_pca_that_it_began_as(sets, trained):
    codec = Codec.load(trained)
    assert codec.header.model.options["linear_path"] is True
    assert {"encoder_path.weight", "decoder_path.weight"} <= set(codec.model.state_dict())
    pixels = sets["test"].load().pixels
    decoded = codec.decode(codec.encode(pixels))
    error = np.square((decoded - pixels) / codec.header.scaling.scale).mean()
    # The step that the rate weight asks for, as if nothing had been learned since.
    step = np.sqrt(6 * VALUES * 0.0002 / np.log(2))
    assert error < 1.1 * step**2 / 12


def test_dimensions_that_carry_nothing_are_cut_out_of_both_paths():
    model = model_of(6).eval()
    few = freeze(model, "dense", torch.tensor([0, 4]))
    assert few.encoder_path.weight.shape == (2, VALUES)
    assert few.decoder_path.weight.shape == (VALUES, 2)
    x = torch.rand(5, VALUES)
    whole = freeze(model, "dense")
    z = whole.encode(x)
    torch.testing.assert_close(few.encode(x), z[:, [0, 4]])
    torch.testing.assert_close(few.decode(z[:, [0, 4]]), whole.decode(z * torch.tensor([1.0, 0, 0, 0, 1, 0])))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"latent_norm": "batch"}, "latent_norm: batch"),
        ({"output_activation": "sigmoid"}, "output_activation: sigmoid"),
        ({"latent_activation": "relu"}, "latent_activation: relu"),
    ],
)
def test_settings_under_which_it_could_not_begin_as_pca_are_refused(options, found):
    with pytest.raises(ValueError, match=rf"linear_path: true begins as the KLT.*found {found}"):
        Options.model_validate({**PATH, **options})


def test_integers_are_refused_and_so_are_rows_that_pca_is_not_computed_for(sets):
    with pytest.raises(ConfigError, match=r"integer needs .*without linear_path, found relu, identity, true"):
        replaced(Params(), {**SETTINGS, "train.arithmetic": "integer"})
    params = replaced(Params(), SETTINGS)
    assert not params.may_be_integer
    spec = sets["train"].spec
    assert not list(misfits(params, spec))
    (wide,) = misfits(params, type(spec)((9000,), "float32"))
    assert "true begins as PCA with all components, which rows of more than 8192 values do not get" in wide


def test_codecs_without_one_do_not_say_so_and_keep_their_fingerprints(sets, tmp_path):
    params = replaced(Params(), {**SETTINGS, "model.dense.linear_path": False, "train.epochs": 1})
    header, _ = build_codec(sets["train"], sets["validation"], params, tmp_path / "codec", {}, lambda epoch: None)
    assert "linear_path" not in header.model.options
    assert header.model.arguments["linear_path"] is False
    for path in GOLDEN.glob("store-*/_codec/codec.json"):
        values = json.loads(path.read_bytes())
        assert fingerprint(values) == values["fingerprint"]


def test_the_neighbour_loss_is_nothing_where_nothing_changed_and_grows_with_the_noise():
    x = torch.from_numpy(vectors(700))
    losses = [float(neighbour_loss(x, x + noise * torch.randn_like(x), 0.0)) for noise in (0.0, 0.05, 0.2)]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[0] < losses[1] < losses[2]


def test_the_neighbour_loss_is_of_angles_as_seen_from_zero():
    x = torch.from_numpy(vectors(100))
    assert float(neighbour_loss(x, 3 * x, 0.0)) == pytest.approx(0, abs=1e-6)
    scaled, zero = (x + 2) / 5, 2 / 5  # as `fit` scales
    noisy = x + 0.1 * torch.randn_like(x)
    assert float(neighbour_loss(scaled, (noisy + 2) / 5, zero)) == pytest.approx(
        float(neighbour_loss(x, noisy, 0.0)), rel=1e-3
    )


def test_a_single_row_has_no_neighbours_to_lose():
    assert float(neighbour_loss(torch.ones(1, 3), torch.zeros(1, 3), 0.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_who_trains_for_neighbours_finds_more_of_them(sets, tmp_path):
    """Three latents for twelve values: what a codec keeps is its choice."""
    pixels = sets["test"].load().pixels
    found = {}
    for weight in (0.0, 0.02):
        changes = {"train.latent_size": 3, "train.rate_weight": 0.0, "train.neighbour_weight": weight}
        params = replaced(Params(), {**SETTINGS, **changes, "train.epochs": 40})
        folder = tmp_path / str(weight)
        build_codec(sets["train"], sets["validation"], params, folder, {}, lambda epoch: None)
        codec = Codec.load(folder)
        kept = Neighbours()
        kept.add(pixels, codec.decode(codec.encode(pixels)))
        found[weight] = kept.recall()
    assert found[0.02] > found[0.0]


@torch.no_grad()
def test_no_neighbour_weight_is_the_loss_of_before():
    model, x = model_of().eval(), torch.rand(8, VALUES)
    plain = model.loss(x, x, TrainParams())
    assert float(plain) == pytest.approx(float(torch.nn.functional.mse_loss(model.decode(model.encode(x)), x)))
    assert float(model.loss(x, x, TrainParams(neighbour_weight=0.1))) > float(plain)
