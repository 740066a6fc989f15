"""What codec.json says of a codec of tables, whose rows have fields (data/table_columns/fields.py). Needs no torch."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from ae_pipeline.data.json_types import JsonModel
from ae_pipeline.data.table_columns.fields import LARGEST, MOST_FIELDS, MOST_SYMBOLS, FieldNumber, FieldOptions

NAME = "table"
"""The name under which these stand where other codecs have their model's."""
MOST_SPAN = 15
LATENT_BYTES = 4
"""Bytes of a field's latent, an int32."""
_Hidden = Annotated[int, Field(ge=1, le=256)]


class ColumnOptions(JsonModel):
    """How one field is coded."""

    field: FieldNumber
    hidden: tuple[_Hidden, _Hidden] | None = None
    """Sizes of the two hidden layers; null: the chances are the same in every row."""
    linear: bool = False
    """Whether a linear layer from the inputs is added to the prediction of a number."""
    span: Annotated[int, Field(ge=1, le=MOST_SPAN)] | None = None
    """A number is coded as so many coarse cells below the predicted one to so many above; further away, by itself."""
    low_bits: Annotated[int, Field(ge=0, le=22)] = 0
    """A coarse cell has 2 ** low_bits cells, all as likely."""
    cells: Annotated[int, Field(ge=1, lt=MOST_SYMBOLS)] | None = None
    """A codebook instead, of so many cells. What is in none of them is coded by itself."""
    mean: Annotated[int, Field(ge=-(1 << 24), le=1 << 24)] = 0
    spread: Annotated[int, Field(ge=1, le=1 << 24)] = 1
    """Standard deviation of twice the numbers in training, rounded, as `mean` is their mean."""

    @model_validator(mode="after")
    def _is_possible(self) -> "ColumnOptions":
        if self.span is not None and self.cells is not None:
            raise ValueError("a field is coded by a prediction or by a codebook, not by both")
        if (self.low_bits or self.linear) and self.span is None:
            raise ValueError("low_bits and linear belong to a prediction")
        return self


class TableOptions(JsonModel):
    """Fields in the order of a row, and how each is coded, in the order in which they are."""

    fields: Annotated[tuple[FieldOptions, ...], Field(min_length=1, max_length=MOST_FIELDS)]
    columns: Annotated[tuple[ColumnOptions, ...], Field(max_length=MOST_FIELDS)]

    @model_validator(mode="after")
    def _belong_together(self) -> "TableOptions":
        order = [column.field for column in self.columns]
        if sorted(order) != list(range(len(self.fields))):
            raise ValueError("every field is coded once")
        for place, column in enumerate(self.columns):
            field = self.fields[column.field]
            if field.is_category != (column.span is None and column.cells is None):
                raise ValueError(f"field {column.field} is a {field.sort}, and coded otherwise")
            if field.present is not None and field.present not in order[:place]:
                raise ValueError(f"field {column.field} is coded before the one that says whether it is there")
            if field.present is not None and not self.fields[field.present].is_category:
                raise ValueError(f"field {column.field} is there or not by what is no category")
            if column.span is not None and field.cell << column.low_bits > 4 * LARGEST:
                raise ValueError(f"coarse cells of field {column.field} are too wide")
        return self

    @property
    def max_error(self) -> float:
        """No value of a row comes back further away than this, but for the rounding to float32."""
        return max((field.cell - 1) / 2 / field.largest for field in self.fields)


def latents_of(found: np.ndarray) -> np.ndarray:
    """Integers (rows, fields) as the int8 latents (rows, 4 * fields) that a store keeps: int32, little-endian."""
    return np.ascontiguousarray(found, "<i4").view(np.int8).reshape(len(found), -1)


def of_latents(latents: np.ndarray) -> np.ndarray:
    """Undo `latents_of`: int64 (rows, fields)."""
    return np.ascontiguousarray(latents).view("<i4").reshape(len(latents), -1).astype(np.int64)


def denominators(fields: Sequence[FieldOptions]) -> np.ndarray:
    """float64 (fields,): what latents are divided by."""
    return np.array([field.denominator for field in fields], np.float64)
