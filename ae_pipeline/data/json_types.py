"""Values that the JSON files of codecs, stores and reports have in common."""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

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


_LARGEST_STATE = 256 << 10


def _is_small(state: dict[str, JsonValue]) -> dict[str, JsonValue]:
    size = len(json.dumps(state, allow_nan=False).encode())
    if size > _LARGEST_STATE:
        raise ValueError(f"has {size:,} bytes, at most {_LARGEST_STATE:,} are supported")
    return state


class KindEntry(JsonModel):
    """What a row means: the name of a kind (kinds/), and what it keeps of the user's records to give them back."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
    state: Annotated[dict[str, JsonValue], AfterValidator(_is_small)]
    """Plain JSON of at most 256 KiB, without NaN and infinity. The kind checks it, where it is installed."""
