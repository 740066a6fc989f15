"""Fully connected autoencoder: values - hidden_sizes - L - hidden_sizes mirrored - values.

`hidden_sizes: []` with `latent_activation: relu` and `latent_norm: none` is the brief's 784-128-784 network; with a
linear output it has the form of PCA. With `linear_path` a linear layer stands beside each of the two halves:

    z = encoder(x) + encoder_path(x),    y = decoder(z) + decoder_path(z)
"""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from ae_pipeline.models.base import ACTIVATIONS, Autoencoder, stack
from ae_pipeline.models.dense_options import Options
from ae_pipeline.models.layers.fused import Sequence, added
from ae_pipeline.models.layers.linear import Linear


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
        self.encoder_path: Linear | None = None
        self.decoder_path: Linear | None = None
        if options.linear_path:
            self.encoder_path, self.decoder_path = Linear(values, latent_size), Linear(latent_size, values)
            self.begins_as_klt = True

    def encode(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        z = self.encoder(flat)
        if self.encoder_path is not None:
            z = added(flat, self.encoder_path, z)
        return self.latent_activation(self.norm(z.float()))

    def decode_raw(self, z: Tensor) -> Tensor:
        raw: Tensor = self.decoder(z)
        if self.decoder_path is not None:
            raw = added(z, self.decoder_path, raw)
        return raw.unflatten(1, self.sample_shape)

    def gives_latents(self) -> list[str]:
        return [*super().gives_latents(), *(["encoder_path"] if self.encoder_path is not None else [])]

    def takes_latents(self) -> list[str]:
        return [*super().takes_latents(), *(["decoder_path"] if self.decoder_path is not None else [])]

    def _layers(self) -> list[str]:
        return [name for name in super()._layers() if not name.endswith("_path")]

    @torch.no_grad()
    def begin_as_klt(self, mean: Tensor, components: Tensor, unit: float) -> None:
        assert self.encoder_path is not None
        assert self.decoder_path is not None
        used = min(len(components), self.latent_size)
        for layer in (self.encoder_path, self.decoder_path, self.encoder[-1], self.decoder[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.encoder_path.weight[:used] = components[:used] / unit
        self.encoder_path.bias[:used] = -components[:used] @ mean / unit
        self.decoder_path.weight[:, :used] = components[:used].T * unit
        self.decoder_path.bias.copy_(mean)


def _stack(sizes: list[int], options: Options) -> Sequence:
    layers = {f"linear{number}": Linear(*size) for number, size in enumerate(pairwise(sizes))}
    return stack(layers, options.hidden_norm, options.activation, dropout=options.dropout)


MODEL = DenseAutoencoder
