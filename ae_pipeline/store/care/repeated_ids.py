"""Ids that several rows of a store have, found with the same memory whatever the store's size."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.data.samples import ID
from ae_pipeline.store.format.part_entries import PartEntry
from ae_pipeline.store.latent_store import LatentStore

# Ids that are held at a time: 8 bytes each, and twice that while they are sorted.
_MOST_IDS = 1 << 23
_NAMED = 5
# Repeated texts among which the first ones are looked for.
_HASHES = 1 << 16
# 2 to the 64 divided by the golden ratio: spreads ids evenly over the passes, whatever they have in common.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def repeated_ids(
    store: LatentStore, parts: Sequence[PartEntry], most: int = _MOST_IDS
) -> tuple[int, list[int] | list[str]]:
    """How many ids occur on more than one row of these parts, and the smallest few of them.

    Only parts whose ranges of ids overlap are looked at together. Those with more than `most` rows are read in several
    passes, each of which takes a share of the ids. Texts are compared by a 64-bit hash: of 100 million of them, two
    have the same one by chance in 3 of 10,000 stores. Raises DamagedPartError.
    """
    number = 0
    found: list[int] = []
    wanted = _NAMED if isinstance(parts[0].id_min, int) else _HASHES
    for group in _overlapping(parts):
        passes = -(-sum(part.rows for part in group) // most)
        for turn in range(passes):
            kept = [keys[_turns(keys, passes) == turn] if passes > 1 else keys for keys in _keys(store, group)]
            keys = np.sort(np.concatenate(kept))
            repeated = np.unique(keys[1:][keys[1:] == keys[:-1]])
            number += len(repeated)
            found = sorted([*found, *repeated[:wanted].tolist()])[:wanted]
    if found and isinstance(parts[0].id_min, str):
        return number, _texts(store, parts, set(found))
    return number, found


def _overlapping(parts: Sequence[PartEntry]) -> Iterator[list[PartEntry]]:
    group: list[int] = []
    highest: Any = None
    ranges = [(part.id_min, part.id_max, place) for place, part in enumerate(parts)]  # so few bytes of a million parts
    for low, high, place in sorted(ranges):
        if group and low > highest:
            yield [parts[one] for one in group]
            group = []
        highest = max(highest, high) if group else high
        group.append(place)
    if group:
        yield [parts[one] for one in group]


def _keys(store: LatentStore, parts: list[PartEntry]) -> Iterator[np.ndarray]:
    """Ids in blocks: as they are, or for texts a hash."""
    for ids in _ids(store, parts):
        if isinstance(parts[0].id_min, str):
            yield np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))
        else:
            yield ids.to_numpy(zero_copy_only=False)


def _ids(store: LatentStore, parts: Sequence[PartEntry]) -> Iterator[pa.Array]:
    for part in parts:
        yield from store.read_column(part, ID)


def _turns(keys: np.ndarray, passes: int) -> np.ndarray:
    return (keys.astype(np.uint64) * _SPREAD >> np.uint64(32)) % np.uint64(passes)


def _texts(store: LatentStore, parts: Sequence[PartEntry], hashes: set[int]) -> list[str]:
    found: set[str] = set()
    for ids in _ids(store, parts):
        found |= {text for text in ids.to_pylist() if hash(text) in hashes}
        found = set(sorted(found)[:_NAMED])
    return sorted(found)
