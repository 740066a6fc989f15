"""Options of the model `dense`."""

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

    before = {"encoder_hidden_sizes": None, "hidden_norm": "none"}
    about_equal_bits = ("hidden_sizes", "activation", "dropout")
