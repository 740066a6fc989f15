"""Which files make a shard together: thousands of small ones, as a part of a store for each would be absurd.

Files are taken in the order of their names. A store that has some of them in parts already is told by `KnownGroup`:
such files stay together, in their order, so that a folder that has grown since is not encoded twice, and a part can be
made again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ae_pipeline.data.parquet.reader import open_parquet
from ae_pipeline.data.samples import SHARD_ROWS, Shard, shards_of
from ae_pipeline.sources.own_files.arrays import Arrays
from ae_pipeline.sources.own_files.listing import FoundFile
from ae_pipeline.sources.own_files.records import Reader

GROUP_FILES = 10_000
"""Files of one record each that make a shard, unless they are large or have many rows."""
_GROUP_BYTES = 1 << 30
_TO = " to "


@dataclass(frozen=True)
class OwnShard(Shard):
    """Some files of one record each, or (`files` has one) some records of a file. `rows` are those that can be read."""

    files: tuple[FoundFile, ...] = ()
    records: int = 0
    """Records of a file that the shard has."""


@dataclass(frozen=True)
class KnownGroup:
    """Files of one record each that made a part of a store: the digest of that shard, and what is known of them."""

    digest: str
    label: str
    """What the manifest calls them; see `label_of`."""
    names: tuple[str, ...] = ()
    """Their names, in order; none where the part cannot be read."""


def label_of(files: Sequence[FoundFile]) -> str:
    """What a store calls the files of a shard: the first one and the last one."""
    return files[0].name if len(files) == 1 else f"{files[0].name}{_TO}{files[-1].name}"


def match_known(
    files: Sequence[FoundFile], known: Sequence[KnownGroup], digest_of: Callable[[Sequence[FoundFile]], str]
) -> list[tuple[FoundFile, ...]]:
    """Groups of these files that made parts of a store and are unchanged, in the order of `known`."""
    by_name = {file.name: file for file in files}
    found = {}
    for group in known:
        same = tuple(by_name[name] for name in group.names if name in by_name)
        if same and len(same) == len(group.names) and digest_of(same) == group.digest:
            found[group.digest] = same
    taken = {file.name for group in found.values() for file in group}
    rest = [file for file in files if file.name not in taken]
    for group in known:
        if not group.names:
            # The first file and the last one are known: what lies between is what no whole part has.
            for run in _runs(rest, group.label):
                if digest_of(run) == group.digest:
                    found[group.digest] = run
    return [found[group.digest] for group in known if group.digest in found]


def _runs(files: Sequence[FoundFile], label: str) -> Iterator[tuple[FoundFile, ...]]:
    firsts = [place for place, file in enumerate(files) if label == file.name or label.startswith(f"{file.name}{_TO}")]
    lasts = [place for place, file in enumerate(files) if label == file.name or label.endswith(f"{_TO}{file.name}")]
    for first in firsts:
        for last in lasts:
            if first <= last and label_of(files[first : last + 1]) == label:
                yield tuple(files[first : last + 1])


def group_files(files: Sequence[FoundFile], rows: Mapping[str, int]) -> list[tuple[FoundFile, ...]]:
    """Cut files, in their order, into groups; `rows` are those of each by name."""
    groups: list[tuple[FoundFile, ...]] = []
    group: list[FoundFile] = []
    size = count = 0
    for file in files:
        here = file.path.stat().st_size
        too_large = size + here > _GROUP_BYTES or count + rows[file.name] > SHARD_ROWS
        if group and (len(group) == GROUP_FILES or too_large):
            groups.append(tuple(group))
            group, size, count = [], 0, 0
        group.append(file)
        size += here
        count += rows[file.name]
    return [*groups, tuple(group)] if group else groups


def cut_file(file: FoundFile, reader: Reader) -> list[OwnShard]:
    """The shards of a Parquet file, between its row groups, or of an array: a piece of 100,000 records each."""
    if isinstance(reader, Arrays):
        count = reader.count(file)
        starts = range(0, count, SHARD_ROWS)
        sizes = [min(SHARD_ROWS, count - start) for start in starts]
        return [
            OwnShard(file.path, (number,), size, 0, start, (file,), size)
            for number, (start, size) in enumerate(zip(starts, sizes, strict=True))
        ]
    with open_parquet(file.path) as parquet:
        return [
            OwnShard(shard.path, shard.row_groups, shard.rows, 0, shard.row_in_file, (file,), shard.rows)
            for shard in shards_of(file.path, parquet.metadata, 0)
        ]
