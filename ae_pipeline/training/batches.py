"""Batches for training: what a split can do, and one that is a single tensor on the device."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.value_range import scaled_by


class Rows(ABC):
    """A split that can be gone through many times."""

    rows: int
    """How many there are."""

    @abstractmethod
    def shuffled(self, batch_size: int, generator: torch.Generator, skipped: int = 0) -> Iterator[Tensor]:
        """Batches (n, *shape) on the device, in an order that depends on the generator only; some of them skipped."""

    def few(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Shuffled batches for somebody who wants the first ones only."""
        return self.shuffled(batch_size, generator)

    @abstractmethod
    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches (n, *shape) on the device, in the order of the split."""


class MemoryRows(Rows):
    """All rows in one tensor on the device, in the samples' own dtype."""

    def __init__(self, pixels: np.ndarray, device: torch.device):
        self._pixels = torch.from_numpy(pixels).to(device)
        self.rows = len(pixels)

    def shuffled(self, batch_size: int, generator: torch.Generator, skipped: int = 0) -> Iterator[Tensor]:
        """Batches by one random permutation of all rows."""
        order = torch.randperm(self.rows, generator=generator).to(self._pixels.device)
        for chosen in order.split(batch_size)[skipped:]:
            yield self._pixels.index_select(0, chosen)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches in the order of the split."""
        yield from self._pixels.split(batch_size)


def fit_scaling(samples: SampleSet) -> Scaling:
    """Integers are scaled by their type's range, floats by the least and greatest value of the train split."""
    offset, scale = scaled_by(samples.spec.dtype, samples.measure_range() if samples.spec.dtype == "float32" else None)
    return Scaling(offset=offset, scale=scale)
