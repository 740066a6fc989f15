"""Chosen rows and columns of a store, reading only the row groups and column chunks that can hold them.

    for table in store.scan(columns=["id", "label"], filter="label = 7 AND error < 0.01"):
        ...                                        # Arrow tables; memory for one row group, whatever the store's size

What cannot hold a wanted row is passed over three times: parts by the range of ids in the manifest, row groups by the
statistics in a part's footer, and within a row group the other columns once the filter's own hold no match. An Arrow
expression is applied to the rows of every row group that the ids leave: a condition as text reads less.
"""

import re
import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.data.samples import ID
from ae_pipeline.errors import ConfigError, DamagedPartError, first_line
from ae_pipeline.store.format.part_entries import PartEntry
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.parts import OnDamaged, Parts
from ae_pipeline.store.reading.conditions import Condition, among, ranges_of


@dataclass(frozen=True)
class Wanted:
    """Which rows: a condition, the columns it needs (None: not known, so all), and ids, if it is about them."""

    condition: Condition | None
    needs: frozenset[str] | None
    ids: frozenset[int | str] | None


def scan(
    store: Parts,
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
    wanted = _wanted(store, filter, ids)
    for part in _parts_of(store, wanted.ids):
        try:
            if on_damaged:
                check_part(store, part)  # all of it: half a part's rows would be worse than none
            yield from _scan_part(store, part, names, wanted)
        except DamagedPartError as error:
            if on_damaged is None:
                raise
            on_damaged(part, error)


def check_part(store: Parts, part: PartEntry) -> None:
    """Read all bytes that hold rows of a part. Raises DamagedPartError."""
    with store.open_part(part) as parquet:
        for group in range(parquet.metadata.num_row_groups):
            parquet.read_row_group(group)


def check_columns(names: Collection[str], known: Sequence[str]) -> None:
    """Raise ConfigError for the first name that is no column."""
    for name in names:
        if name not in known:
            raise ConfigError(f"no column {name!r} in the store; it has {', '.join(known)}")


def typed_ids(store: Parts, ids: Sequence[int | str]) -> list[int | str]:
    """Ids as the store has them: those of a command line are text. Raises ConfigError for what is no integer."""
    if store.manifest.id_type is not int:
        for value in ids:
            if not isinstance(value, str):
                raise ConfigError(f"no id {value!r}: the ids of {store.location} are texts, e.g. {str(value)!r}")
        return list(ids)
    wrong = [value for value in ids if not re.fullmatch(r"[+-]?[0-9]{1,1000}", str(value))]
    if wrong:
        raise ConfigError(f"no id {reprlib.repr(wrong[0])}: the ids of {store.location} are integers")
    return [int(value) for value in ids]


def absent_ids(store: Parts, ids: Sequence[int | str], on_damaged: OnDamaged | None = None) -> list[int | str]:
    """List the ids that no row has, in the order given. Reads ids only. Raises ConfigError, DamagedPartError."""
    found: set[int | str] = set()
    for table in scan(store, columns=[ID], ids=ids, on_damaged=on_damaged):
        found.update(table.column(ID).to_pylist())
    return [value for value in dict.fromkeys(typed_ids(store, ids)) if value not in found]


def _parts_of(store: Parts, ids: Collection[int | str] | None) -> Iterable[PartEntry]:
    parts = store.manifest.parts
    if ids is None:
        return parts
    return parts.that_may_hold(ids) if isinstance(parts, SegmentedParts) else (p for p in parts if may_hold(p, ids))


def may_hold(part: PartEntry, ids: Collection[int | str]) -> bool:
    """Whether some of these ids lie in the part's range."""
    # Python compares strings by code point, which is the order of their UTF-8 bytes.
    return any(part.id_min <= value <= part.id_max for value in ids)  # type: ignore[operator]


def _wanted(store: Parts, given: pc.Expression | str | None, ids: Sequence[int | str] | None) -> Wanted:
    from ae_pipeline.store.reading.where import parse_where

    condition: Condition | None = None
    needs: frozenset[str] | None = frozenset()
    if isinstance(given, str):
        condition, needs = parse_where(given, store.schema())
    elif given is not None:
        condition, needs = Condition(given), None
        try:
            pa.Table.from_batches([], store.schema()).filter(given)
        except pa.ArrowException as error:
            raise _unfit(store, error) from None
    values = None if ids is None else frozenset(typed_ids(store, ids))
    if values:
        try:
            chosen = among(ID, store.schema().field(ID).type, values)
        except ValueError as error:
            raise ConfigError(f"cannot compare {error}: the ids of {store.location}") from None
        condition = chosen if condition is None else chosen & condition
        needs = None if needs is None else needs | {ID}
    return Wanted(condition, needs, values)


def _unfit(store: Parts, error: BaseException) -> ConfigError:
    columns = ", ".join(f"{column.name}: {column.type}" for column in store.manifest.columns)
    return ConfigError(f"the condition does not fit the store's columns: {first_line(error)}; they are {columns}")


def _scan_part(store: Parts, part: PartEntry, names: list[str], wanted: Wanted) -> Iterator[pa.Table]:
    with store.open_part(part) as parquet:
        for group in _groups(parquet, wanted):
            table = _read_group(store, parquet, group, names, wanted)
            if len(table):
                # What the file says of itself goes: whose rows they are matters to nobody.
                yield table.replace_schema_metadata(None).select(names)


def _groups(parquet: pq.ParquetFile, wanted: Wanted) -> list[int]:
    """Row groups whose statistics allow a match."""
    groups = list(range(parquet.metadata.num_row_groups))
    if wanted.condition is None:
        return groups
    names = frozenset({ID}) if wanted.needs is None else wanted.needs
    return [group for group in groups if True in wanted.condition.outcomes(ranges_of(parquet.metadata, group, names))]


def _read_group(store: Parts, parquet: pq.ParquetFile, group: int, names: list[str], wanted: Wanted) -> pa.Table:
    """The wanted rows of a row group, with at least the columns `names` and at least one; if there are any."""
    if wanted.condition is None:
        return parquet.read_row_group(group, columns=names or [ID])
    needs = None if wanted.needs is None else sorted(wanted.needs)
    tested = parquet.read_row_group(group, columns=needs, use_threads=needs is None or len(needs) > 1)
    numbers = "\0"
    while numbers in tested.column_names:  # names are the data's
        numbers += "\0"
    try:
        hits = tested.append_column(numbers, [np.arange(len(tested))]).filter(wanted.condition.expression)
    except MemoryError:  # Arrow's is one of its exceptions
        raise
    except pa.ArrowException as error:  # found by the values alone: integers of different types that do not compare
        raise _unfit(store, error) from None
    others = [name for name in names if name not in tested.column_names]
    if others and len(hits):
        more = parquet.read_row_group(group, columns=others).take(hits[numbers])
        for name in others:
            hits = hits.append_column(more.schema.field(name), more[name])
    return hits
