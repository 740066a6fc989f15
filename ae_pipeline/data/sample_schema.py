"""What the columns of Parquet files say about their samples: shape and dtype, and what tells two files apart."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import PIXELS, SampleSpec
from ae_pipeline.data.sample_files import FoundFiles, Keys
from ae_pipeline.errors import DataError

ROW_ID = "id"
METADATA_KEY = b"ae_pipeline.samples"
KIND_KEY = b"ae_pipeline.kind"
STORE_COLUMNS = ("latent", "error", "residual", "residual_bound")
"""Names of columns that a latent store keeps for itself."""


def sample_schema(attributes: pa.Schema, spec: SampleSpec, kind: KindEntry | None = None) -> pa.Schema:
    """Arrow schema of the canonical layout; `kind` says what a row means."""
    metadata = {METADATA_KEY: json.dumps({"format": 1, "shape": list(spec.shape), "dtype": spec.dtype}).encode()}
    if kind:
        metadata[KIND_KEY] = kind.model_dump_json().encode()
    pixels = pa.field(PIXELS, pa.binary(spec.nbytes), nullable=False)
    return pa.schema([*attributes, pixels], metadata=metadata)


def spec_of(file: Path, schema: pa.Schema, expected: SampleSpec | None) -> SampleSpec:
    """Shape and dtype of a file's samples: as it says, else as `expected`. Raises DataError."""
    if PIXELS not in schema.names:
        raise DataError(
            f"{file} has no column `{PIXELS}` (found: {', '.join(schema.names)}); rename the one with the samples"
        )
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise DataError(f"{file} has several columns named {', '.join(repeated)}; rename or drop all but one")
    spec = stated_spec(file, schema) or expected
    if spec is None:
        raise DataError(f"{file} does not say the shape of its samples; expected `{METADATA_KEY.decode()}` metadata")
    if expected is not None and spec != expected:
        raise DataError(
            f"{file} holds samples of {spec.describe()}, expected {expected.describe()} as the codec has; use the one "
            "that was trained for them"
        )
    width = schema.field(PIXELS).type
    if pa.types.is_fixed_size_binary(width) and width.byte_width != spec.nbytes:
        raise DataError(f"{file}: {width.byte_width} bytes per row, expected {spec.nbytes} for {spec.describe()}")
    return spec


def one_schema(schemas: Mapping[Path, pa.Schema], expected: SampleSpec | None) -> tuple[pa.Schema, SampleSpec]:
    """What all files have in common. Raises DataError where one differs."""
    first, common = next(iter(schemas.items()))
    for file, schema in schemas.items():
        if not schema.equals(common, check_metadata=False):
            which = schema_difference(schema, common)
            raise DataError(f"{file} has other columns than {first}: {which}; give all files the same")
    spec = spec_of(first, common, expected)
    for file, schema in schemas.items():
        stated = stated_spec(file, schema)
        if stated not in (None, spec):
            raise DataError(f"{file} holds samples of {stated.describe()}, expected {spec.describe()} as {first} has")
    return common, spec


def stated_spec(file: Path, schema: pa.Schema) -> SampleSpec | None:
    """Shape and dtype that the file's own metadata state, if any. Raises DataError where they cannot be read."""
    stated = (schema.metadata or {}).get(METADATA_KEY)
    if stated is None:
        return None
    try:
        values = json.loads(stated)
        if values.get("format", 1) != 1:
            raise DataError(f"has format {values['format']!r}, expected 1; use a newer ae-pipeline")
        return SampleSpec(tuple(int(size) for size in values["shape"]), str(values["dtype"]))
    except DataError as error:
        raise DataError(f"{file}: its `{METADATA_KEY.decode()}` metadata: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{file}: its `{METADATA_KEY.decode()}` metadata is damaged; make or fetch it again") from None


def stated_kind(schemas: Mapping[Path, pa.Schema]) -> KindEntry | None:
    """What a row of these files means, as all of them say; None where they do not say it. Raises DataError."""
    first: tuple[Path, bytes | None] | None = None
    for file, schema in schemas.items():
        stated = (schema.metadata or {}).get(KIND_KEY)
        first = first or (file, stated)
        if stated != first[1]:
            raise DataError(f"{file} says another kind of its rows than {first[0]}; give files of one kind")
    if first is None or first[1] is None:
        return None
    try:
        return KindEntry.model_validate_json(first[1])
    except ValidationError:
        advice = "make or fetch it again"
        raise DataError(f"has damaged `{KIND_KEY.decode()}` metadata", place=first[0], advice=advice) from None


def schema_difference(found: pa.Schema, expected: pa.Schema) -> str:
    """The first column that tells two schemas apart."""
    for name in sorted({*found.names, *expected.names}):
        one, other = (
            " and ".join(str(schema.types[place]) for place in schema.get_all_field_indices(name)) or "not there"
            for schema in (found, expected)
        )
        if one != other:
            return f"`{name}` is {one}, and {other} in the other"
    return "in another order, or where values may be missing"


