"""Which leaf columns of a Parquet file make a column of its table: told by their place, never by a dotted path.

    leaf_columns(parquet.schema_arrow)     # {"id": range(0, 1), "meta": range(1, 3), "meta.src": range(3, 4)}

`meta.src` may be the name of a column, or the path of the field `src` in a column `meta`, and a file may have both.
pyarrow takes one for the other wherever it is given names: so ask for columns of a `NamedColumnsFile`.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise, starmap
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class NamedColumnsFile(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file whose methods take `columns` for names of whole columns, and for nothing else.

    Raises KeyError for a name that no column has; ValueError if the file's table does not fit its leaf columns.
    """

    # All of pyarrow's methods ask here; tests/data/test_parquet_columns.py fails if a later pyarrow does not.
    def _get_column_indices(self, column_names: Sequence[str] | None, use_pandas_metadata: bool = False) -> Any:
        if column_names is None:
            return None
        assert not use_pandas_metadata
        leaves = leaf_columns(self.schema_arrow)
        if sum(map(len, leaves.values())) != self.metadata.num_columns:
            raise ValueError("its columns do not fit those of its table")
        return [place for name in column_names for place in leaves[name]]


def leaf_columns(schema: pa.Schema) -> dict[str, range]:
    """The places of each column's leaves among all leaf columns of the file; names must not repeat."""
    ends = accumulate((_leaves(field.type) for field in schema), initial=0)
    return dict(zip(schema.names, starmap(range, pairwise(ends)), strict=True))


def flat_columns(metadata: Any) -> dict[str, int]:
    """The places of the columns that are no lists, structs or maps, by name."""
    columns = ((number, metadata.schema.column(number)) for number in range(metadata.num_columns))
    # Only of a leaf that is a whole column is the path as long as the name.
    return {column.name: number for number, column in columns if column.name == column.path}


def nested_deeper(kind: pa.DataType, levels: int) -> bool:
    """Whether a column of this type has leaves more than so many levels down in the Parquet schema."""
    if levels < 0:
        return True
    steps = 1 if pa.types.is_struct(kind) else 2
    return any(nested_deeper(child, levels - steps) for child in inner_types(kind))


def inner_types(kind: pa.DataType) -> list[pa.DataType]:
    """The types that a nested type is made of; none of a flat one."""
    if isinstance(kind, pa.BaseExtensionType):
        return inner_types(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return inner_types(kind.value_type)
    if pa.types.is_struct(kind):
        return [field.type for field in kind]
    if pa.types.is_map(kind):
        return [kind.key_type, kind.item_type]
    return [kind.value_type] if pa.types.is_nested(kind) and not pa.types.is_union(kind) else []


def _leaves(kind: pa.DataType) -> int:
    inner = inner_types(kind)
    return sum(map(_leaves, inner)) if inner or pa.types.is_struct(kind) else 1
