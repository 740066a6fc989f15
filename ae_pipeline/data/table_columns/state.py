"""What is kept of each column of a table, as plain JSON in the codec."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from ae_pipeline.data.json_types import Finite, JsonModel
from ae_pipeline.data.table_columns.fields import LARGEST, MOST_SYMBOLS

Missing = Literal["null", "nan"]
_Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
_Scalar = str | bool | int | float | None


class Unchanged(JsonModel):
    """The column stays a column of the store, as it is."""

    sort: Literal["unchanged"] = "unchanged"
    reason: Annotated[str, Field(max_length=200)]
    """Why no model is made for it, in words."""


class Constant(JsonModel):
    """All values are one; others are exceptions."""

    sort: Literal["constant"] = "constant"
    value: JsonValue
    """The value, written as exceptions are; null: there is none."""


class Category(JsonModel):
    """One of some values, the most frequent first; others are exceptions."""

    sort: Literal["category"] = "category"
    values: Annotated[tuple[_Scalar, ...], Field(min_length=2, max_length=MOST_SYMBOLS)]
    """Where null is among them, some rows have no value."""


class Number(JsonModel):
    """A value is (low + k * step) / 10 ** decimals, or low + k * step where `decimals` is null, for a whole k."""

    sort: Literal["number"] = "number"
    low: _Whole | Finite
    step: Annotated[int, Field(ge=1, lt=1 << 63)] | Annotated[float, Field(gt=0, allow_inf_nan=False)]
    decimals: Annotated[int, Field(ge=0, le=15)] | None = 0
    """0 for whole numbers and times; null for floats that are on no grid of decimals."""
    largest: Annotated[int, Field(ge=1, le=LARGEST)]
    """The k of the largest value that was seen."""
    cell: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    """So many k come back as one: see codec/tables/options.py."""
    rounds: bool = False
    """Whether values between those of two k are rounded to one; otherwise they are exceptions."""
    missing: tuple[Missing, ...] = ()
    """What rows have that have no number; there is a field of its own for it."""
    bound: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """No value comes back further away than this, in its own units."""

    @model_validator(mode="after")
    def _is_a_grid(self) -> "Number":
        if (self.decimals is None) != isinstance(self.low, float) or isinstance(self.low, float) != isinstance(
            self.step, float
        ):
            raise ValueError("low and step are floats where decimals is null, and whole numbers otherwise")
        if len(set(self.missing)) < len(self.missing):
            raise ValueError("missing names something twice")
        return self


Column = Annotated[Unchanged | Constant | Category | Number, Field(discriminator="sort")]
