"""What a kind keeps of the user's records, as plain JSON: it travels in codec.json, and so in every store.

entry = entry_of("vector", state)            # for a codec, and for the metadata of prepared rows
kind, state = open_kind(entry)               # kinds/__init__.py
"""

from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, JsonValue, ValidationError, field_validator

from ae_pipeline.data.arrow_types import type_from_json
from ae_pipeline.data.json_types import JsonModel, KindEntry
from ae_pipeline.errors import DataError

Name = Annotated[str, Field(min_length=1, max_length=4096)]


class Form(JsonModel):
    """How the records stood in the user's files: all that giving them back in that form needs."""

    sort: Literal["files", "table", "array"]
    """Files of one record each, Parquet, or NumPy's arrays."""
    column: Name | None = None
    """The column, or the array of an .npz, with the records; null for several columns of a table."""
    type: JsonValue = None
    """Arrow type of that column, or of an array's values, as data/arrow_types.py describes it; null for files.

    A struct with a field for each, where several columns of a table make a record."""
    columns: tuple[str, ...] = ()
    """All columns of the user's table in order, that of the records among them."""
    label: Name | None = None
    """`folder`, or the user's name for the column that is called `label` here; null: none."""

    @field_validator("type")
    @classmethod
    def _is_a_type(cls, found: JsonValue) -> JsonValue:
        if found is not None:
            type_from_json(found)
        return found

    @property
    def arrow_type(self) -> pa.DataType | None:
        """Type of the column, or of an array's values."""
        return None if self.type is None else type_from_json(self.type)

    @property
    def together(self) -> pa.Schema | None:
        """The columns of a table that make a record together, row by row; None where one column holds the records."""
        kind = self.arrow_type
        if self.sort != "table" or self.column is not None or kind is None or not pa.types.is_struct(kind):
            return None
        return pa.schema([kind.field(place) for place in range(kind.num_fields)])


class KindState(JsonModel):
    """The least that every kind keeps. A kind with more has a class of its own below this one (`Kind.State`)."""

    form: Form


def entry_of(name: str, state: KindState) -> KindEntry:
    """A kind's name and state, as a codec and prepared rows keep them. Raises DataError for one that is too large."""
    values: dict[str, Any] = state.model_dump(mode="json")
    try:
        return KindEntry(name=name, state=values)
    except ValidationError as error:
        what = (
            f"what the codec would keep of these records' form {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        )
        raise DataError(what, advice="give fewer or shorter names to their columns") from None
