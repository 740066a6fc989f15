"""The latent store: a folder of Parquet parts, a copy of the codec, and a manifest. Format: docs/store-format.md.

store = LatentStore.open(Path("data/latents/test"))
for part in store.manifest.parts:
for rows in store.read_part(part, codec.BLOCK_ROWS):
rows.latents       # int8 (n, L)
rows.attributes    # Arrow table: id, label, ...
rows.error         # float32 (n,): MSE of each decoded row, measured when it was encoded
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.store.parts import LatentRows, OnDamaged, Parts


class LatentStore(Parts):
    """An open store: a local folder, or a URL such as s3://bucket/store."""

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | str | None = None,  # noqa: A002 (Arrow's name for it)
        ids: Sequence[int | str] | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> Iterator[pa.Table]:
        """Rows as Arrow tables, a row group at a time, in the store's order; see `reading.scan.scan`."""
        from ae_pipeline.store.reading.scan import scan

        return scan(self, columns, filter, ids, on_damaged)

    def rows(
        self,
        filter: pc.Expression | str | None = None,  # noqa: A002
        ids: Sequence[int | str] | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> Iterator[LatentRows]:
        """Chosen rows with latents and errors as NumPy arrays."""
        for table in self.scan(None, filter, ids, on_damaged):
            yield self.to_rows(table)
