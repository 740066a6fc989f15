"""Batches for training: the whole split as one tensor on the device, or streamed from its shards."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.value_range import measure_range, scaled_by

# The share of the device's free memory that the train split may take.
_MEMORY_SHARE = 0.4
_BLOCK_ROWS = 4096
# Rows that are mixed with each other when streaming.
_SHUFFLE_ROWS = 65_536


class Rows(Protocol):
    """A split that can be gone through many times."""

    @property
    def rows(self) -> int:
        """How many there are."""

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches (n, *shape) on the device, in an order that depends on the generator only."""

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches (n, *shape) on the device, in the order of the split."""


class MemoryRows:
    """All rows in one tensor on the device, in the samples' own dtype."""

    def __init__(self, pixels: np.ndarray, device: torch.device):
        self._pixels = torch.from_numpy(pixels).to(device)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._pixels)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches by one random permutation of all rows."""
        order = torch.randperm(self.rows, generator=generator).to(self._pixels.device)
        for chosen in order.split(batch_size):
            yield self._pixels.index_select(0, chosen)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches in the order of the split."""
        yield from self._pixels.split(batch_size)


class StreamedRows:
    """Rows read from Parquet each time. Shuffles the order of shards, and rows within a window."""

    def __init__(self, samples: SampleSet, device: torch.device):
        self._samples = samples
        self._device = device

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._samples.rows

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches from a window of rows that is filled shard by shard and shuffled whenever it is full."""
        shards = torch.randperm(len(self._samples.shards), generator=generator).tolist()
        pixels = (block for shard in shards for block in self._blocks(shard))
        yield from self._batches(_windows(pixels, max(_SHUFFLE_ROWS, batch_size)), batch_size, generator)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches in the order of the split."""
        pixels = (block for shard in range(len(self._samples.shards)) for block in self._blocks(shard))
        yield from self._batches(_windows(pixels, batch_size), batch_size, None)

    def _blocks(self, shard: int) -> Iterator[np.ndarray]:
        for block in self._samples.blocks(self._samples.shards[shard], _BLOCK_ROWS):
            yield block.pixels

    def _batches(
        self, windows: Iterator[np.ndarray], batch_size: int, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        left: Tensor | None = None
        for window in windows:
            rows = torch.from_numpy(window)
            if generator is not None:
                rows = rows[torch.randperm(len(rows), generator=generator)]
            if left is not None:
                rows = torch.cat([left, rows])
            *whole, left = rows.split(batch_size)
            if len(left) == batch_size:
                whole, left = [*whole, left], None
            for batch in whole:
                yield self._moved(batch)
        if left is not None:
            yield self._moved(left)

    def _moved(self, batch: Tensor) -> Tensor:
        if self._device.type == "cuda":
            return batch.pin_memory().to(self._device, non_blocking=True)
        return batch.to(self._device)


def open_rows(samples: SampleSet, mode: str, device: torch.device) -> Rows:
    """`memory`, `stream`, or `auto`: memory when the split fits."""
    if mode == "auto":
        mode = "memory" if samples.nbytes <= _MEMORY_SHARE * _free_memory(device) else "stream"
    return MemoryRows(samples.load().pixels, device) if mode == "memory" else StreamedRows(samples, device)


def fit_scaling(samples: SampleSet) -> Scaling:
    """Integers are scaled by their type's range, floats by the least and greatest value of the train split."""
    offset, scale = scaled_by(samples.spec.dtype, measure_range(samples) if samples.spec.dtype == "float32" else None)
    return Scaling(offset=offset, scale=scale)


def _windows(blocks: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    pending: list[np.ndarray] = []
    count = 0
    for block in blocks:
        pending.append(block)
        count += len(block)
        if count >= rows:
            yield np.concatenate(pending)
            pending, count = [], 0
    if pending:
        yield np.concatenate(pending)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
