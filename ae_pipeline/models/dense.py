"""Fully connected autoencoder: values - hidden_sizes - L - hidden_sizes mirrored - values.

`hidden_sizes: []` with `latent_activation: relu` and `latent_norm: none` is the brief's 784-128-784 network; with a
linear output it has the form of PCA.
"""

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from ae_pipeline.models.base import ACTIVATIONS, Autoencoder, stack
from ae_pipeline.models.dense_options import Options
from ae_pipeline.models.linear import Linear


class DenseAutoencoder(Autoencoder):
    """See the module and `Options`."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        super().__init__(sample_shape, latent_size, options, options.output_activation)
        up = options.hidden_sizes[::-1]
        down = up[::-1] if options.encoder_hidden_sizes is None else options.encoder_hidden_sizes
        values = prod(sample_shape)
        self.widest = max(values, latent_size, *up, *down)
        self.encoder_depth = len(down) + 1
        self.encoder = _stack([values, *down, latent_size], options)
        # Its own scale and shift would be undone by the quantiser's: none are learned.
        self.norm = nn.BatchNorm1d(latent_size, affine=False) if options.latent_norm == "batch" else nn.Identity()
        self.latent_activation = ACTIVATIONS[options.latent_activation]()
        self.decoder = _stack([latent_size, *up, values], options)

    def encode(self, x: Tensor) -> Tensor:
        return self.latent_activation(self.norm(self.encoder(x.flatten(1)).float()))

    def decode_raw(self, z: Tensor) -> Tensor:
        raw: Tensor = self.decoder(z)
        return raw.unflatten(1, self.sample_shape)


def _stack(sizes: list[int], options: Options) -> nn.Sequential:
    layers = {f"linear{number}": Linear(*size) for number, size in enumerate(pairwise(sizes))}
    return stack(layers, options.hidden_norm, options.activation, dropout=options.dropout)


MODEL = DenseAutoencoder
