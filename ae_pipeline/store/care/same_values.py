"""Whether two tables hold the same values, whatever they are chunked, encoded or padded like."""

import pyarrow as pa
import pyarrow.parquet as pq


def same_values(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables of parts hold the same values: Arrow's `equals` says that NaN differs from NaN."""
    return one.schema.equals(other.schema) and _in_parquet(one) == _in_parquet(other)


def _in_parquet(table: pa.Table) -> pa.Buffer:
    """The values alone: no chunks, no dictionaries, nothing in the place of a null."""
    file = pa.BufferOutputStream()
    plain = table.combine_chunks().replace_schema_metadata()
    pq.write_table(plain, file, use_dictionary=False, write_statistics=False, compression="none")
    return file.getvalue()
