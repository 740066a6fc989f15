"""Values that the JSON files of codecs, stores and reports have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1, le=1 << 24)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class JsonModel(BaseModel):
    """What such a file holds, or a part of it: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Samples(JsonModel):
    """Shape and dtype of one row."""

    shape: Annotated[list[Size], Field(min_length=1, max_length=8)]
    dtype: Literal["uint8", "int8", "uint16", "int16", "float32"]
