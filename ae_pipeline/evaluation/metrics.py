"""How far decoded rows are from the originals: one value per row, on values scaled to [0, 1].

To add a metric: a function of (original, decoded), both float32 (n, *shape), that returns float64 (n,), and a line in
METRICS. `evaluate` reports the mean over rows of every metric; tests/house/test_contracts.py runs on each of them.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

RowMetric = Callable[..., np.ndarray]

# Half a step of an 8-bit pixel: a decoded 0 or 1 stands for everything that rounds to it, and its logarithm is finite.
_BCE_MARGIN = 0.5 / 255


def mse(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Mean squared error of each row."""
    # A float far outside the scaling has a square that float32 cannot hold.
    return _flat((decoded - original).astype(np.float64), np.square)


def mae(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Mean absolute error of each row."""
    return _flat(decoded - original, np.abs)


def bce(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each row in nats per value; decoded values are kept half an 8-bit step from 0 and 1.

    Originals outside [0, 1] (floats beyond the range of the train split) count as 0 or 1.
    """
    x, y = np.clip(original, 0, 1), np.clip(decoded, _BCE_MARGIN, 1 - _BCE_MARGIN)
    return -_flat(x * np.log(y) + (1 - x) * np.log1p(-y))


def ssim(*, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Structural similarity of each image, mean over pixels (and channels): 1 is perfect, NaN for rows that are none.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13(4), 2004: Gaussian window 11x11 (or the largest odd one that fits), sigma 1.5, K1 = 0.01, K2 = 0.03, data
    range 1, population covariance, windows inside the image only.
    """
    if original.ndim not in (3, 4) or min(original.shape[1:3]) < 3:
        return np.full(len(original), np.nan)
    x, y = _images(original), _images(decoded)
    size = min(11, *(length - 1 + length % 2 for length in x.shape[2:]))
    mean_x, mean_y = _blur(x, size), _blur(y, size)
    variance_x = _blur(x * x, size) - mean_x**2
    variance_y = _blur(y * y, size) - mean_y**2
    covariance = _blur(x * y, size) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    per_image: np.ndarray = (luminance * structure).mean(dim=(1, 2, 3)).numpy()
    return per_image


def psnr_of(mean_mse: float) -> float | None:
    """Peak signal-to-noise ratio in decibel for a data range of 1, of the mean MSE; None when nothing was lost."""
    return float(-10 * np.log10(mean_mse)) if mean_mse > 0 else None


METRICS: dict[str, RowMetric] = {"mse": mse, "mae": mae, "bce": bce, "ssim": ssim}


def _flat(values: np.ndarray, of: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    mean: np.ndarray = of(values).reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return mean


def _images(values: np.ndarray) -> torch.Tensor:
    """(n, height, width[, channels]) to (n, channels, height, width) in double precision."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).double()
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.movedim(-1, 1)


def _blur(images: torch.Tensor, size: int) -> torch.Tensor:
    """Gaussian window of `size`, applied along rows and columns, without padding."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-(offset**2) / (2 * 1.5**2))
    window /= window.sum()
    channels = images.shape[1]
    down = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(images, down, groups=channels), across, groups=channels)
