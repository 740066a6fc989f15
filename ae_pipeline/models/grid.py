"""Latents on a grid of blocks, each made as all others are: for tiles, which are cut from anywhere in a picture.

An image is cut into patches, and 2 x 2 patches are a block, with `latent_size / blocks` latents of its own. 3 x 3
convolutions see a block and its neighbours; no layer knows where in the image a block lies, so that there are few
weights, and what was learned at one place holds at all. Beside encoder and decoder goes a linear layer, which begins
as JPEG's cosine transform (Ahmed, Natarajan and Rao, "Discrete cosine transform", IEEE Trans. Computers, 1974) of a
block's brightness and two differences of colour: training starts from there.

It computes in floats: what comes out of two ways at once is nothing that codec/integer.py computes. So another kind of
machine may decode a pixel differently by one step; `verify` says if one does.
"""

import math
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ae_pipeline.data.pixels import image_shape
from ae_pipeline.errors import ConfigError
from ae_pipeline.models.base import ACTIVATIONS, Autoencoder
from ae_pipeline.models.grid_options import Options
from ae_pipeline.models.layers.fused import in_turn
from ae_pipeline.models.layers.shuffling import image_to_patches, patches_to_image, shuffled, unshuffled

_SIDE = 2
_GREY = 0.5
# Brightness, and two differences: orthogonal, of length 1. Other numbers of channels keep their own.
_COLOURS = [[3**-0.5] * 3, [2**-0.5, 0.0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]]
# A difference of colour is mostly as small as a brightness of so many times its squared frequency.
_COLOUR_FREQUENCY = 6.0
_LITTLE = 0.1


