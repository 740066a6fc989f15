"""Rows side by side in pictures of bounded size, and back: the fair way to give small images to an image codec."""

import math
from dataclasses import dataclass

import numpy as np

MOST_SIDE = 8192
"""Pixels; WebP ends at 16,383, and memory before that."""


@dataclass(frozen=True)
class Grid:
    """How many images, (height, width) each, stand beside and below each other in one picture."""

    columns: int
    lines: int

    @classmethod
    def of(cls, rows: int, height: int, width: int, most_side: int = MOST_SIDE) -> "Grid":
        """About square; no side longer than `most_side`, unless one image is."""
        columns = math.ceil(math.sqrt(rows * height / width))
        columns = max(1, min(columns, rows, most_side // width))
        lines = max(1, min(math.ceil(rows / columns), most_side // height))
        return cls(columns, lines)

    @property
    def images(self) -> int:
        """Images per picture."""
        return self.columns * self.lines

    def join(self, images: np.ndarray) -> np.ndarray:
        """At most `self.images` images (n, H, W[, C]) as one picture; places that stay empty are 0."""
        lines = math.ceil(len(images) / self.columns)
        tiles = np.zeros((lines * self.columns, *images.shape[1:]), images.dtype)
        tiles[: len(images)] = images
        height, width, *channels = images.shape[1:]
        tiles = tiles.reshape(lines, self.columns, height, width, *channels)
        return tiles.swapaxes(1, 2).reshape(lines * height, self.columns * width, *channels)

    def cut(self, picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What `join` made of images of `shape`, with the empty places."""
        height, width, *channels = shape
        tiles = picture.reshape(-1, height, self.columns, width, *channels).swapaxes(1, 2)
        return tiles.reshape(-1, *shape)
