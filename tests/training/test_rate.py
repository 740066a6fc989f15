"""rate.py and what training makes of it: bits that are the store's, steps that are the codec's, one dial."""

import math

import numpy as np
import pytest
import torch
from test_training import GIT, with_knobs

from ae_pipeline.codec.codec import Codec, freeze
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.models import build_model
from ae_pipeline.models.conv import Options as ConvOptions
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.params import Params
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.rate import RateModel


def rate_model(latent_size=3, seed=0, *, shared=False):
    """Densities and steps unlike each other."""
    torch.manual_seed(seed)
    model = RateModel(latent_size, shared=shared)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def test_probabilities_of_all_integers_sum_to_one():
    integers = torch.arange(-2000.0, 2001)
    model = rate_model(latent_size=1).requires_grad_(False)
    assert float(torch.exp2(-model.bits(integers[:, None])).sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_bits_of_a_row_are_the_sum_over_its_dimensions(shared):
    model = rate_model(shared=shared)
    y = torch.round(3 * torch.randn(5, 3))
    alone = sum(model.of(torch.tensor([number])).bits(y[:, number : number + 1]) for number in range(3))
    torch.testing.assert_close(model.bits(y), alone)
    steps = model.of(torch.tensor([2, 0])).log_steps
    torch.testing.assert_close(steps, model.log_steps[[2, 0]])


def test_one_code_costs_a_value_the_same_in_every_dimension():
    values = torch.arange(-5.0, 6)
    together, apart = (rate_model(shared=shared).requires_grad_(False) for shared in (True, False))
    alone = [together.of(torch.tensor([number])).bits(values[:, None]) for number in range(3)]
    torch.testing.assert_close(alone[0], alone[1])
    assert not torch.allclose(
        apart.of(torch.tensor([0])).bits(values[:, None]), apart.of(torch.tensor([1])).bits(values[:, None])
    )


def test_values_that_nobody_expects_cost_much_but_not_without_end():
    model = rate_model()
    costs = model.bits(torch.tensor([[0.0] * 3, [20.0] * 3, [1e6] * 3]))
    assert costs[0] < costs[1] < costs[2] == 3 * -math.log2(1e-9)


def test_training_adds_noise_of_one_step_and_evaluation_rounds():
    model, z = rate_model().requires_grad_(False), torch.randn(4000, 3)
    steps = model.log_steps.exp()
    noise = (model.train()(z)[0] - z) * steps
    assert noise.abs().max() <= 0.5 + 1e-5
    assert float(noise.var()) == pytest.approx(1 / 12, rel=0.05)
    rounded, bits = model.eval()(z)
    torch.testing.assert_close(rounded * steps, torch.round(z * steps))
    torch.testing.assert_close(bits, model.bits(torch.round(z * steps)))


@pytest.mark.parametrize(("name", "options"), [("dense", DenseOptions(hidden_sizes=[9])), ("conv", ConvOptions())])
def test_dimensions_left_out_are_zeros_to_the_decoder(name, options):
    torch.manual_seed(0)
    model = build_model(name, (8, 6), 5, dict(options)).eval()
    whole = freeze(model, name)
    some = freeze(model, name, torch.tensor([1, 4]))
    x, z = torch.rand(7, 8, 6), torch.zeros(7, 5)
    z[:, [1, 4]] = torch.randn(7, 2)
    assert some.latent_size == 2
    torch.testing.assert_close(some.encode(x), whole.encode(x)[:, [1, 4]])
    torch.testing.assert_close(some.decode(z[:, [1, 4]]), whole.decode(z))


def test_only_dimensions_that_carry_something_are_kept_and_at_least_one():
    model, z = RateModel(3, shared=True), torch.randn(5000, 3)
    z[:, 1] = 0.05  # rounds to zero
    assert model.used(z).tolist() == [0, 2]
    assert len(model.used(torch.zeros(10, 3))) == 1


@pytest.mark.parametrize("most", [5, 256])
def test_the_quantiser_is_the_one_that_was_trained_for(most):
    model, z = rate_model().eval(), torch.randn(5000, 3)
    quantiser = model.quantiser(z, torch.tensor([0, 2]), most)
    integers = torch.round(z * model.log_steps.exp())[:, [0, 2]]
    assert quantiser.levels == min(most, 2 * int(integers.abs().max()) + 1)
    q = quantiser.quantise(z[:, [0, 2]])
    assert torch.equal(q.float(), integers.clamp(quantiser.lowest, quantiser.highest))
    if most == 256:
        torch.testing.assert_close(quantiser.dequantise(q), model(z)[0][:, [0, 2]])


def built(prepared, params, folder, **knobs):
    """A codec, its latents of the test rows, their error, and what `fit` returned."""
    train, validation, test = (SampleSet.open(prepared / name) for name in ("train", "validation", "test"))
    _, fitted = build_codec(train, validation, with_knobs(params, **knobs), folder, GIT, lambda epoch: None)
    codec, pixels = Codec.load(folder), test.load().pixels
    latents = codec.encode(pixels)
    error = float(np.square((codec.decode(latents).astype(float) - pixels) / 255).mean())
    return codec, latents, error, fitted


def entropy(latents):
    """Bits per row, each dimension with a code of its own."""
    total = 0.0
    for column in latents.T:
        shares = np.unique(column, return_counts=True)[1] / len(column)
        total -= float((shares * np.log2(shares)).sum())
    return total


@pytest.fixture(scope="module")
def params(tiny_params):
    tree = tiny_params.model_dump()
    tree["quantiser"]["levels"] = 256
    tree["train"] |= {"latent_size": 8, "epochs": 60, "patience": 0, "loss": "mse", "learning_rate": 0.01}
    return Params.model_validate(tree)


@pytest.mark.slow
def test_the_dial_trades_bits_for_error(synthetic_prepared, params, tmp_path):
    found = [
        built(synthetic_prepared, params, tmp_path / f"{weight}", rate_weight=weight) for weight in (1e-5, 1e-3, 1e-2)
    ]
    bits, errors = [entropy(latents) for _, latents, _, _ in found], [error for _, _, error, _ in found]
    assert bits[0] > 1.3 * bits[1] > 1.3 * 1.3 * bits[2]
    assert errors == sorted(errors)


@pytest.mark.slow
def test_bits_that_were_trained_for_are_those_of_the_latents(synthetic_prepared, params, tmp_path):
    codec, latents, _, fitted = built(synthetic_prepared, params, tmp_path / "codec", rate_weight=1e-4)
    assert fitted.rate is not None
    assert len(fitted.rate.log_steps) == 8 >= codec.latent_size
    # One code for all: which dimensions were left out does not matter.
    rate = fitted.rate.of(torch.arange(codec.latent_size)).eval().requires_grad_(False)
    told = float(rate.bits(torch.from_numpy(latents).float()).mean())
    assert told == pytest.approx(codec.latent_size * entropy(latents.reshape(-1, 1)), rel=0.1)


@pytest.mark.slow
def test_without_a_rate_weight_nothing_is_learned_about_bits(synthetic_prepared, params, tmp_path):
    codec, latents, _, fitted = built(synthetic_prepared, params, tmp_path / "codec", rate_weight=0.0)
    assert fitted.rate is None
    assert codec.header.quantiser.levels == 256
    assert latents.shape[1] == 8
