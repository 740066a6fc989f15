"""quantiser.py: what comes back is within half a step, and ranges are chosen by error, not by extremes."""

import pytest
import torch

from ae_pipeline.codec.quantiser import Quantiser

LEVELS = [2, 3, 4, 5, 16, 63, 64, 255, 256]


@pytest.fixture(scope="module")
def normal():
    """Latents as batch normalisation leaves them, with other scales and offsets per dimension."""
    z = torch.randn(4000, 5, generator=torch.Generator().manual_seed(3))
    return z * torch.tensor([1.0, 0.01, 100.0, 3.0, 1.0]) + torch.tensor([0.0, 5.0, -40.0, 0.5, 1e-3])


def error_of(quantiser, z):
    return (quantiser.dequantise(quantiser.quantise(z)) - z).square().mean(dim=0)


@pytest.mark.parametrize("levels", LEVELS)
def test_what_is_inside_the_range_comes_back_within_half_a_step(normal, levels):
    quantiser = Quantiser.fit(normal, levels)
    low, high = (quantiser.zero_point + q * quantiser.scale for q in (quantiser.lowest, quantiser.highest))
    steps = ((quantiser.dequantise(quantiser.quantise(normal)) - normal) / quantiser.scale).abs()
    inside = (normal >= low) & (normal <= high)
    assert inside.float().mean() > 0.7
    assert steps[inside].max() <= 0.5 + 1e-3
    below, above = quantiser.quantise(low - 1e6 * quantiser.scale), quantiser.quantise(high + 1e6 * quantiser.scale)
    assert (below == quantiser.lowest).all()
    assert (above == quantiser.highest).all()


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_fits_int8_and_comes_back_as_itself(normal, levels):
    quantiser = Quantiser.fit(normal, levels)
    assert quantiser.highest - quantiser.lowest + 1 == levels
    assert -128 <= quantiser.lowest < quantiser.highest <= 127
    q = torch.arange(quantiser.lowest, quantiser.highest + 1).to(torch.int8)[:, None].expand(-1, 5)
    assert torch.equal(quantiser.quantise(quantiser.dequantise(q)), q)
    used = quantiser.quantise(normal)
    assert used.dtype == torch.int8
    assert (used.amin(dim=0) == quantiser.lowest).all()
    assert (used.amax(dim=0) == quantiser.highest).all()


def test_more_levels_cost_less_error(normal):
    errors = torch.stack([error_of(Quantiser.fit(normal, levels), normal) for levels in (2, 4, 8, 16, 64, 256)])
    assert (errors[1:] < errors[:-1]).all()


def test_the_error_of_a_fine_quantiser_is_a_twelfth_of_its_step_squared(normal):
    quantiser = Quantiser.fit(normal, 256)
    torch.testing.assert_close(error_of(quantiser, normal), quantiser.scale**2 / 12, rtol=0.1, atol=0)


def test_a_dimension_that_never_changes_comes_back_exactly():
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    z[:, 1] = 0.1
    z[:, 2] = 0.0
    quantiser = Quantiser.fit(z, 16)
    decoded = quantiser.dequantise(quantiser.quantise(z))
    assert torch.equal(decoded[:, 1:], z[:, 1:])
    assert (quantiser.scale > 0).all()


def test_a_single_row_comes_back_exactly():
    z = torch.tensor([[0.3, -7.0]])
    quantiser = Quantiser.fit(z, 2)
    assert torch.equal(quantiser.dequantise(quantiser.quantise(z)), z)


def test_the_fitted_range_beats_the_extremes_where_tails_are_heavy():
    generator = torch.Generator().manual_seed(1)
    # Normal over the root of a chi-squared with 3 degrees of freedom: Student's t.
    chi2 = torch.randn(5000, 4, 3, generator=generator).square().sum(dim=2)
    z = torch.randn(5000, 4, generator=generator) / (chi2 / 3).sqrt()
    low, high = z.min(dim=0).values, z.max(dim=0).values
    naive = Quantiser._of_range(low, high, 16)
    fitted = Quantiser.fit(z, 16)
    assert (error_of(fitted, z) < 0.7 * error_of(naive, z)).all()


def test_the_fitted_range_is_never_worse_than_the_extremes(normal):
    for levels in LEVELS:
        naive = Quantiser._of_range(normal.min(dim=0).values, normal.max(dim=0).values, levels)
        assert (error_of(Quantiser.fit(normal, levels), normal) <= error_of(naive, normal)).all()


def test_fitting_does_not_depend_on_the_order_of_rows(normal):
    one, other = Quantiser.fit(normal, 16), Quantiser.fit(normal.flip(0), 16)
    assert torch.equal(one.scale, other.scale)
    assert torch.equal(one.zero_point, other.zero_point)
