"""evaluation/measures/metrics.py: against values computed by hand and against scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from ae_pipeline.evaluation.measures.metrics import bce, mae, mse, psnr_of, ssim


def rows(*values):
    return np.array(values, np.float32)


def images(shape, seed=0):
    """Smooth-ish pictures and noisy copies of them."""
    random = np.random.default_rng(seed)
    original = np.cumsum(random.random(shape), axis=2)
    original /= original.max()
    decoded = np.clip(original + random.normal(0, 0.1, shape), 0, 1)
    return original.astype(np.float32), decoded.astype(np.float32)


def test_errors_of_each_row_by_hand():
    original, decoded = rows([0, 0.5], [1, 0]), rows([0.5, 0.5], [0, 0.25])
    np.testing.assert_allclose(mse(original=original, decoded=decoded), [0.125, (1 + 0.0625) / 2])
    np.testing.assert_allclose(mae(original=original, decoded=decoded), [0.25, 0.625])


def test_errors_are_means_over_all_values_of_a_row_whatever_its_shape():
    original, decoded = images((3, 4, 5, 2))
    flat = {"original": original.reshape(3, 40), "decoded": decoded.reshape(3, 40)}
    for metric in (mse, mae, bce):
        np.testing.assert_allclose(metric(original=original, decoded=decoded), metric(**flat))


def test_cross_entropy_by_hand():
    found = bce(original=rows([1.0, 0.25]), decoded=rows([0.5, 0.5]))
    np.testing.assert_allclose(found, [math.log(2)], rtol=1e-6)
    found = bce(original=rows([0.25]), decoded=rows([0.75]))
    np.testing.assert_allclose(found, [-(0.25 * math.log(0.75) + 0.75 * math.log(0.25))], rtol=1e-6)


def test_cross_entropy_of_certain_values_is_finite_and_that_of_half_an_8_bit_step():
    right, wrong = (
        bce(original=rows([0.0], [1.0]), decoded=rows([0.0], [1.0])),
        bce(original=rows([1]), decoded=rows([0])),
    )
    np.testing.assert_allclose(right, [-math.log(1 - 0.5 / 255)] * 2, rtol=1e-3)
    np.testing.assert_allclose(wrong, [-math.log(0.5 / 255)], rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 28, 28), (4, 12, 17), (3, 16, 16, 3)], ids=["square", "oblong", "colour"])
def test_structural_similarity_is_that_of_scikit_image(shape):
    original, decoded = images(shape)
    wanted = [
        structural_similarity(
            x.astype(np.float64),
            y.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1 if len(shape) == 4 else None,
        )
        for x, y in zip(original, decoded, strict=True)
    ]
    assert 0.1 < min(wanted) < max(wanted) < 0.99
    np.testing.assert_allclose(ssim(original=original, decoded=decoded), wanted, rtol=1e-9)


def test_structural_similarity_of_constant_pictures_by_hand():
    # Without variance, only the luminance term remains.
    original, decoded = np.full((1, 14, 14), 0.5, np.float32), np.full((1, 14, 14), 0.25, np.float32)
    wanted = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    np.testing.assert_allclose(ssim(original=original, decoded=decoded), [wanted], rtol=1e-6)


@pytest.mark.parametrize("size", [3, 4, 7, 10, 11])
def test_structural_similarity_of_small_pictures_uses_the_largest_window_that_fits(size):
    original, decoded = images((2, size, size + 3))
    values = ssim(original=original, decoded=decoded)
    assert np.isfinite(values).all()
    assert (values < ssim(original=original, decoded=original)).all()


@pytest.mark.parametrize("shape", [(5, 40), (5, 2, 30), (5, 3, 4, 2, 2)])
def test_rows_that_are_no_pictures_have_no_structural_similarity(shape):
    values = np.zeros(shape, np.float32)
    found = ssim(original=values, decoded=values)
    assert found.shape == (5,)
    assert np.isnan(found).all()


def test_psnr_by_hand_and_none_where_nothing_was_lost():
    assert psnr_of(0.01) == pytest.approx(20.0)
    assert psnr_of(0.001) == pytest.approx(30.0)
    assert psnr_of(0.0) is None
