"""The format's one writer: rows of attributes, latents and errors to one part of a store."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.codec.context.options import too_many_rows
from ae_pipeline.data.parquet.limits import MOST_ROW_GROUP_BYTES
from ae_pipeline.data.parquet.writer import ZSTD_LEVEL, RowGroupWriter
from ae_pipeline.data.pixels import PIXELS
from ae_pipeline.data.sample_schema import STORE_COLUMNS
from ae_pipeline.data.samples import ID, id_encoding
from ae_pipeline.errors import DataError
from ae_pipeline.store.format.layouts import LATENT, STREAM, layout_of

ERROR = "error"
RESERVED = STORE_COLUMNS
BESIDE = {
    ID: "the rows' ids",
    PIXELS: "the samples",
    **dict.fromkeys(RESERVED, "which a latent store keeps for itself"),
}
"""Names that stand beside attributes in stores and data sets, each with what it is."""
PART_KEY = b"ae_pipeline.part"
_ERROR_FRACTION_BITS = 8


class PartWriter(RowGroupWriter):
    """Write one part block by block; use as a context manager. The file has its name only when whole."""

    def __init__(
        self,
        path: Path,
        attributes: pa.Schema,
        layout: str,
        latent_size: int,
        row_group_rows: int,
        job: str,
        joined: Sequence[int] = (),
        streams: Any = None,
    ):
        """`streams` is a context codec's StreamCoder, for the layout `stream`."""
        taken = [name for name in attributes.names if name in RESERVED]
        if taken:
            raise DataError(f"column names {', '.join(taken)} are reserved in a latent store; rename them first")
        if layout == STREAM and (reason := too_many_rows(row_group_rows, latent_size)):
            raise DataError(f"encode.row_group_rows: {reason}")
        self._layout = layout_of(layout, streams)
        schema = pa.schema(
            [
                *attributes,
                pa.field(LATENT, self._layout.arrow_type(latent_size), nullable=False),
                pa.field(ERROR, pa.float32(), nullable=False),
            ],
            metadata=part_metadata(job, joined),
        )
        others = [name for name in attributes.names if name != ID]
        super().__init__(
            path,
            schema,
            row_group_rows,
            use_dictionary=[*others, *self._layout.dictionary_columns],
            column_encoding={ID: id_encoding(schema.field(ID).type), ERROR: "BYTE_STREAM_SPLIT"},
            write_statistics=[*others, ID, ERROR],
            # Columns that are not named have Arrow's own level, which is ZSTD_LEVEL.
            **({"compression_level": {LATENT: level}} if (level := self._layout.zstd_level) != ZSTD_LEVEL else {}),
        )

    def write(self, attributes: pa.Table, latents: np.ndarray, error: np.ndarray) -> None:
        """Append rows: latents int8 (n, L), error float32 (n,)."""
        table = attributes.append_column(LATENT, self._layout.to_arrow(latents))
        self.append(table.append_column(ERROR, pa.array(round_error(error))))

    def _to_file(self, group: pa.Table) -> pa.Table:
        """A row group with its latents as they stand in the file."""
        place = group.schema.get_field_index(LATENT)
        rows = group.column(place).combine_chunks()
        # In files of other layouts, `cut` sees it.
        if self._layout.coded_type and rows.nbytes > MOST_ROW_GROUP_BYTES:
            raise DataError(
                f"latents of {len(rows)} rows take {rows.nbytes} bytes in memory, at most {MOST_ROW_GROUP_BYTES} are "
                f"allowed in a row group; set encode.row_group_rows to less than {len(rows)} (a store that has rows "
                "keeps the number that it began with: encode these into another one)"
            )
        latents = self._layout.to_file(rows)
        return group.set_column(place, pa.field(LATENT, latents.type, nullable=False), latents)


def part_metadata(job: str, joined: Sequence[int] = ()) -> dict[bytes, bytes]:
    """What a part says of itself: the digest of the job that made it, and the numbers of the parts that it has joined.

    Numbers that follow each other are written as the first and the last one.
    """
    values: dict[str, Any] = {"format": 1, "job": job}
    if joined:
        values["joined"] = runs_of(joined)
    return {PART_KEY: json.dumps(values).encode()}


def runs_of(numbers: Sequence[int]) -> list[list[int]]:
    """Numbers in their order, as runs: [3, 4, 5, 9] are [[3, 5], [9, 9]]."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def round_error(error: np.ndarray) -> np.ndarray:
    """float32 rounded to 8 fraction bits (at most 0.2% off): a diagnostic needs no more, and the rest would not
    compress: 15 more bits in every row, an eighth of a default row.
    """
    drop = 23 - _ERROR_FRACTION_BITS
    bits = error.astype(np.float32).view(np.uint32)
    # Adding half of the last kept bit rounds to nearest; a carry into the exponent gives the next power of two.
    return ((bits + np.uint32(1 << (drop - 1))) >> np.uint32(drop) << np.uint32(drop)).view(np.float32)
