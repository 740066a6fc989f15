"""Rows that do not fit in memory: read from their shards in each epoch, and mixed in a shuffle buffer.

An epoch reads the shards in an order of its own. Their rows fill a buffer; half of what is in it comes out in random
order, batch by batch, and each place is filled by the next row that is read as soon as its own is gone. So every row
comes once an epoch, at the earliest when the buffer was filled up to it, and may stay for long. Order and places are
drawn from the generator alone: the same state of it gives the same epoch again, whoever reads and however fast.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from ae_pipeline.codec.arithmetic import moved
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError
from ae_pipeline.params import TrainParams
from ae_pipeline.training.batches import MemoryRows, Rows

_GIB = 1 << 30
# The share of the device's free memory that rows may take, where train.memory does not say.
_MEMORY_SHARE = 0.4
# What the shuffle buffer takes, where it does not say: no share, as results must not depend on the machine.
_BUFFER_BYTES = _GIB
# What the order of a buffer takes for each place.
_PLACE_BYTES = 24
# Batches in the buffer where only some are wanted.
_FEW = 8
# Blocks that are read at once, and how many of them are read ahead.
_BLOCK_BYTES, _BLOCK_ROWS, _AHEAD = 8 << 20, 4096, 2


@dataclass(frozen=True)
class RowsPlan:
    """Where a training has its rows."""

    mode: Literal["memory", "stream"]
    buffer_rows: int = 0
    """Places of the shuffle buffer, of a streamed split."""
    reason: str = ""
    """Why, in words."""

    def describe(self, train: SampleSet) -> str:
        """One line for people, of streamed rows."""
        share = f"{self.buffer_rows:,} of {train.rows:,} rows ({self.buffer_rows * train.spec.nbytes / _GIB:.2f} GiB)"
        return f"the train split is streamed: {self.reason}; the shuffle buffer holds {share} at a time"


def plan_rows(train: SampleSet, validation: SampleSet, params: TrainParams, device: torch.device) -> RowsPlan:
    """Decide, as `train.data` says, whether both splits are kept in memory; `auto`: if both fit."""
    needed = train.nbytes + validation.nbytes
    limit = _MEMORY_SHARE * _free_memory(device) if params.memory is None else params.memory * _GIB
    reason = f"train.data: {params.data}"
    mode = params.data
    if mode == "auto":
        mode = "memory" if needed <= limit else "stream"
        whose = f"{_MEMORY_SHARE:.0%} of what is free" if params.memory is None else "train.memory"
        reason = f"it and the validation split take {needed / _GIB:.2f} GiB, more than {limit / _GIB:.2f} GiB ({whose})"
    if mode == "memory":
        return RowsPlan("memory")
    buffer = _BUFFER_BYTES if params.memory is None else params.memory * _GIB
    rows = min(train.rows, max(2 * params.batch_size, int(buffer) // (train.spec.nbytes + _PLACE_BYTES)))
    return RowsPlan("stream", rows, reason)


def open_rows(samples: SampleSet, plan: RowsPlan, device: torch.device) -> Rows:
    """The rows of a split, as planned."""
    if plan.mode == "memory":
        return MemoryRows(samples.load().pixels, device)
    return StreamedRows(samples, device, plan.buffer_rows)


class StreamedRows(Rows):
    """Rows that are read from Parquet each time; at most `buffer_rows` of them, and some blocks, are in memory."""

    def __init__(self, samples: SampleSet, device: torch.device, buffer_rows: int):
        self._samples, self._device, self._buffer_rows = samples, device, buffer_rows
        self.rows = samples.rows

    def shuffled(self, batch_size: int, generator: torch.Generator, skipped: int = 0) -> Iterator[Tensor]:
        """Batches by way of the shuffle buffer. Those that are skipped are read, too: they are part of the order."""
        shards = torch.randperm(len(self._samples.shards), generator=generator).tolist()
        size = min(self.rows, max(self._buffer_rows, 2 * batch_size))
        buffer = _Buffer(self._pieces(shards), np.empty((size, *self._samples.spec.shape), self._samples.spec.dtype))
        for number, batch in enumerate(buffer.batches(self.rows, batch_size, generator)):
            if number >= skipped:
                yield moved(torch.from_numpy(batch), self._device)

    def few(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches by way of a small buffer, which is soon full."""
        return StreamedRows(self._samples, self._device, _FEW * batch_size).shuffled(batch_size, generator)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Batches in the order of the split."""
        for batch in _cut(self._pieces(range(len(self._samples.shards))), batch_size):
            yield moved(torch.from_numpy(batch), self._device)

    def _pieces(self, shards: Iterable[int]) -> Iterator[np.ndarray]:
        """Rows (n, *shape) of these shards, read in a thread of its own."""
        rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // self._samples.spec.nbytes))
        chosen = (self._samples.shards[number] for number in shards)
        return _read_ahead(
            block.pixels for block in chain.from_iterable(self._samples.blocks(shard, rows) for shard in chosen)
        )


class _Buffer:
    """Places for rows, which come out in random order."""

    def __init__(self, pieces: Iterator[np.ndarray], places: np.ndarray):
        self._pieces, self._places = pieces, places
        self._rest = places[:0]

    def batches(self, rows: int, batch_size: int, generator: torch.Generator) -> Iterator[np.ndarray]:
        """All `rows` of the pieces, in batches (n, *shape) of which only the last one may be shorter."""
        full = np.arange(len(self._places))
        self._fill(full)
        unread = rows - len(full)
        while len(full):
            order = full[torch.randperm(len(full), generator=generator).numpy()]
            # Half, so that rows of many rounds meet; in whole batches, which at least two fit in.
            given = len(order) if not unread else max(1, len(order) // 2 // batch_size) * batch_size
            kept = [order[given:]]
            for start in range(0, given, batch_size):
                free = order[start : min(start + batch_size, given)]
                yield self._places.take(free, axis=0)
                refilled = free[:unread]
                self._fill(refilled)
                unread -= len(refilled)
                kept.append(refilled)
            full = np.concatenate(kept)

    def _fill(self, places: np.ndarray) -> None:
        while len(places):
            if not len(self._rest):
                piece = next(self._pieces, None)
                if piece is None:
                    raise DataError("a train split has fewer rows than its files said; files must not change meanwhile")
                self._rest = piece
            count = min(len(places), len(self._rest))
            self._places[places[:count]] = self._rest[:count]
            places, self._rest = places[count:], self._rest[count:]


def _cut(pieces: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Cut rows into pieces of `rows`; only the last one may be shorter."""
    pending: list[np.ndarray] = []
    missing = rows
    for piece in pieces:
        rest = piece
        while len(rest) >= missing:
            yield np.concatenate([*pending, rest[:missing]])
            rest, pending, missing = rest[missing:], [], rows
        if len(rest):
            pending.append(rest)
            missing -= len(rest)
    if pending:
        yield np.concatenate(pending)


def _read_ahead(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(next, pieces, None) for _ in range(_AHEAD))
        while (piece := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, pieces, None))
            yield piece


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
