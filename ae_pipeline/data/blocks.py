"""Consecutive rows in memory: attributes as an Arrow table, values as an array."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Block:
    """Consecutive rows: attributes (id first) as Arrow, pixels as (rows, *shape)."""

    attributes: pa.Table
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> "Block":
        """Some of the rows, not copied."""
        return Block(self.attributes[rows], self.pixels[rows])


def recut(blocks: Iterable[Block], rows: int) -> Iterator[Block]:
    """Cut the same rows into blocks of `rows`; only the last one may be shorter."""
    pending: list[Block] = []
    count = 0
    for block in blocks:
        rest = block
        while count + len(rest) >= rows:
            yield joined([*pending, rest[: rows - count]])
            rest, pending, count = rest[rows - count :], [], 0
        if len(rest):
            pending.append(rest)
            count += len(rest)
    if pending:
        yield joined(pending)


def joined(blocks: list[Block]) -> Block:
    """Put the rows of all blocks into one."""
    if len(blocks) == 1:
        return blocks[0]
    attributes = pa.concat_tables([block.attributes for block in blocks])
    return Block(attributes, np.concatenate([block.pixels for block in blocks]))
