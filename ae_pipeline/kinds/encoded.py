"""Records that stand in a column as the bytes of files: binary, or Hugging Face's struct of bytes and path."""

import pyarrow as pa

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


def _field(records: pa.StructArray, name: str) -> pa.Array:
    """A field of structs, missing where the struct is."""
    return records.flatten()[records.type.get_field_index(name)]
