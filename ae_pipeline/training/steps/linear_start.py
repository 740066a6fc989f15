"""Where a model with a linear path begins: at the KLT (PCA) of the train rows, which training then has to beat."""

import math

import torch
from torch import Tensor

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.header import Scaling
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.training.batches import Rows
from ae_pipeline.training.rate import FIRST_STEPS

_BATCH_ROWS = 8192


@torch.no_grad()
def begin_as_klt(model: Autoencoder, rows: Rows, scaling: Scaling, rate_weight: float) -> None:
    """Make `model`, which `begins_as_klt`, the KLT of train rows, in place.

    Its latents are such that a rate model's first steps are the best that all dimensions can share at this
    `rate_weight`; without one, a latent of 1 is a standard deviation of the largest component.
    """
    mean, covariance = _moments(rows, scaling)
    variances, vectors = torch.linalg.eigh(covariance)  # rising
    values = len(mean)
    if rate_weight:
        # A step s has the error s ** 2 / 12 in each value, and one bit less in one of them costs 2 ln(2) times that,
        # divided by all values in the mean: what one bit is worth, rate_weight.
        unit = FIRST_STEPS * math.sqrt(6 * values * rate_weight / math.log(2))
    else:
        unit = math.sqrt(max(float(variances[-1]), 1e-12))
    device = next(model.parameters()).device
    model.begin_as_klt(mean.float().to(device), vectors.flip(1).t().contiguous().float().to(device), unit)


def _moments(rows: Rows, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Mean (values,) and covariance (values, values) of scaled rows, float64 on the CPU."""
    total: Tensor | None = None
    products: Tensor | None = None
    middle: Tensor | None = None
    for pixels in rows.in_order(_BATCH_ROWS):
        x = scale_pixels(pixels.float(), scaling).flatten(1).cpu()
        if total is None or products is None or middle is None:
            middle = x.mean(0)  # products of values far from zero would hide small variances
            total = torch.zeros(x.shape[1], dtype=torch.float64)
            products = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        x = x - middle
        total += x.double().sum(0)
        products += x.t() @ x
    assert total is not None
    assert products is not None
    assert middle is not None
    mean = total / rows.rows
    return middle.double() + mean, products / rows.rows - torch.outer(mean, mean)
