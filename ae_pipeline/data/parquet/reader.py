"""Other people's Parquet files, opened so that no value changes on its way into memory.

    with open_parquet(file, "us") as parquet:       # "us": what old INT96 times are read as
        parquet.schema_arrow, parquet.metadata

Arrow reads INT96 times as nanoseconds and wraps the years before 1677 and after 2262 around, cannot read lists of a
fixed size where one is missing, and knows only paths in UTF-8.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.data.parquet.columns import NamedColumnsFile, leaf_columns
from ae_pipeline.data.parquet.limits import read_footer
from ae_pipeline.data.pixels import PIXELS
from ae_pipeline.errors import DataError, first_line
from ae_pipeline.files import arrow_file

_BLOCK_ROWS = 65_536
# Bytes of a column that are read at once: Arrow reads all that a row group has of it otherwise, and some have millions
# of rows.
_BUFFER_BYTES = 1 << 20
_ARROW_SCHEMA = b"ARROW:schema"
_FILL_LISTS = "fill them with values, or write the column as lists of any length, in which nulls can be read"


@contextmanager
def open_parquet(file: Path, int96: str = "ns", metadata: Any = None) -> Iterator[pq.ParquetFile]:
    """A Parquet file; `metadata` is its footer, if that is known already. Raises DataError if it is none."""
    with ExitStack() as opened:
        try:
            source = arrow_file(file)
            if isinstance(source, pa.NativeFile):
                opened.enter_context(source)
            parquet = NamedColumnsFile(
                source,
                metadata=read_footer(source) if metadata is None else metadata,
                page_checksum_verification=True,
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
                coerce_int96_timestamp_unit=int96,
            )
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = f"{file} is not a readable Parquet file: {first_line(error)}"
            raise DataError(f"{reason}; make or fetch it again") from None
        yield opened.enter_context(parquet)


def int96_columns(metadata: Any) -> list[str]:
    """Names of the columns with times that are INT96, at any depth, as Impala and Spark wrote them."""
    leaves = [metadata.schema.column(number).physical_type for number in range(metadata.num_columns)]
    if "INT96" not in leaves:
        return []
    columns = leaf_columns(metadata.schema.to_arrow_schema())
    return [name for name, places in columns.items() if "INT96" in leaves[places.start : places.stop]]


def int96_unit(columns: Mapping[Path, list[str]], stored: Mapping[str, str]) -> str:
    """The one unit for the INT96 times of these columns of files: nanoseconds where they hold all, else microseconds.

    `stored` are names and types of a store's columns: if it has such a column in microseconds, and these hold all, it
    is microseconds. Reads the columns. Raises DataError where no unit holds all.
    """
    in_us = any("timestamp[us" in stored.get(name, "") for names in columns.values() for name in names)
    first_lost: dict[str, tuple[str, str]] = {}
    for file, names in columns.items():
        for name in names:
            for unit, wrong in zip(("ns", "us"), _lost(file, name), strict=True):
                if wrong:
                    first_lost.setdefault(unit, (f"{file}: column `{name}`", wrong))
    if len(first_lost) == 2:
        (far, early), (fine, cut) = first_lost["ns"], first_lost["us"]
        raise DataError(
            f"{far} has INT96 times {early}, and {cut if fine == far else f'{fine} {cut}'}: no unit holds them all; "
            "correct or round them, or write the columns as TIMESTAMP of units of their own"
        )
    return "us" if "ns" in first_lost or (in_us and "us" not in first_lost) else "ns"


def _lost(file: Path, name: str) -> tuple[str, str]:
    """What nanoseconds and what microseconds would lose of a column of INT96 times; empty for nothing.

    Milliseconds hold every such time, to the millisecond. In finer units what is too large wraps around, but what they
    are in milliseconds then differs.
    """
    beyond_ns = beyond_us = finer = False
    columns = (read_tables(file, None, _BLOCK_ROWS, unit, columns=[name]) for unit in ("ms", "us", "ns"))
    for tables in zip(*columns, strict=True):
        for one in zip(*(_times([table.column(0).chunk(0)]) for table in tables), strict=True):
            if one[0].type == one[2].type:  # a time that is no INT96, beside one that is
                continue
            exact, micro, nano = (np.asarray(array.cast(pa.int64()).drop_null()) for array in one)
            beyond_ns |= bool((nano // 1_000_000 != exact).any())
            beyond_us |= bool((micro // 1_000 != exact).any())
            finer |= bool((nano != micro * 1_000).any())  # both wrap alike
    far = "of years that microseconds do not reach" if beyond_us else ""
    return (
        "before the year 1678 or after 2261, which nanoseconds do not reach" if beyond_ns else "",
        far or ("to the nanosecond, which microseconds would cut" if finer else ""),
    )


def _times(columns: Sequence[Any]) -> Iterator[pa.Array]:
    """All times in columns, however deep in them."""
    for array in columns:
        kind = array.type
        if pa.types.is_timestamp(kind):
            yield array
        elif pa.types.is_struct(kind):
            yield from _times(array.flatten())
        elif pa.types.is_map(kind):
            yield from _times([array.keys, array.items])
        elif pa.types.is_nested(kind):
            yield from _times([array.flatten()])


def read_tables(
    file: Path, row_groups: list[int] | None, rows: int, int96: str, *, first_row: int = 0, columns: Any = None
) -> Iterator[pa.Table]:
    """Some row groups (None: all) in tables of at most `rows`; `first_row` is the place in the file of their first.

    Raises DataError for what is damaged, and for lists of a fixed size that are missing, which Arrow cannot read.
    """
    with open_parquet(file, int96) as parquet:
        try:
            # Files are read side by side: Arrow's own threads would only have them wait for each other.
            for batch in parquet.iter_batches(rows, row_groups, columns, use_threads=False):
                batch.validate(full=True)  # Arrow reads texts that are no UTF-8, and nobody could read them again
                yield pa.Table.from_batches([batch])
        except MemoryError:  # Arrow's is one of its exceptions
            raise
        except (pa.ArrowException, OSError) as error:
            if "all lists to be of size" in str(error):
                _refuse_missing_list(file, row_groups, first_row)
            raise DataError(f"{file} is damaged: {first_line(error)}; make or fetch it again") from None


def _refuse_missing_list(file: Path, row_groups: list[int] | None, first_row: int) -> None:
    """Raise DataError for the first list of a fixed size that is missing, if one is.

    Without the Arrow schema, which a footer carries beside Parquet's own, such lists are read as any others.
    """
    with open_parquet(file) as parquet:
        fixed = [field for field in parquet.schema_arrow if _has_fixed_list(field.type)]
        footer = io.BytesIO()
        parquet.metadata.write_metadata_file(footer)
    plain = pq.read_metadata(io.BytesIO(footer.getvalue().replace(_ARROW_SCHEMA, _ARROW_SCHEMA.swapcase())))
    with open_parquet(file, metadata=plain) as parquet:
        for field in fixed:
            row = first_row
            for batch in parquet.iter_batches(8192, row_groups, columns=[field.name], use_threads=False):
                missing = _missing(batch.column(batch.schema.get_field_index(field.name)), field.type)
                if missing.any():
                    what, advice = f"no list in column `{field.name}`", _FILL_LISTS
                    if field.name == PIXELS:
                        what, advice = "no pixels", "remove them first"
                    which = f"row {row + int(missing.argmax()):,} (the first one is 0) and perhaps others"
                    raise DataError(f"{file}: {what} in {which}; {advice}") from None
                row += len(batch)


def _has_fixed_list(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return True
    return pa.types.is_nested(kind) and any(_has_fixed_list(kind.field(place).type) for place in range(kind.num_fields))


def _missing(array: Any, kind: pa.DataType) -> np.ndarray:
    """(n,) Where a value has no list that `kind` gives a fixed size."""
    missing = np.zeros(len(array), bool)
    if pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            missing |= _missing(array.flatten()[place], kind.field(place).type)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        if pa.types.is_fixed_size_list(kind):
            missing |= array.is_null().to_numpy(zero_copy_only=False)
        parents = pc.list_parent_indices(array).to_numpy()
        inner = _missing(array.flatten(), kind.value_type)
        missing[parents[inner]] = True
    return missing
