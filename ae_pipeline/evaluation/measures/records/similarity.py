"""Structural similarity (SSIM) of each place of pictures.

Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE TIP
13(4), 2004: Gaussian window, sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, population covariance, windows inside the
picture only.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LARGEST_WINDOW, LEAST_WINDOW = 11, 3


def window_of(height: int, width: int) -> int:
    """Pixels a side of the window: 11, or the largest odd number that fits; less than 3 is none."""
    return min(LARGEST_WINDOW, *(length - 1 + length % 2 for length in (height, width)))


def similarities(original: np.ndarray, decoded: np.ndarray, size: int) -> "torch.Tensor":
    """Similarity at each place of a window: pictures (n, H, W[, C]) to (n, C, H - size + 1, W - size + 1)."""
    x, y = _images(original), _images(decoded)
    mean_x, mean_y = _blur(x, size), _blur(y, size)
    variance_x = _blur(x * x, size) - mean_x**2
    variance_y = _blur(y * y, size) - mean_y**2
    covariance = _blur(x * y, size) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * structure


def _images(values: np.ndarray) -> "torch.Tensor":
    """(n, height, width[, channels]) to (n, channels, height, width) in double precision."""
    import torch  # not to know the names of metrics

    tensor = torch.from_numpy(np.ascontiguousarray(values)).double()
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.movedim(-1, 1)


def _blur(images: "torch.Tensor", size: int) -> "torch.Tensor":
    """Gaussian window of `size`, applied along rows and columns, without padding."""
    import torch
    from torch.nn import functional

    offset = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-(offset**2) / (2 * 1.5**2))
    window /= window.sum()
    channels = images.shape[1]
    down = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(images, down, groups=channels), across, groups=channels)
