"""Batches for training: the whole split as one tensor on the device, or streamed from its shards."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import psutil
import torch
from torch import Tensor

from ae_pipeline.codec.arithmetic import moved
from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.value_range import scaled_by

# The share of the device's free memory that the train split may take.
_MEMORY_SHARE = 0.4
_BLOCK_ROWS = 4096
# Rows that are mixed with each other when streaming.
_SHUFFLE_ROWS = 65_536


class Rows(ABC):
    """A split that can be gone through many times."""

    rows: int
    """How many there are."""

    @abstractmethod
    def shuffled(self, batch_size: int, generator: torch.Generator, skipped: int = 0) -> Iterator[Tensor]:
        """Batches (n, *shape) on the device, in an order that depends on the generator only; some of them skipped."""

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


class StreamedRows(Rows):
    """Rows read from Parquet each time. Shuffles the order of shards, and rows within a window."""

    def __init__(self, samples: SampleSet, device: torch.device):
        self._samples, self._device, self.rows = samples, device, samples.rows

    def shuffled(self, batch_size: int, generator: torch.Generator, skipped: int = 0) -> Iterator[Tensor]:
        """Batches from a window of rows that is filled shard by shard and shuffled whenever it is full."""
        shards = torch.randperm(len(self._samples.shards), generator=generator).tolist()
        yield from islice(self._batches(shards, max(_SHUFFLE_ROWS, batch_size), batch_size, generator), skipped, None)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches in the order of the split."""
        yield from self._batches(range(len(self._samples.shards)), batch_size, batch_size, None)

    def _batches(
        self, shards: Iterable[int], window_rows: int, batch_size: int, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        left: Tensor | None = None
        for window in self._windows(shards, window_rows):
            rows = torch.from_numpy(window)
            if generator is not None:
                rows = rows[torch.randperm(len(rows), generator=generator)]
            if left is not None:
                rows = torch.cat([left, rows])
            *whole, left = rows.split(batch_size)
            if len(left) == batch_size:
                whole, left = [*whole, left], None
            for batch in whole:
                yield moved(batch, self._device)
        if left is not None:
            yield moved(left, self._device)

    def _windows(self, shards: Iterable[int], rows: int) -> Iterator[np.ndarray]:
        pending: list[np.ndarray] = []
        for shard in shards:
            for block in self._samples.blocks(self._samples.shards[shard], _BLOCK_ROWS):
                pending.append(block.pixels)
                if sum(map(len, pending)) >= rows:
                    yield np.concatenate(pending)
                    pending = []
        if pending:
            yield np.concatenate(pending)


def open_rows(samples: SampleSet, mode: str, device: torch.device) -> Rows:
    """`memory`, `stream`, or `auto`: memory when the split fits."""
    if mode == "auto":
        mode = "memory" if samples.nbytes <= _MEMORY_SHARE * _free_memory(device) else "stream"
    return MemoryRows(samples.load().pixels, device) if mode == "memory" else StreamedRows(samples, device)


def fit_scaling(samples: SampleSet) -> Scaling:
    """Integers are scaled by their type's range, floats by the least and greatest value of the train split."""
    offset, scale = scaled_by(samples.spec.dtype, samples.measure_range() if samples.spec.dtype == "float32" else None)
    return Scaling(offset=offset, scale=scale)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
