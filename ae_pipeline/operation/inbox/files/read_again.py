"""Columns that pyarrow writes into Parquet but cannot read again: found before a part with them is committed.

Lists of a fixed size, and tensors, are such where rows have none: also all rows of a file that lacks the column.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec.codec import BLOCK_ROWS
from ae_pipeline.errors import DataError, first_line
from ae_pipeline.operation.inbox.columns import FittedFile, another_store


def check_readable_again(samples: FittedFile, store: Path) -> None:
    """Raise DataError if a part of `store` with these rows could not be read. Plain columns are not looked at."""
    names = [field.name for field in samples.attributes_schema if not _is_plain(field.type)]
    for shard in samples.shards if names else ():
        for block in samples.blocks(shard, BLOCK_ROWS):
            for name in names:
                _check_column(samples.files[0], block.attributes.select([name]), store)


def _is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType))


def _check_column(file: Path, column: pa.Table, store: Path) -> None:
    written = pa.BufferOutputStream()
    try:
        pq.write_table(column, written)
        pq.read_table(pa.BufferReader(written.getvalue()))
    except MemoryError:  # Arrow's is one of its exceptions
        raise
    except (pa.ArrowException, NotImplementedError, OSError) as error:
        raise DataError(
            f"{file}: Parquet would not give back column `{column.column_names[0]}` of type {column.schema.types[0]} "
            f"({first_line(error)}): pyarrow cannot read lists of a fixed size where rows have none; give every row a "
            f"value, {another_store(store)}"
        ) from None
