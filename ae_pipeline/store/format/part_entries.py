"""What a manifest says of each part, and of parts that are missing or came late."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass as plain_dataclass
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ae_pipeline.data.json_types import Sha256
from ae_pipeline.store.format.entries import Count

PART_NAME = r"^part-[0-9]{5,}-[0-9a-f]{16}\.parquet$"

Id = Annotated[int, Field(strict=True)] | str
Rows = Annotated[int, Field(ge=1, strict=True)]
PartName = Annotated[str, Field(pattern=PART_NAME)]
Pieces = list[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,14}:[0-9a-f]{32}$")]]

# There are many entries of each part: with slots they take a third of a model's memory.
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ShardEntry:
    """The input shard that a part was made from; `file` as in `SampleSet.file_name`."""

    file: str
    row_groups: list[Count]
    digest: Sha256


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class JoinedEntry:
    """One of the shards of a part that was joined from others (`care/compaction.py`): the part that it had made."""

    name: PartName
    """That part's name. Its file may be gone."""
    rows: Rows
    shard: ShardEntry


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class PartEntry:
    """One Parquet file of the store."""

    name: PartName
    rows: Rows
    bytes: Count
    sha256: Sha256
    id_min: Id
    id_max: Id
    job: Sha256
    shard: Annotated[ShardEntry | Annotated[list[JoinedEntry], Field(min_length=2)], Field(union_mode="left_to_right")]
    """What it was made from; of a part that was joined, all its shards, in the order of their rows."""
    pieces: Pieces | None = None
    """Length and digest of every piece of the file, in its order (`format/verified_file.py`); None in format 1."""

    @property
    def is_joined(self) -> bool:
        """Whether it was joined from others, and so has several shards."""
        return isinstance(self.shard, list)

    @property
    def joined(self) -> list[JoinedEntry]:
        """Its shards, each with the part that it made; of a part that was not joined, its one."""
        if isinstance(self.shard, list):
            return self.shard
        return [JoinedEntry(name=self.name, rows=self.rows, shard=self.shard)]

    @property
    def joined_numbers(self) -> list[int]:
        """The numbers of the parts that it was joined from; none of a part that was not."""
        return [part_number(entry.name) for entry in self.shard] if isinstance(self.shard, list) else []

    @property
    def shards(self) -> list[ShardEntry]:
        """Its shards, in the order of their rows."""
        return [entry.shard for entry in self.shard] if isinstance(self.shard, list) else [self.shard]

    @property
    def files(self) -> str:
        """The files of its shards, for messages."""
        first, *others = (shard.file for shard in self.shards)
        return f"{first} and {len(others):,} more" if others else first


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class MissingEntry:
    """A shard of the data whose part could not be made, in a store that was written all the same.

    Number and first row keep its place: whoever makes the part later makes the one that would be there.
    """

    number: Count
    """The number in the part's name."""
    first_row: Count
    rows: Rows
    job: Sha256
    shard: ShardEntry
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class LateEntry:
    """A part that was missing and was made later: it stands behind others, with the row numbers of its own place."""

    shard: Sha256
    """The digest of its shard."""
    first_row: Count


@plain_dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of one shard in a store: a part, or a stretch of one that was joined."""

    part: PartEntry
    start: int
    """Their first row in the part."""
    rows: int
    name: str
    """The part that the shard made, also where that was joined since."""
    shard: ShardEntry

    @property
    def is_whole_part(self) -> bool:
        """Whether the part has no other rows."""
        return self.rows == self.part.rows

    @property
    def bytes(self) -> int:
        """Bytes of the part's file; of one that was joined, a share by rows."""
        return self.part.bytes if self.is_whole_part else round(self.part.bytes * self.rows / self.part.rows)


def rows_of_shards(parts: Iterable[PartEntry]) -> Iterator[ShardRows]:
    """The shards of parts, one after the other. A store's are the same before parts are joined and after."""
    for part in parts:
        start = 0
        for entry in part.joined:
            yield ShardRows(part, start, entry.rows, entry.name, entry.shard)
            start += entry.rows


def part_number(name: str) -> int:
    """The number in a part's name."""
    return int(name.split("-")[1])