def attribute_fields(schema: pa.Schema, stored: Mapping[str, str]) -> pa.Schema:
    """The fields of a file but the pixels, id first; in types that can be compared and chosen from.

    Arrow can do neither with views of texts or bytes: they become plain ones, unless a store (`stored`: its columns'
    names and types) has them as they are.
    """
    first = schema.field(ROW_ID) if ROW_ID in schema.names else pa.field(ROW_ID, pa.int64(), nullable=False)
    kind = first.type.value_type if pa.types.is_dictionary(first.type) else first.type  # pandas writes categories so
    fields = [first.with_type(without_views(kind))]
    for field in schema:
        if field.name not in (ROW_ID, PIXELS):
            as_is = "_view" in stored.get(field.name, "")
            fields.append(field if as_is else _plain(field))
    return pa.schema([field.with_metadata(None) for field in fields])


def without_views(kind: pa.DataType) -> pa.DataType:
    """Texts and bytes in one piece, as all of Arrow knows them, however deep in a type."""
    if "_view" not in str(kind):
        return kind
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.string() if pa.types.is_string_view(kind) else pa.binary()
    if pa.types.is_map(kind):
        return pa.map_(*(_plain(field) for field in (kind.key_field, kind.item_field)))
    if pa.types.is_struct(kind):
        return pa.struct([_plain(field) for field in kind.fields])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(_plain(kind.value_field))
    return pa.list_(_plain(kind.value_field), kind.list_size) if pa.types.is_fixed_size_list(kind) else kind


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(without_views(field.type))


def refuse_key_columns(found: FoundFiles, schema: pa.Schema) -> None:
    """Raise DataError for folders `key=value` whose key cannot be a column beside those of the files."""
    for name, _ in found.keys.get(found.files[0], ()):
        if name in (ROW_ID, PIXELS):
            raise DataError(f"{found.root} has folders {name}=..., but `{name}` is a column of every row; rename them")
        others = [other for other in schema.names if other != name and other.casefold() == name.casefold()]
        if others:
            raise DataError(
                f"{found.root} has folders {name}=..., and {found.files[0]} a column `{others[0]}`, which is the same "
                "name to programs that read names without case; rename one of them"
            )


def with_keys(file: Path, attributes: pa.Table, keys: Keys) -> pa.Table:
    """The attributes with the file's keys as columns. Raises DataError where a column of its own says otherwise."""
    for name, value in keys:
        if name not in attributes.column_names:
            text = pa.repeat(pa.scalar(value, pa.string()), len(attributes))
            attributes = attributes.append_column(name, text)
        elif not _same_as_key(attributes.column(name), value):
            raise DataError(
                f"{file}: its column `{name}` has other values than the key in its folder's name, "
                f"{name}={value}; rename or drop one of them"
            )
    return attributes


def _same_as_key(column: pa.ChunkedArray, value: str | None) -> bool:
    """Whether all rows of a column have the value that stands in their folder's name."""
    if value is None:
        return bool(column.null_count == len(column))
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        # Numbers as numbers: one folder may be month=7 and another, by another program, month=07.
        wanted = pa.scalar(value).cast(column.type) if pa.types.is_integer(column.type) else pa.scalar(value)
        same = pc.equal(column if pa.types.is_integer(column.type) else column.cast(pa.string()), wanted)
    except pa.ArrowException:
        return False
    return bool(pc.all(same.fill_null(False)).as_py())


def refuse_alike(file: Path, schema: pa.Schema, reserved: Mapping[str, str]) -> None:
    """Raise DataError for columns that programs without case cannot tell apart, or that Arrow would not keep.

    `reserved` are names that stand beside these columns, each with what it is.
    """
    for name in schema.names:
        taken = next((other for other in reserved if other != name and other.casefold() == name.casefold()), None)
        if taken:
            raise DataError(
                f"{file}: column `{name}` differs only by case from `{taken}`, {reserved[taken]}; DuckDB and others "
                "read names without case, and would take one for the other; rename it"
            )
    for names in _name_lists("", schema):
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                raise DataError(
                    f"{file}: columns `{other}` and `{name}` differ only by case; DuckDB and others read names without "
                    "case, and would take one for the other; rename one of them"
                )
    for field in schema:
        if "list_view" in str(field.type):
            raise DataError(
                f"{file}: column `{field.name}` is of type {field.type}, of which Arrow writes some lists as empty "
                "ones; write it as plain lists"
            )


def _name_lists(above: str, fields: Collection[pa.Field]) -> Iterator[list[str]]:
    """Names that stand beside each other: of columns, and of the fields of each struct."""
    yield [f"{above}{field.name}" for field in fields]
    for field in fields:
        kind = field.type
        if pa.types.is_nested(kind):
            inner = [kind.field(place) for place in range(kind.num_fields)]
            yield from _name_lists(f"{above}{field.name}.", inner)
