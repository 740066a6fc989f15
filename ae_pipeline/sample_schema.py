"""What the columns of Parquet files say about their samples: shape and dtype, and what tells two files apart."""

import json
from pathlib import Path

import pyarrow as pa

from ae_pipeline.errors import DataError
from ae_pipeline.pixels import PIXELS, SampleSpec

METADATA_KEY = b"ae_pipeline.samples"


def sample_schema(attributes: pa.Schema, spec: SampleSpec) -> pa.Schema:
    """Arrow schema of the canonical layout."""
    metadata = {METADATA_KEY: json.dumps({"format": 1, "shape": list(spec.shape), "dtype": spec.dtype}).encode()}
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
