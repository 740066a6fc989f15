"""Tables and texts: what can be said of them, though no kind reads them whole yet."""

from dataclasses import dataclass, field

from ae_pipeline.data.parquet.reader import open_parquet
from ae_pipeline.data.sample_schema import ROW_ID
from ae_pipeline.errors import DataError
from ae_pipeline.sources.own_files.listing import TABLE, Listing

_NUMBERS = ("int", "uint", "float", "double", "half", "bool")


@dataclass
class TableLook:
    """Rows and columns of Parquet files; other files are not opened."""

    records: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    """Names and types."""
    missing: dict[str, int | None] = field(default_factory=dict)
    """Missing values of each column, as the files say; None where they do not."""
    is_parquet: bool = False
    broken: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> list[str]:
        """Columns of one number a row, by name; an id is a name, and no number."""
        return [name for name, kind in self.columns.items() if kind.startswith(_NUMBERS) and name != ROW_ID]


def look_at_table(listing: Listing) -> TableLook:
    """Read the footers of Parquet files, and nothing of others."""
    found = TableLook(is_parquet=listing.sort == TABLE)
    if not found.is_parquet:
        return found
    for file in listing.files:
        try:
            with open_parquet(file.path) as parquet:
                schema, metadata = parquet.schema_arrow, parquet.metadata
        except DataError as error:
            found.broken.append(str(error))
            continue
        found.records += metadata.num_rows
        found.columns |= {column.name: str(column.type) for column in schema if column.name not in found.columns}
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                _count_missing(found, metadata.row_group(group).column(number))
    return found


def _count_missing(found: TableLook, chunk: object) -> None:
    """Add the missing values that a column chunk's statistics name; columns within columns have none of their own."""
    name, statistics = chunk.path_in_schema, chunk.statistics  # type: ignore[attr-defined]
    if name not in found.columns:
        return
    if statistics is None or not statistics.has_null_count:
        found.missing[name] = None
    elif (before := found.missing.get(name, 0)) is not None:
        found.missing[name] = before + statistics.null_count
