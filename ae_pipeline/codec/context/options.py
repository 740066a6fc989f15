"""What codec.json says of a context codec; readable without torch."""

from typing import Annotated

from pydantic import Field

from ae_pipeline.data.json_types import JsonModel
from ae_pipeline.data.pixels import SampleSpec

NAME = "context"
"""The name under which these stand where other codecs have their model's."""
MOST_SIDE = 64
STREAM_ROWS = 2000
"""Rows of a stream where nothing else is asked for: more are slow to read one of, fewer take more bits."""
Width = Annotated[int, Field(ge=8, le=1024, multiple_of=8)]


class Options(JsonModel):
    """Bound and widths."""

    max_error: Annotated[int, Field(ge=0, le=127)]
    """No value comes back further from the original, in the samples' own units; 0: every value as it was."""
    mask: tuple[Width, Width] = (96, 64)
    """Hidden values of the network of masks."""
    value: tuple[Width, Width, Width] = (96, 64, 64)
    """Hidden values of the network of values: two layers before its first answer, and one before its second."""
    whole: Width = 32
    """Hidden values of the network that looks at a whole mask."""


def why_not(spec: SampleSpec) -> str | None:
    """Why samples cannot be coded by contexts, or None."""
    if spec.dtype == "uint8" and len(spec.shape) == 2 and max(spec.shape) <= MOST_SIDE:
        return None
    return (
        f"codec.family: context is for grey pictures of uint8, at most {MOST_SIDE} x {MOST_SIDE}, but samples are "
        f"{spec.describe()}; set it to autoencoder"
    )
