"""Options of the model `dense`."""

from typing import Self

from pydantic import model_validator

from ae_pipeline.params.base import Activation, Fraction, ModelOptions, Norm, Output, Size


class Options(ModelOptions):
    """Options of `DenseAutoencoder`."""

    hidden_sizes: list[Size] = [448, 224]
    """Widths of the encoder's hidden layers; the decoder has them mirrored. [] is the brief's 784-L-784."""
    encoder_hidden_sizes: list[Size] | None = None
    """The encoder's hidden layers where they are to differ: a smaller encoder is a faster one. null: the same."""
    hidden_norm: Norm = "batch"
    """`batch`: batch normalisation before each hidden activation, folded into the weights when training ends."""
    activation: Activation = "relu"
    latent_activation: Activation = "identity"
    latent_norm: Norm = "batch"
    """`batch` gives every latent dimension zero mean and unit variance, so that a uniform quantiser fits it."""
    output_activation: Output = "sigmoid"
    dropout: Fraction = 0.0
    linear_path: bool = False
    """Whether encoder and decoder have a linear layer beside their hidden ones, whose results are added. Both begin as
    the KLT (PCA) of the train rows, and the others at nothing: for vectors, whose best linear code is hard to beat."""

    before = {"encoder_hidden_sizes": None, "hidden_norm": "none", "linear_path": False}
    unsaid = ("linear_path",)
    about_equal_bits = ("hidden_sizes", "activation", "dropout")

    @model_validator(mode="after")
    def _may_begin_as_klt(self) -> Self:
        wanted = {"latent_norm": "none", "latent_activation": "identity"}
        found = {key: getattr(self, key) for key, value in wanted.items() if getattr(self, key) != value}
        if self.output_activation == "sigmoid":
            found["output_activation"] = "sigmoid"
        if self.linear_path and found:
            words = ", ".join(f"{key}: {value}" for key, value in found.items())
            raise ValueError(
                "linear_path: true begins as the KLT, which needs latent_norm: none, latent_activation: identity and "
                f"output_activation: linear or clamp, found {words}; change these, or set linear_path: false"
            )
        return self
