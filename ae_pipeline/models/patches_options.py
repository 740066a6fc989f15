"""Options of the model `patches`."""

from typing import Annotated

from pydantic import Field

from ae_pipeline.params.base import Activation, Fraction, ModelOptions, Norm, Output, Size


class Options(ModelOptions):
    """Options of `PatchAutoencoder`."""

    patch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """Pixels a side: the grid has so many times fewer rows and columns than the image, zeros at its edges included."""
    encoder_channels: Annotated[list[Size], Field(min_length=1)] = [16]
    """Channels after each 3x3 convolution of the encoder."""
    decoder_channels: Annotated[list[Size], Field(min_length=1)] = [16, 16]
    """Channels after the decoder's linear layer, and after each convolution but the last."""
    hidden_norm: Norm = "batch"
    """Batch normalisation as in `dense`, of each channel."""
    activation: Activation = "relu"
    latent_norm: Norm = "batch"
    output_activation: Output = "clamp"
    dropout: Fraction = 0.0

    for_images = True
    about_equal_bits = ("patch_size", "encoder_channels", "decoder_channels", "activation", "dropout")
