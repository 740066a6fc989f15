"""Source `synthetic`: seeded pictures of blurred blobs crossed by a bar; no network. For tests and trials."""

from pathlib import Path

import numpy as np

from ae_pipeline.data.idx import write_idx
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.sources.base import Announced
from ae_pipeline.sources.idx import IMAGES, LABELS, IdxFiles


class Synthetic(IdxFiles):
    """uint8 pictures; the label says which way the bar runs (0 level, 1 upright)."""

    def __init__(self, *, train_rows: int, test_rows: int, height: int, width: int, seed: int):
        self._rows = {"train": train_rows, "test": test_rows}
        self._height, self._width, self._seed = height, width, seed

    def fetch(self, raw: Path) -> None:
        """Draw the pictures; the same ones for the same options."""
        for number, (split, rows) in enumerate(self._rows.items()):
            images, labels = self._draw(np.random.default_rng([self._seed, number]), rows)
            write_idx(raw / IMAGES[split], images)
            write_idx(raw / LABELS[split], labels)

    def announce(self) -> Announced:
        return Announced(SampleSpec((self._height, self._width), "uint8"), self._rows["train"], self._rows["test"])

    def _draw(self, random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = self._height, self._width
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        centre = random.uniform(0.25, 0.75, (rows, 2, 1, 1)).astype(np.float32)
        radius = random.uniform(0.12, 0.25, (rows, 1, 1)).astype(np.float32) * min(height, width)
        distance2 = (y - centre[:, 0] * height) ** 2 + (x - centre[:, 1] * width) ** 2
        pictures = np.exp(-distance2 / (2 * radius**2))
        labels = random.integers(0, 2, rows)
        place = random.integers(1, min(height, width) - 1, rows)
        for row in range(rows):
            bar = pictures[row, place[row]] if labels[row] == 0 else pictures[row, :, place[row]]
            np.maximum(bar, 0.8, out=bar)
        return np.round(pictures * 255).astype(np.uint8), labels.astype(np.uint8)


SOURCE = Synthetic