class GridAutoencoder(Autoencoder):
    """Samples are (height, width) or (height, width, channels); see `Options`. Latents stand block by block."""

    encoder_depth = 3

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        super().__init__(sample_shape, latent_size, options, options.output_activation)
        self._image = image_shape(sample_shape, "grid")
        self._patch = options.patch_size
        side = _SIDE * self._patch
        self._grid = (-(-self._image[0] // side), -(-self._image[1] // side))
        self._channels, rest = divmod(latent_size, prod(self._grid))
        self.latent_channels = self._channels
        if rest or not self._channels:
            raise ConfigError(
                f"model.name: grid has {prod(self._grid)} blocks in samples of {list(sample_shape)}, and each gets as "
                f"many latents; make train.latent_size a multiple of {prod(self._grid)}, found {latent_size}"
            )
        inside = self._patch**2 * self._image[2]
        first, second = options.encoder_channels
        third, fourth, fifth = options.decoder_channels
        per_block = _SIDE**2
        widths = [per_block * inside, per_block * first, second, self._channels, third, per_block * fourth]
        self.widest = prod(self._grid) * max(*widths, per_block * fifth)
        self.activation = ACTIVATIONS[options.activation]()
        self.dropout = nn.Dropout(options.dropout)
        self.encoder = nn.ModuleDict(
            {
                "patches": nn.Conv2d(inside, first, 3, padding=1),
                "blocks": nn.Conv2d(per_block * first, second, 1),
                "latents": nn.Conv2d(second, self._channels, 3, padding=1),
            }
        )
        self.decoder = nn.ModuleDict(
            {
                "latents": nn.Conv2d(self._channels, third, 3, padding=1),
                "blocks": nn.Conv2d(third, per_block * fourth, 1),
                "patches": nn.Conv2d(fourth, fifth, 3, padding=1),
                "pixels": nn.Conv2d(fifth, inside, 3, padding=1),
            }
        )
        self.encoder_path = nn.Conv2d(per_block * inside, self._channels, 1)
        self.decoder_path = nn.Conv2d(self._channels, per_block * inside, 1)
        self._start_as_cosines()

    def encode(self, x: Tensor) -> Tensor:
        patches = self._to_patches(x)
        hidden = unshuffled(in_turn(patches, self.encoder["patches"], self.activation), _SIDE)
        hidden = in_turn(hidden, self.encoder["blocks"], self.activation, self.dropout, self.encoder["latents"])
        z = hidden.float() + in_turn(unshuffled(patches, _SIDE), self.encoder_path).float()
        return z.permute(0, 2, 3, 1).flatten(1)

    def decode_raw(self, z: Tensor) -> Tensor:
        grid = z.unflatten(1, (*self._grid, self._channels)).permute(0, 3, 1, 2)
        straight = shuffled(self.decoder_path(grid), _SIDE)
        latents, blocks, patches, pixels = (self.decoder[name] for name in ("latents", "blocks", "patches", "pixels"))
        hidden = shuffled(in_turn(grid, latents, self.activation, self.dropout, blocks), _SIDE)
        found = in_turn(self.activation(hidden), patches, self.activation, pixels)
        return self._from_patches(found.add_(straight).add_(_GREY))

    def gives_latents(self) -> list[str]:
        return [*super().gives_latents(), "encoder_path"]

    def takes_latents(self) -> list[str]:
        return [*super().takes_latents(), "decoder_path"]

    def kept_together(self, dimensions: Tensor) -> Tensor:
        """A channel of latents is kept in all blocks, or in none."""
        channels = torch.unique(dimensions % self._channels)
        blocks = torch.arange(prod(self._grid), device=dimensions.device)
        return (blocks[:, None] * self._channels + channels).flatten()

    def units_of(self, dimensions: Tensor) -> Tensor:
        return dimensions[: len(dimensions) // prod(self._grid)] % self._channels

    def _layers(self) -> list[str]:
        return [name for name in super()._layers() if not name.endswith("_path")]

    def _to_patches(self, x: Tensor) -> Tensor:
        """(N, height, width[, channels]) to (N, pixels of a patch, rows, columns); grey, which is 0, beyond edges."""
        height, width, channels = self._image
        x = x.reshape(len(x), height, width, channels) - _GREY
        down, across = (blocks * _SIDE * self._patch for blocks in self._grid)
        if (down, across) != (height, width):
            x = functional.pad(x, (0, 0, 0, across - width, 0, down - height))
        return image_to_patches(x, self._patch)

    def _from_patches(self, patches: Tensor) -> Tensor:
        """The way back, without what is beyond the edges."""
        height, width, _ = self._image
        x = patches_to_image(patches, self._patch)[:, :height, :width]
        return x.reshape(len(x), *self.sample_shape)

    @torch.no_grad()
    def _start_as_cosines(self) -> None:
        """Cosines of low frequency for the straight ways, and little of what comes of the convolutions."""
        if self.encoder_path.weight.is_meta:
            return  # weights of a file follow; computing without memory imports sympy, which takes a second
        waves = self._waves()[: self._channels]
        # Where pixels of a block stand among the channels of its place: as unshuffling has them.
        side, channels = _SIDE * self._patch, self._image[2]
        shaped = waves.reshape(-1, side, side, channels).permute(0, 3, 1, 2)
        flat = functional.pixel_unshuffle(functional.pixel_unshuffle(shaped, self._patch), _SIDE).flatten(1)
        for path in (self.encoder_path, self.decoder_path):
            path.weight.zero_()
            assert path.bias is not None
            path.bias.zero_()
        self.encoder_path.weight[: len(flat)] = flat[..., None, None]
        self.decoder_path.weight[:, : len(flat)] = flat.T[..., None, None]
        for last in (self.encoder["latents"], self.decoder["pixels"]):
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            last.weight *= _LITTLE
            last.bias.zero_()

    def _waves(self) -> Tensor:
        """(waves, side, side, channels) of length 1 and orthogonal, the lowest frequencies first."""
        side, channels = _SIDE * self._patch, self._image[2]
        at = (torch.arange(side, dtype=torch.float64) + 0.5) * math.pi / side
        cosines = torch.cos(torch.arange(side, dtype=torch.float64)[:, None] * at) * math.sqrt(2 / side)
        cosines[0] /= math.sqrt(2)
        colours = torch.eye(channels, dtype=torch.float64)
        if channels >= len(_COLOURS):
            colours[:3, :3] = torch.tensor(_COLOURS, dtype=torch.float64)
        order = sorted(
            (down, across, colour) for down in range(side) for across in range(side) for colour in range(channels)
        )
        order.sort(key=lambda wave: (wave[0] ** 2 + wave[1] ** 2 + 1) * (_COLOUR_FREQUENCY if wave[2] else 1))
        waves = [torch.einsum("h,w,c->hwc", cosines[down], cosines[across], colours[c]) for down, across, c in order]
        return torch.stack(waves).float()


MODEL = GridAutoencoder
