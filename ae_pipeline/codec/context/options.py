"""What codec.json says of a context codec; readable without torch."""

from typing import Annotated

from pydantic import Field

from ae_pipeline.data.json_types import JsonModel
from ae_pipeline.data.pixels import SampleSpec

NAME = "context"
"""The name under which these stand where other codecs have their model's."""
MOST_SIDE = 64
USUAL_TILE = 32
"""Pixels a side of a tile where nothing else is asked for, as kinds/image.py has it."""
STREAM_ROWS = 1500
"""Rows of a stream where nothing else is asked for: more are slow to read one of, fewer take more bits."""
MOST_STREAM_BYTES = 8 << 20
"""What the latents of a stream may take, a byte each: coding takes 40 times as much memory, of noise 110 times."""
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
    restore: tuple[Width, Width] | None = None
    """Hidden values of the network that restores values within their bins; None: there is none."""


def why_not(spec: SampleSpec) -> str | None:
    """Why samples cannot be coded by contexts, or None."""
    if spec.dtype == "uint8" and len(spec.shape) == 2 and max(spec.shape) <= MOST_SIDE:
        return None
    advice = "set it to autoencoder, and encode.layout to binary"
    if spec.dtype == "uint8" and len(spec.shape) == 2:
        advice = (
            f"cut them into tiles (with the source `files`, source.files.settings: {{tile: {USUAL_TILE}}}), or {advice}"
        )
    return (
        f"codec.family: context is for grey pictures of uint8, at most {MOST_SIDE} x {MOST_SIDE}, but samples are "
        f"{spec.describe()}; {advice}"
    )


def too_many_rows(row_group_rows: int, size: int) -> str | None:
    """Why a stream cannot hold so many rows of `size` values, or None. The caller says which parameter says so."""
    if row_group_rows * size <= MOST_STREAM_BYTES:
        return None
    most = MOST_STREAM_BYTES // size
    instead = min(STREAM_ROWS, most)
    return f"{row_group_rows}, but at most {most} rows of {size} values are in a stream; set it to {instead}"
