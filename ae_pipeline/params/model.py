"""The section of params.yaml that says which autoencoder, with the options of each kind under its own name."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ae_pipeline.params.base import Fraction, Section, Size

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "identity"]
Output = Literal["sigmoid", "clamp", "linear"]
"""Activation of the last layer, for values in [0, 1]: `clamp` cuts off what is outside; `linear` leaves it."""


class DenseOptions(Section):
    """Fully connected autoencoder; see models/dense.py."""

    hidden_sizes: list[Size] = [448, 224]
    """Widths of the encoder's hidden layers; the decoder has them mirrored. [] is the brief's 784-L-784."""
    encoder_hidden_sizes: list[Size] | None = None
    """The encoder's hidden layers where they are to differ: a smaller encoder is a faster one. null: the same."""
    hidden_norm: Literal["batch", "none"] = "batch"
    """`batch`: batch normalisation before each hidden activation, folded into the weights when training ends."""
    activation: Activation = "relu"
    latent_activation: Activation = "identity"
    latent_norm: Literal["batch", "none"] = "batch"
    """`batch` gives every latent dimension zero mean and unit variance, so that a uniform quantiser fits it."""
    output_activation: Output = "sigmoid"
    dropout: Fraction = 0.0


class ConvOptions(Section):
    """Convolutional autoencoder; see models/conv.py."""

    channels: Annotated[list[Size], Field(min_length=1)] = [16, 32]
    """Channels after each stride-2 convolution of the encoder; the decoder has them mirrored."""
    hidden_norm: Literal["batch", "none"] = "batch"
    """Normalisation of each channel; `dense` says what the choices mean."""
    activation: Activation = "relu"
    latent_norm: Literal["batch", "none"] = "batch"
    output_activation: Output = "sigmoid"
    dropout: Fraction = 0.0


class PatchOptions(Section):
    """Convolutions over a grid of patches, for images; see models/patches.py."""

    patch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """Pixels a side: the grid has so many times fewer rows and columns than the image, zeros at its edges included."""
    encoder_channels: Annotated[list[Size], Field(min_length=1)] = [16]
    """Channels after each 3x3 convolution of the encoder."""
    decoder_channels: Annotated[list[Size], Field(min_length=1)] = [16, 16]
    """Channels after the decoder's linear layer, and after each convolution but the last."""
    hidden_norm: Literal["batch", "none"] = "batch"
    """Normalisation of each channel; `dense` says what the choices mean."""
    activation: Activation = "relu"
    latent_norm: Literal["batch", "none"] = "batch"
    output_activation: Output = "clamp"
    dropout: Fraction = 0.0


class ModelParams(Section):
    """Which autoencoder, and its options under its own name."""

    name: Literal["dense", "conv", "patches"] = "dense"
    dense: DenseOptions = DenseOptions()
    conv: ConvOptions = ConvOptions()
    patches: PatchOptions = PatchOptions()

    @property
    def options(self) -> dict[str, Any]:
        """The chosen model's options as keyword arguments."""
        return dict(getattr(self, self.name))
