"""Chosen rows and columns of a store, reading only the row groups and column chunks that can hold them.

    for table in store.scan(columns=["id", "label"], filter="label = 7 AND error < 0.01"):
        ...                                        # Arrow tables; memory for one row group, whatever the store's size

What cannot hold a wanted row is passed over three times: parts by the range of ids in the manifest, row groups by the
statistics in a part's footer, and within a row group the other columns once the filter's own hold no match.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ae_pipeline.errors import ConfigError, DamagedPartError, first_line
from ae_pipeline.latent_store import LatentStore, OnDamaged
from ae_pipeline.manifest import PartEntry
from ae_pipeline.samples import ID


@dataclass(frozen=True)
class Wanted:
    """Which rows: a condition, the columns it needs (None: not known, so all), and ids, if it is about them."""

    condition: pc.Expression | None
    needs: frozenset[str] | None
    ids: frozenset[int | str] | None


def scan(
    store: LatentStore,
    columns: Sequence[str] | None = None,
    filter: pc.Expression | str | None = None,  # noqa: A002 (Arrow's name for it)
    ids: Sequence[int | str] | None = None,
    on_damaged: OnDamaged | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows that satisfy both `filter` and `ids`, with `columns` in the order given (None: all).

    `filter` is an Arrow expression, or a condition as SQL has it after WHERE (`where.py`). Rows come in the store's
    order; ids that are not in it give none, repeated ones all that have them. A part that is damaged raises
    DamagedPartError, or is passed over whole if there is `on_damaged`. Raises ConfigError for unknown columns.
    """
    known = [column.name for column in store.manifest.columns]
    names = list(known if columns is None else columns)
    check_columns(names, known)
    wanted = _wanted(store, filter, ids, known)
    for part in store.manifest.parts:
        if not _may_hold(part, wanted.ids):
            continue
        try:
            if on_damaged:
                check_part(store, part)  # all of it: half a part's rows would be worse than none
            yield from _scan_part(store, part, names, wanted)
        except DamagedPartError as error:
            if on_damaged is None:
                raise
            on_damaged(part, error)


def check_part(store: LatentStore, part: PartEntry) -> None:
    """Read all bytes of a part. Raises DamagedPartError."""
    with store.open_part(part) as parquet:
        for group in range(parquet.metadata.num_row_groups):
            parquet.read_row_group(group)


def check_columns(names: Collection[str], known: Sequence[str]) -> None:
    """Raise ConfigError for the first name that is no column."""
    for name in names:
        if name not in known:
            raise ConfigError(f"no column {name!r} in the store; it has {', '.join(known)}")


def typed_ids(store: LatentStore, ids: Sequence[int | str]) -> list[int | str]:
    """Ids as the store has them: those of a command line are text. Raises ConfigError for what is no integer."""
    if not isinstance(store.manifest.parts[0].id_min, int):
        return [str(value) for value in ids]
    try:
        return [int(value) for value in ids]
    except ValueError:
        wrong = next(value for value in ids if not str(value).lstrip("-").isdigit())
        raise ConfigError(f"no id {wrong!r}: the ids of {store.location} are integers") from None


def _wanted(store: LatentStore, condition: Any, ids: Sequence[int | str] | None, known: list[str]) -> Wanted:
    from ae_pipeline.where import parse_where

    needs: frozenset[str] | None = frozenset()
    if isinstance(condition, str):
        condition, needs = parse_where(condition, known)
    elif condition is not None:
        needs = None
    values = None if ids is None else frozenset(typed_ids(store, ids))
    if values is not None:
        among = pc.field(ID).isin(sorted(values))
        condition = among if condition is None else condition & among
        needs = None if needs is None else needs | {ID}
    if condition is not None:
        try:
            store.schema().empty_table().filter(condition)
        except pa.ArrowException as error:
            raise ConfigError(
                f"the condition does not fit the store's columns: {first_line(error)}; "
                f"they are {', '.join(f'{column.name}: {column.type}' for column in store.manifest.columns)}"
            ) from None
    return Wanted(condition, needs, values)


def _may_hold(part: PartEntry, ids: frozenset[int | str] | None) -> bool:
    # Python compares strings by code point, which is the order of their UTF-8 bytes.
    return ids is None or any(part.id_min <= value <= part.id_max for value in ids)  # type: ignore[operator]


def _scan_part(store: LatentStore, part: PartEntry, names: list[str], wanted: Wanted) -> Iterator[pa.Table]:
    with store.open_part(part) as parquet:
        for group in _groups(parquet, wanted):
            table = _read_group(parquet, group, names, wanted)
            if len(table):
                yield table


def _groups(parquet: pq.ParquetFile, wanted: Wanted) -> list[int]:
    """Row groups whose statistics allow a match."""
    if wanted.condition is None:
        return list(range(parquet.metadata.num_row_groups))
    footer = pa.BufferOutputStream()
    parquet.metadata.write_metadata_file(footer)
    fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(footer.getvalue()))
    return [group.id for group in fragment.subset(filter=wanted.condition).row_groups]


def _read_group(parquet: pq.ParquetFile, group: int, names: list[str], wanted: Wanted) -> pa.Table:
    if wanted.condition is None:
        return parquet.read_row_group(group, columns=names)
    if wanted.needs is None:
        return parquet.read_row_group(group).filter(wanted.condition).select(names)
    tested = parquet.read_row_group(group, columns=sorted(wanted.needs))
    rows = pa.array(range(len(tested)), pa.int64())
    hits = pa.table({**{name: tested[name] for name in tested.column_names}, _ROW: rows}).filter(wanted.condition)
    if not len(hits):
        return hits.select([]).slice(0, 0)
    others = [name for name in names if name not in tested.column_names]
    table = parquet.read_row_group(group, columns=others) if others else tested
    for name in set(names) & set(tested.column_names) if others else ():
        table = table.append_column(tested.schema.field(name), tested[name])
    return table.take(hits[_ROW]).select(names)


_ROW = "\0row"  # no column of a store is called so
