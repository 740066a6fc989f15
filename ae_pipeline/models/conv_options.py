"""Options of the model `conv`."""

from typing import Annotated

from pydantic import Field

from ae_pipeline.params.base import Activation, Fraction, ModelOptions, Norm, Output, Size


class Options(ModelOptions):
    """Options of `ConvAutoencoder`."""

    channels: Annotated[list[Size], Field(min_length=1)] = [16, 32]
    """Channels after each stride-2 convolution of the encoder; the decoder has them mirrored."""
    hidden_norm: Norm = "batch"
    """Batch normalisation as in `dense`, of each channel."""
    activation: Activation = "relu"
    latent_norm: Norm = "batch"
    output_activation: Output = "sigmoid"
    dropout: Fraction = 0.0

    before = {"hidden_norm": "none"}
    for_images = True
    about_equal_bits = ("channels", "activation", "dropout")
