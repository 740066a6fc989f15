"""Metrics of whole pictures: lines (n, width[, channels]), float64 of range 1, as the decoded file has them.

- `PicturePsnr`: peak signal-to-noise ratio of all values of a picture, dB.
- `PictureSsim`: structural similarity (similarity.py), mean over all places of the window: also those where tiles meet.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ae_pipeline.evaluation.measures.records.similarity import LEAST_WINDOW, similarities, window_of


class PicturePsnr:
    """PSNR of a picture in dB; infinite without any error."""

    def __init__(self, line: Mapping[str, Any]):  # noqa: ARG002
        self._error, self._values = 0.0, 0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        self._error += float(np.square(decoded - original).sum())
        self._values += original.size

    def value(self) -> float:
        return float(-10 * np.log10(self._error / self._values)) if self._error else float("inf")


class PictureSsim:
    """SSIM of a picture; NaN for one that is narrower or lower than 3 pixels."""

    def __init__(self, line: Mapping[str, Any]):
        self._size = window_of(line["picture_height"], line["picture_width"])
        self._held: np.ndarray | None = None
        self._sum, self._places = 0.0, 0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        if self._size < LEAST_WINDOW:
            return
        new = np.stack([original, decoded])
        both = new if self._held is None else np.concatenate([self._held, new], axis=1)
        if both.shape[1] >= self._size:
            found = similarities(both[:1], both[1:], self._size)
            self._sum += float(found.sum())
            self._places += found.numel()
            both = both[:, both.shape[1] - self._size + 1 :]
        self._held = both

    def value(self) -> float:
        return self._sum / self._places if self._places else float("nan")
