"""A part as a Parquet file: whatever is read of it is checked, and decoded where a row group's latents are coded."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ae_pipeline.data.parquet.columns import NamedColumnsFile
from ae_pipeline.data.parquet.writer import rechunk
from ae_pipeline.store.format.layouts import LATENT, Layout


class PartFile(NamedColumnsFile):
    """Rows come with latents as the layout has them in memory.

    Raises ValueError for values that no writer of a store can have written: Arrow also takes texts that are no UTF-8,
    and latents of any length.
    """

    def __init__(self, source: Any, layout: Layout, latent_size: int, **options: Any):
        super().__init__(source, **options)
        self._layout, self._size = layout, latent_size

    @property
    def rows_schema(self) -> pa.Schema:
        """Schema of the rows that are read; `schema_arrow` is the file's."""
        place, kind = self.schema_arrow.get_field_index(LATENT), self._layout.arrow_type(self._size)
        return self.schema_arrow.set(place, self.schema_arrow.field(place).with_type(kind))

    def read_row_group(self, *arguments: Any, **options: Any) -> pa.Table:
        """See pq.ParquetFile."""
        table = super().read_row_group(*arguments, **options)
        table.validate(full=True)
        place = table.schema.get_field_index(LATENT)
        if place >= 0 and self._layout.coded_type:
            latents = self._layout.from_file(table.column(place).combine_chunks(), self._size)
            table = table.set_column(place, table.schema.field(place).with_type(latents.type), latents)
        self._check_latents(table)
        return table

    def iter_batches(self, batch_size: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See pq.ParquetFile; always all row groups."""
        if self._layout.coded_type and (columns is None or LATENT in columns):  # whole row groups can be decoded
            groups = (self.read_row_group(number, columns=columns) for number in range(self.num_row_groups))
            for table in rechunk(groups, batch_size):
                yield from table.combine_chunks().to_batches()
            return
        # Parts are read side by side: Arrow's own threads would only have them wait for each other.
        for batch in super().iter_batches(batch_size, columns=columns, use_threads=False):
            table = pa.table(batch)
            table.validate(full=True)
            self._check_latents(table)
            yield batch

    def _check_latents(self, table: pa.Table) -> None:
        if LATENT in table.column_names:
            for chunk in table.column(LATENT).chunks:
                self._layout.to_numpy(chunk, self._size)
