"""Records that stand in a column as the bytes of files: binary, or Hugging Face's struct of bytes and path."""

import pyarrow as pa

from ae_pipeline.kinds.state import KindState

BYTES, PATH = "bytes", "path"
ENCODED = pa.struct({BYTES: pa.binary(), PATH: pa.string()})
"""Hugging Face's type, as it writes pictures and sound."""


def is_encoded(kind: pa.DataType) -> bool:
    """Whether the values of a column of this type can be the bytes of files."""
    if pa.types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        return set(names) in ({BYTES}, {BYTES, PATH}) and is_binary(kind.field(BYTES).type)
    return is_binary(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether the values are bytes, of whatever lengths."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def bytes_of(records: pa.Array) -> pa.Array:
    """The bytes of each record, missing where its struct is."""
    return _field(records, BYTES) if pa.types.is_struct(records.type) else records


def paths_of(records: pa.Array) -> dict[str, pa.Array]:
    """Hugging Face's path of each record, under the name `path`; nothing for bytes alone."""
    has_path = pa.types.is_struct(records.type) and records.type.get_field_index(PATH) >= 0
    return {PATH: _field(records, PATH)} if has_path else {}


def kept_path(state: KindState) -> tuple[str, ...]:
    """The attribute that has the path of each record, where a struct had one."""
    kind = state.form.arrow_type
    has_path = kind is not None and pa.types.is_struct(kind) and kind.get_field_index(PATH) >= 0
    return (f"{state.form.column}_{PATH}",) if has_path else ()


def as_column(files: list[bytes], attributes: pa.Table, state: KindState, kind: pa.DataType) -> pa.Array:
    """Files as a column of `kind`; `attributes`, (n,), have the paths of structs, or else the names of their files."""
    if not pa.types.is_struct(kind):
        return pa.array(files, kind)
    names = (*kept_path(state), "source_file")
    found = next((name for name in names if name in attributes.column_names), None)
    paths = attributes.column(found).to_pylist() if found else [None] * len(files)
    fields = [kind.field(place) for place in range(kind.num_fields)]
    made = [pa.array(files if field.name == BYTES else paths, field.type) for field in fields]
    return pa.StructArray.from_arrays(made, fields=fields)


def _field(records: pa.StructArray, name: str) -> pa.Array:
    """A field of structs, missing where the struct is."""
    return records.flatten()[records.type.get_field_index(name)]
