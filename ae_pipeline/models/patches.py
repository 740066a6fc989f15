"""Convolutions over a grid of patches: for images, with few weights and few operations.

An image is cut into patches of `patch_size` pixels a side, and each becomes one place of a smaller grid with all its
pixels as channels, so that a 3x3 convolution sees nine patches (space to depth; the way back is the sub-pixel
convolution of Shi and others, arXiv:1609.05158). The encoder goes through `encoder_channels` and one linear layer to
L; the decoder from L through a linear layer and `decoder_channels` back to pixels. Everything lies channels last.
"""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ae_pipeline.data.pixels import image_shape
from ae_pipeline.models.base import ACTIVATIONS, Autoencoder, stack
from ae_pipeline.models.layers.fused import Sequence
from ae_pipeline.models.layers.linear import Linear
from ae_pipeline.models.patches_options import Options


class PatchAutoencoder(Autoencoder):
    """Samples are (height, width) or (height, width, channels); see `Options`."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        super().__init__(sample_shape, latent_size, options, options.output_activation)
        is_normed, patch_size = options.hidden_norm == "batch", options.patch_size
        self._image = image_shape(sample_shape, "patches")
        self._patch_size = patch_size
        self._grid = (-(-self._image[0] // patch_size), -(-self._image[1] // patch_size))
        places = prod(self._grid)
        down = [patch_size**2 * self._image[2], *options.encoder_channels]
        up = [*options.decoder_channels, down[0]]
        self.encoder_depth = len(down)
        self._decoder_channels = up[0]
        self.widest = max(places * max(*down, *up), latent_size)
        self.encoder = _convolutions(down, options, all_hidden=True)
        self.dropout = nn.Dropout(options.dropout)
        self.to_latent = Linear(places * down[-1], latent_size)
        # Its own scale and shift would be undone by the quantiser's: none are learned.
        self.norm = nn.BatchNorm1d(latent_size, affine=False) if options.latent_norm == "batch" else nn.Identity()
        self.from_latent = Linear(latent_size, places * up[0])
        self.from_latent_norm = nn.BatchNorm1d(places * up[0]) if is_normed else nn.Identity()
        self.from_latent_activation = ACTIVATIONS[options.activation]()
        self.decoder = _convolutions(up, options)

    def encode(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self._to_grid(x)).permute(0, 2, 3, 1).flatten(1)
        return self.norm(self.to_latent(self.dropout(hidden)).float())

    def decode_raw(self, z: Tensor) -> Tensor:
        hidden = self.dropout(self.from_latent_activation(self.from_latent_norm(self.from_latent(z))))
        grid = hidden.unflatten(1, (*self._grid, self._decoder_channels)).permute(0, 3, 1, 2)
        return self._from_grid(self.decoder(grid))

    def _to_grid(self, x: Tensor) -> Tensor:
        """(N, height, width[, channels]) to (N, patch pixels, rows, columns), channels last; zeros beyond the edges."""
        size, (rows, columns), (height, width, channels) = self._patch_size, self._grid, self._image
        x = x.reshape(len(x), height, width * channels)
        if (rows * size, columns * size) != (height, width):
            x = functional.pad(x, (0, (columns * size - width) * channels, 0, rows * size - height))
        patches = _swapped(x.reshape(len(x), rows, size, columns, size * channels))
        return patches.reshape(len(x), rows, columns, size * size * channels).permute(0, 3, 1, 2)

    def _from_grid(self, grid: Tensor) -> Tensor:
        """The way back, without what is beyond the edges."""
        size, (rows, columns), (height, width, channels) = self._patch_size, self._grid, self._image
        patches = grid.permute(0, 2, 3, 1).reshape(len(grid), rows, columns, size, size * channels)
        x = _swapped(patches).reshape(len(grid), rows * size, columns * size * channels)
        return x[:, :height, : width * channels].reshape(len(grid), *self.sample_shape)


def _swapped(values: Tensor) -> Tensor:
    """(N, a, b, c, d) to (N, a, c, b, d)."""
    if values.dtype == torch.uint8 and values.shape[4] == 4 and values.is_contiguous():
        # Four bytes at a time: a sixth of the time.
        return values.view(torch.int32).transpose(2, 3).contiguous().view(torch.uint8)
    return values.transpose(2, 3)


def _convolutions(channels: list[int], options: Options, *, all_hidden: bool = False) -> Sequence:
    layers = {f"conv{number}": nn.Conv2d(*pair, 3, padding=1) for number, pair in enumerate(pairwise(channels))}
    return stack(layers, options.hidden_norm, options.activation, all_hidden=all_hidden)


MODEL = PatchAutoencoder
