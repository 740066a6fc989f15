"""The parts of a store whose manifest lists segments: a sequence as a list is one, that is read where it is asked for.

    parts = SegmentedParts(storage, segments)        # nothing is read yet
    len(parts), parts.rows                           # from what the manifest says of the segments
    parts[7], parts.that_may_hold({4711})            # reads the row group that has it
    grown = parts.with_added(new)                    # parts that are in no segment yet, until `settled` writes them

So a store of a million parts is opened without a million objects.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.errors import StoreError, first_line
from ae_pipeline.store.format.entries import LARGEST_MANIFEST, MANIFEST_NAME, REBUILD, SNAPSHOTS_FOLDER
from ae_pipeline.store.format.part_entries import PartEntry, ShardRows, part_number, rows_of_shards
from ae_pipeline.store.format.segment_file import (
    SegmentEntry,
    SegmentFile,
    as_file,
    concatenated,
    shard_digests_of,
    table_of,
    write_segment,
)
from ae_pipeline.store.format.verified_file import NOT_THE_FILE
from ae_pipeline.store.storage.folder import Storage, place_of, read_whole

MOST_IN_SEGMENT = 65_536
"""Shards that a segment has at most, unless one part has more; a joined part counts as its shards do."""

Run = tuple[PartEntry, ...]
"""Parts that are in no segment yet."""


class SegmentedParts(Sequence[PartEntry]):
    """Parts in segments, and between or behind them parts that are in none yet.

    What reads a segment raises StoreError if that is damaged or missing.
    """

    def __init__(self, storage: Storage | None, items: Sequence[SegmentEntry | Run], snapshot: int = 0):
        """`storage`: where the segments are; None: nothing of them is read. `snapshot`: which one lists them."""
        self.storage, self._snapshot = storage, snapshot
        self.items = tuple(item for item in items if isinstance(item, SegmentEntry) or item)
        self._last: tuple[str, int, list[PartEntry]] = ("", 0, [])

    # What is known without reading a segment.

    @property
    def segments(self) -> list[SegmentEntry]:
        """The segments, in order."""
        return [item for item in self.items if isinstance(item, SegmentEntry)]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return self._sum(lambda segment: segment.rows, lambda part: part.rows)

    @property
    def bytes_parts(self) -> int:
        """Bytes of all parts."""
        return self._sum(lambda segment: segment.bytes_parts, lambda part: part.bytes)

    @property
    def shards(self) -> int:
        """How many shards all parts have."""
        return self._sum(lambda segment: segment.shards, lambda part: len(part.shards))

    @property
    def last_number(self) -> int:
        """The highest number in a part's name."""
        ends = [item.last_number for item in self.segments]
        return max([*ends, *(part_number(part.name) for item in self._runs() for part in item)])

    @property
    def id_types(self) -> set[type]:
        """The types of ids: one, unless the manifest is wrong."""
        ends: list[SegmentEntry | PartEntry] = [*self.segments, *(part for run in self._runs() for part in run)]
        return {type(value) for end in ends for value in (end.id_min, end.id_max)}

    def _runs(self) -> list[Run]:
        return [item for item in self.items if not isinstance(item, SegmentEntry)]

    def _sum(self, of_segment: Callable[[SegmentEntry], int], of_part: Callable[[PartEntry], int]) -> int:
        return sum(
            of_segment(item) if isinstance(item, SegmentEntry) else sum(map(of_part, item)) for item in self.items
        )

    def __len__(self) -> int:
        return self._sum(lambda segment: segment.parts, lambda part: 1)

    def __eq__(self, other: object) -> bool:
        """Whether the same parts are listed in the same segments."""
        return isinstance(other, SegmentedParts) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} parts in {len(self.segments):,} segments>"

    # Parts, as of a list.

    @overload
    def __getitem__(self, place: int) -> PartEntry: ...
    @overload
    def __getitem__(self, place: slice) -> list[PartEntry]: ...
    def __getitem__(self, place: int | slice) -> PartEntry | list[PartEntry]:
        """One part, or a list of some."""
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step == 1:
                return list(self.between(start, stop))
            return [self[number] for number in range(start, stop, step)]
        number = place + len(self) if place < 0 else place
        for part in self.between(number, number + 1) if number >= 0 else ():
            return part
        raise IndexError(f"no part {place}; there are {len(self)}")

    def __iter__(self) -> Iterator[PartEntry]:
        return self.between(0, len(self))

    def between(self, start: int, stop: int) -> Iterator[PartEntry]:
        """The parts from one number to before another one; reads only the row groups that have some."""
        first = 0
        for item in self.items:
            size = item.parts if isinstance(item, SegmentEntry) else len(item)
            low, high = max(start, first) - first, min(stop, first + size) - first
            if low < high:
                yield from item[low:high] if not isinstance(item, SegmentEntry) else self._of_segment(item, low, high)
            first += size

    def _of_segment(self, segment: SegmentEntry, low: int, high: int) -> Iterator[PartEntry]:
        name, first, held = self._last
        if name == segment.name and first <= low and high <= first + len(held):
            yield from held[low - first : high - first]
            return
        with self.reading(segment) as file:
            for group, (first, end) in enumerate(pairwise(file.firsts)):
                if max(low, first) < min(high, end):
                    entries = file.entries(group)
                    self._last = (segment.name, first, entries)
                    yield from entries[max(low, first) - first : min(high, end) - first]

    # What is asked of very many parts.

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Columns of all parts, segment after segment (`segment_file.schema_of_segment`)."""
        for item in self.items:
            yield self.table(item, columns)

    def table(self, item: SegmentEntry | Run, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of the parts of one segment, or of parts that are in none."""
        if not isinstance(item, SegmentEntry):
            return table_of(item)
        with self.reading(item) as file:
            return file.columns(columns)

    def names(self) -> Iterator[pa.Array]:
        """The names of all parts, some at a time."""
        for table in self.tables(["name"]):
            yield from table.column("name").chunks

    def shard_digests(self) -> Iterator[pa.Array]:
        """The digests of all shards, 32 bytes each, some at a time."""
        for table in self.tables(["shards.list.element.digest"]):
            yield shard_digests_of(table)

    def held(self, digests: Collection[str]) -> set[str]:
        """Which of these digests are of shards of these parts."""
        wanted = pa.array(map(bytes.fromhex, digests), pa.binary(32), size=len(digests))
        found = (pc.filter(some, pc.is_in(some, wanted)) for some in self.shard_digests() if digests)
        return {digest.hex() for some in found for digest in some.to_pylist()}

    def unlisted(self, names: Collection[str]) -> set[str]:
        """Which of these names are of no part."""
        if not names:
            return set()
        asked, listed = pa.array(list(names), pa.string()), pa.chunked_array(self.names(), pa.string())
        return set(pc.filter(asked, pc.invert(pc.is_in(asked, listed))).to_pylist())

    def digest_of_shards(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the list of all shards' digests."""
        whole = hashlib.sha256(b"[")
        for number, some in enumerate(self.shard_digests()):
            start = 32 * some.offset
            raw = some.buffers()[1][start : start + 32 * len(some)].to_pybytes()
            text = np.empty((len(some), 67), np.uint8)
            text[:, 0] = text[:, 65] = ord('"')
            text[:, 66] = ord(",")
            text[:, 1:65] = np.frombuffer(raw.hex().encode(), np.uint8).reshape(-1, 64)
            whole.update(b"," * bool(number) + text.tobytes()[:-1])
        whole.update(b"]")
        return whole.hexdigest()

    def that_may_hold(self, ids: Collection[int | str]) -> Iterator[PartEntry]:
        """The parts in whose range some of these ids lie, in order."""
        wanted = sorted(ids)
        first = 0
        for item in self.items:
            if not isinstance(item, SegmentEntry):
                yield from (part for part in item if _some_between(wanted, part.id_min, part.id_max))
                first += len(item)
                continue
            near = [value for value in wanted if item.id_min <= value <= item.id_max]  # type: ignore[operator]
            if near:
                for place in np.flatnonzero(_may_hold(self.table(item, ["id_min", "id_max"]), near)).tolist():
                    yield from self.between(first + place, first + place + 1)
            first += item.parts

    def listed_twice(self) -> str | None:
        """The name of a part that is listed twice; None if there is none."""
        names = pa.chunked_array(self.names(), pa.string())
        if len(names.unique()) == len(names):
            return None
        counts = pc.value_counts(names)
        often = pc.filter(counts, pc.greater(pc.struct_field(counts, "counts"), 1))
        return str(often[0]["values"].as_py())

    def table_between(self, start: int, stop: int) -> pa.Table:
        """All columns of the parts from one number to before another one."""
        found, first = [], 0
        for item in self.items:
            size = item.parts if isinstance(item, SegmentEntry) else len(item)
            low, high = max(0, start - first), min(size, stop - first)
            if low < high:
                found.append(self.table(item).slice(low, high - low))
            first += size
        return concatenated(found)

    def begins_with(self, others: "SegmentedParts") -> bool:
        """Whether its first parts are these. What both have in the same segments is not read."""
        here, there = list(self.items), list(others.items)
        while here and there and here[0] == there[0]:
            del here[0], there[0]
        rest = SegmentedParts(None, there)
        if not rest or len(SegmentedParts(None, here)) < len(rest):
            return not rest
        found: list[pa.Table] = []
        wanted = concatenated([others.table(item) for item in there])
        while sum(map(len, found)) < len(rest):
            found.append(self.table(here.pop(0)))
        table = concatenated(found).slice(0, len(rest))
        return bool(table.schema == wanted.schema and table.equals(wanted))

    def shards_between(self, start: int, stop: int) -> list[ShardRows]:
        """The shards from one number to before another one; reads only the segments that have some."""
        found: list[ShardRows] = []
        first = 0
        for item in self.items:
            one = SegmentedParts(self.storage, [item], self._snapshot)
            count = one.shards
            if max(first, start) < min(first + count, stop):
                found += islice(rows_of_shards(one), max(0, start - first), stop - first)
            first += count
        return found

    @contextmanager
    def reading(self, segment: SegmentEntry) -> Iterator[SegmentFile]:
        """Open a segment; what reading it raises becomes a StoreError that names it."""
        assert self.storage is not None
        where = place_of(self.storage, segment.name)
        try:
            with SegmentFile(self.storage, as_file(segment)) as file:
                yield file
        except FileNotFoundError:
            instead = self._removed_since(segment.name) or REBUILD
            raise StoreError("is missing, but the manifest lists it", place=where, advice=instead) from None
        except MemoryError:  # Arrow's is one of its exceptions
            raise
        except OSError as error:
            if error.errno in NOT_THE_FILE:
                advice = "give access to it, then try again"
                raise StoreError(f"cannot be read: {first_line(error)}", place=where, advice=advice) from None
            raise StoreError(f"is damaged: {first_line(error)}", place=where, advice=REBUILD) from None
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise StoreError(f"is damaged: {first_line(error)}", place=where, advice=REBUILD) from None

    def _removed_since(self, name: str) -> str | None:
        """What to do if a newer snapshot does without the segment: then nobody damaged it."""
        assert self.storage is not None
        try:
            newest = json.loads(read_whole(self.storage, MANIFEST_NAME, most=LARGEST_MANIFEST))
            number = int(newest["snapshot"])
            listed = {segment["name"] for segment in newest.get("segments", [])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError):
            return None
        mine = self._snapshot
        if number == mine or name in listed or self.storage.exists(f"{SNAPSHOTS_FOLDER}/{mine}.json"):
            return None
        return f"snapshot {mine} was removed since it was opened: open snapshot {number}"

    # What becomes of them.

    def only(self, segments: Collection[str]) -> "SegmentedParts":
        """The parts of the segments with these names."""
        return SegmentedParts(self.storage, [one for one in self.segments if one.name in segments], self._snapshot)

    def with_added(self, parts: Sequence[PartEntry]) -> "SegmentedParts":
        """These parts, and others behind them."""
        return SegmentedParts(self.storage, [*self.items, tuple(parts)], self._snapshot)

    def replaced(self, others: Mapping[str, PartEntry], gone: Collection[str] = ()) -> "SegmentedParts":
        """All parts, some of them replaced by others, by name, and without some; segments without such stay."""
        names = pa.array(sorted({*others, *gone}), pa.string())
        items: list[SegmentEntry | Run] = []
        for item in self.items:
            if isinstance(item, SegmentEntry):
                listed = self.table(item, ["name"]).column("name")
                if not pc.any(pc.is_in(listed, names)).as_py():
                    items.append(item)
                    continue
                entries: Sequence[PartEntry] = list(SegmentedParts(self.storage, [item], self._snapshot))
            else:
                entries = item
            items.append(tuple(others.get(part.name, part) for part in entries if part.name not in gone))
        return SegmentedParts(self.storage, items, self._snapshot)

    def settled(self, folder: Path, snapshot: int) -> tuple["SegmentedParts", list[SegmentEntry]]:
        """Write all parts that are in no segment into some in `folder`; returns the same parts, and the new segments.

        Parts that are in none take those beside them into their segment that are not twice as many, as long as one
        may have so many. So a store that grows by a part at a time has few segments, and each entry is written once
        for every time that its segment grows by half.
        """
        stack: list[list[SegmentEntry | Run]] = []
        for item in self.items:
            here: list[SegmentEntry | Run] = [item]
            while stack and _belong_together(stack[-1], here):
                here = [*stack.pop(), *here]
            stack.append(here)
        items: list[SegmentEntry | Run] = []
        written: list[SegmentEntry] = []
        for some in stack:
            if len(some) == 1 and isinstance(some[0], SegmentEntry):
                items += some
                continue
            table = concatenated([self.table(item) for item in some])
            for start, end in _cuts(table):
                written.append(write_segment(folder, snapshot, table.slice(start, end - start)))
                items.append(written[-1])
        return SegmentedParts(self.storage, items, snapshot), written


def as_segments(storage: Storage | None, parts: Sequence[PartEntry]) -> SegmentedParts:
    """Parts that a manifest is to list in segments, if they are not so yet."""
    return parts if isinstance(parts, SegmentedParts) else SegmentedParts(storage, [tuple(parts)])


def _belong_together(before: Sequence[SegmentEntry | Run], here: Sequence[SegmentEntry | Run]) -> bool:
    """Whether two neighbours become one segment; whole segments alone stay what they are."""
    if all(isinstance(item, SegmentEntry) for item in (*before, *here)):
        return False
    left, right = (SegmentedParts(None, side).shards for side in (before, here))
    return left < 2 * right and left + right <= MOST_IN_SEGMENT


def _cuts(table: pa.Table) -> Iterator[tuple[int, int]]:
    """First row and end of each segment that rows are written into."""
    start, shards = 0, 0
    for place, more in enumerate(pc.list_value_length(table.column("shards")).to_pylist()):
        if place > start and shards + more > MOST_IN_SEGMENT:
            yield start, place
            start, shards = place, 0
        shards += more
    yield start, len(table)


def _may_hold(table: pa.Table, wanted: list[Any]) -> np.ndarray:
    """Bool (parts,): whether some of the wanted ids, which are sorted, lie between `id_min` and `id_max`."""
    low, high = table.column("id_min"), table.column("id_max")
    if isinstance(wanted[0], str):
        pairs = zip(low.to_pylist(), high.to_pylist(), strict=True)
        return np.array([_some_between(wanted, *pair) for pair in pairs])
    ids = np.array(wanted, low.type.to_pandas_dtype())
    return np.searchsorted(ids, low.to_numpy()) < np.searchsorted(ids, high.to_numpy(), side="right")


def _some_between(wanted: list[Any], low: Any, high: Any) -> bool:
    # Python compares strings by code point, which is the order of their UTF-8 bytes.
    place = bisect_left(wanted, low)
    return place < len(wanted) and bool(wanted[place] <= high)
