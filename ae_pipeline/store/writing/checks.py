"""What a data set must be to go into a store: shape, ids, names and columns."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.data.sample_files import key_in_path
from ae_pipeline.data.sample_schema import refuse_alike
from ae_pipeline.data.samples import ID, SampleSet
from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.store.format.entries import ColumnEntry
from ae_pipeline.store.format.manifest import Manifest
from ae_pipeline.store.format.part_writer import BESIDE, RESERVED


def check_samples(samples: SampleSet, header: CodecHeader, codec_path: Path) -> None:
    """Raise CodecError or DataError unless the codec is for these samples and their ids can be kept."""
    if header.spec != samples.spec:
        raise CodecError(
            f"{codec_path} is for samples of {header.spec.describe()}, but the data set has {samples.spec.describe()}; "
            "use the codec that was trained for it"
        )
    check_id_type(samples.files[0], samples.attributes_schema.field(ID).type)


def check_names(samples: SampleSet) -> None:
    """Raise DataError for columns that a new store does not take: readers could not tell them from others.

    Stores that have such columns were written before this was checked; they are read, repaired and grow as ever.
    """
    ids = "the rows' ids" if samples.has_ids else "the row numbers that are ids where a file has no column of that name"
    refuse_alike(samples.files[0], samples.attributes_schema, {**BESIDE, ID: ids})


def check_id_type(file: Path, kind: pa.DataType) -> None:
    """Raise DataError unless the ids of a file are of a type that a store keeps."""
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{file}: `{ID}` is of type {kind}, expected integers or strings; convert it first")


def attribute_columns(samples: SampleSet) -> list[ColumnEntry]:
    """Columns of the samples without the pixels, as a store's manifest lists them."""
    return columns_of(as_written(samples.attributes_schema))


def columns_of(schema: pa.Schema) -> list[ColumnEntry]:
    """Names and types of columns."""
    return [ColumnEntry(name=field.name, type=str(field.type)) for field in schema]


def as_written(schema: pa.Schema) -> pa.Schema:
    """Through Parquet and back, as the columns of a part are: that renames the items of lists."""
    file = pa.BufferOutputStream()
    pq.write_metadata(schema, file)
    return pq.read_schema(file.getvalue())


def stored_attributes(manifest: Manifest) -> list[ColumnEntry]:
    """Columns of a store without latents and errors."""
    return [column for column in manifest.columns if column.name not in RESERVED]


def check_columns(file: Path, found: list[ColumnEntry], expected: list[ColumnEntry], where: Path | str) -> None:
    """Raise DataError unless a data set has the columns that `where` has, in the same order and types."""
    if found != expected:
        here = {column.name for column in found}
        above = key_in_path(file, {column.name for column in expected} - here)
        advice = (
            f"give the folder above `{above}`, whose key is a column there" if above else "give it the same columns"
        )
        raise DataError(
            f"{file} has the columns {_listed(found)}, expected {_listed(expected)} as in {where}; {advice}, or encode "
            "it into a store of its own"
        )


def _listed(columns: list[ColumnEntry]) -> str:
    return ", ".join(f"{column.name}: {column.type}" for column in columns)
