"""Options of the model `grid`."""

from typing import Annotated, Literal

from pydantic import Field

from ae_pipeline.params.base import Fraction, ModelOptions, Output, Size


class Options(ModelOptions):
    """Options of `GridAutoencoder`."""

    patch_size: Annotated[int, Field(ge=1, le=512)] = 4
    """Pixels a side of a patch; 2 x 2 patches are a block, which has latents of its own."""
    encoder_channels: Annotated[list[Size], Field(min_length=2, max_length=2)] = [32, 64]
    """Channels of a patch, then of a block, before the latents."""
    decoder_channels: Annotated[list[Size], Field(min_length=3, max_length=3)] = [64, 32, 48]
    """Channels of a block after the latents, then of a patch, twice."""
    activation: Literal["leaky_relu", "gelu", "silu", "tanh"] = "leaky_relu"
    """This model computes in floats (models/grid.py says why): none of these is what integers compute."""
    output_activation: Output = "clamp"
    dropout: Fraction = 0.0

    for_images = True
    about_equal_bits = ("encoder_channels", "decoder_channels", "activation", "dropout")
