"""Rows of tables as numbers: a row has **fields**, each a whole number k.

That is the place of a category in its list, or of a number on a grid of its own. A row of samples has k / `largest` of
every field, as float32. What comes back of a number is the middle of a cell that k lies in, of `cell` places of the
grid, so that it is within (cell - 1) / 2 of k.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ae_pipeline.data.json_types import JsonModel

LARGEST = 1 << 22
"""The largest k of a field: a float32 between 0 and 1 has room for every k / LARGEST."""
MOST_FIELDS = 512
MOST_SYMBOLS = 255
"""Categories of a field, and cells of a codebook with the symbol that says that it has none."""
FieldNumber = Annotated[int, Field(ge=0, lt=MOST_FIELDS)]


class FieldOptions(JsonModel):
    """One field of a row."""

    sort: Literal["category", "number"]
    largest: Annotated[int, Field(ge=1, le=LARGEST)]
    """Categories are 0 to this one. Numbers of the training are, and others are from -largest to 2 * largest."""
    cell: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    """Places of the grid that come back as one; 1: every number as it was."""
    present: FieldNumber | None = None
    """The field, a category, that says whether the row has this number: 0 if so; else the field is 0, and not coded."""

    @model_validator(mode="after")
    def _is_possible(self) -> "FieldOptions":
        if self.sort == "category" and (self.largest >= MOST_SYMBOLS or self.cell != 1 or self.present is not None):
            raise ValueError(f"a category is one of at most {MOST_SYMBOLS}, and always there")
        return self

    @property
    def is_category(self) -> bool:
        """Whether its values have no order."""
        return self.sort == "category"

    @property
    def denominator(self) -> int:
        """What a latent is divided by to get the value in a row: of numbers, latents are twice k."""
        return self.largest if self.is_category else 2 * self.largest


def places_of(rows: np.ndarray, fields: Sequence[FieldOptions]) -> np.ndarray:
    """int64 (rows, fields): k of the values of rows, float32 (rows, fields)."""
    scaled = np.rint(rows.astype(np.float64) * np.array([field.largest for field in fields], np.float64))
    return scaled.astype(np.int64)
