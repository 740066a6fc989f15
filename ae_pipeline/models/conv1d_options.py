"""Options of the model `conv1d`."""

from typing import Annotated, Literal

from pydantic import Field

from ae_pipeline.params.base import Fraction, ModelOptions, Norm, Output, Size


class Options(ModelOptions):
    """Options of `Conv1dAutoencoder`."""

    step: Annotated[int, Field(ge=1, le=2**20)] = 32
    """Values from one place to the next: each place has so many values as channels; zeros fill the last one up."""
    encoder_channels: Annotated[list[Size], Field(min_length=1)] = [64, 32]
    """Channels after each convolution of the encoder, which sees a place and its two neighbours."""
    decoder_channels: Annotated[list[Size], Field(min_length=1)] = [32, 64]
    """Channels after the decoder's linear layer, and after each convolution but the last."""
    hidden_norm: Norm = "batch"
    """Batch normalisation after each convolution but the last, folded into the weights when training ends."""
    activation: Literal["leaky_relu", "gelu", "silu", "tanh"] = "leaky_relu"
    """This model computes in floats (models/conv1d.py says why): none of these is what integers compute."""
    latent_norm: Norm = "none"
    """`none`: how loud sound is varies from batch to batch, and so would what `batch` makes of it."""
    output_activation: Output = "linear"
    dropout: Fraction = 0.0

    about_equal_bits = ("step", "encoder_channels", "decoder_channels", "activation", "dropout")
