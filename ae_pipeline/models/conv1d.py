"""Convolutions along a row, for sound and other values in order, with a straight way beside them.

A row is cut into places of `step` values, and a convolution sees a place and its neighbours (`encoder_channels`). The
layer that gives the latents takes what the convolutions made and the row itself; the layer that takes latents gives
what the convolutions go on with and, added at the end, a first answer. Without the convolutions this is a linear
transform, and at the start its rows are cosines (of a row that kind `audio` makes, the MDCT's): what is hard to beat at
many bits is where training begins.

It computes in floats: sound has more than the 256 values that codec/integer.py computes with. So another kind of
machine may decode a value differently in its last bits, which mostly are gone when samples are rounded to 16 bits;
`verify` says if one does.
"""

import math
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ae_pipeline.models.base import ACTIVATIONS, Autoencoder, stack
from ae_pipeline.models.conv1d_options import Options
from ae_pipeline.models.layers.fused import Sequence
from ae_pipeline.models.layers.linear import Linear

_KERNEL = 3
# Most sound in [0, 1] is within this much of its mean: the network sees and gives values that are shifted by the mean
# and stretched by this, so that weights and steps of training are of the usual size.
_LOUDNESS = 1 / 16
_LITTLE = 0.1


class Conv1dAutoencoder(Autoencoder):
    """Samples are (values,) or (values, channels), in order along the first axis; see `Options`."""

    begins_as_cosines = True
    centre: Tensor
    """The mean of all values that it was trained on."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        super().__init__(sample_shape, latent_size, options, options.output_activation)
        self._values, channels = sample_shape[0], prod(sample_shape[1:])
        self._step = min(options.step, self._values)
        self._places = -(-self._values // self._step)
        inside = self._step * channels
        down, up = [inside, *options.encoder_channels], [*options.decoder_channels, inside]
        size = prod(sample_shape)
        self.encoder_depth = len(down)
        self.widest = max(self._places * max(*down, *up) + size, latent_size)
        self.encoder = _convolutions(down, options, all_hidden=True)
        self.dropout = nn.Dropout(options.dropout)
        self.to_latent = Linear(self._places * down[-1] + size, latent_size)
        # Its own scale and shift would be undone by the quantiser's: none are learned.
        self.norm = nn.BatchNorm1d(latent_size, affine=False) if options.latent_norm == "batch" else nn.Identity()
        self.from_latent = Linear(latent_size, self._places * up[0] + size)
        self.from_latent_activation = ACTIVATIONS[options.activation]()
        self.decoder = _convolutions(up, options)
        self._hidden = up[0]
        self.register_buffer("centre", torch.tensor([0.5]))
        self._start_linear()

    def encode(self, x: Tensor) -> Tensor:
        if self.training:
            self._watch(x)
        x = (x - self.centre).div_(_LOUDNESS)
        hidden = self.dropout(self.encoder(self._to_places(x)))
        return self.norm(self.to_latent(_side_by_side(hidden, x)).float())

    def decode_raw(self, z: Tensor) -> Tensor:
        hidden, straight = self.from_latent(z).split([self._places * self._hidden, prod(self.sample_shape)], 1)
        hidden = self.dropout(self.from_latent_activation(hidden)).unflatten(1, (self._hidden, 1, self._places))
        x = self._from_places(self.decoder(hidden), straight).mul_(_LOUDNESS)
        return x + self.centre if torch.is_grad_enabled() or x.dtype != self.centre.dtype else x.add_(self.centre)

    @torch.no_grad()
    def _watch(self, x: Tensor) -> None:
        """Take a batch into the mean of all values. Silence is a latent of zero then, which costs next to nothing."""
        self.batches_watched += 1
        self.centre += (x.mean() - self.centre) / self.batches_watched

    def _to_places(self, x: Tensor) -> Tensor:
        """(N, values[, channels]) to (N, values of a place, 1, places)."""
        x = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        if beyond := self._places * self._step - self._values:
            x = functional.pad(x, (0, 0, 0, beyond))
        return x.reshape(len(x), self._places, -1).transpose(1, 2).unsqueeze(2)

    def _from_places(self, places: Tensor, straight: Tensor) -> Tensor:
        """The way back, without what fills the last place, and `straight` (N, values) added."""
        x = places.squeeze(2).transpose(1, 2)
        if self._places * self._step == self._values:
            return (straight.unflatten(1, x.shape[1:]) + x).reshape(len(x), *self.sample_shape)
        x = x.reshape(len(places), self._places * self._step, -1)[:, : self._values]
        return x.reshape(len(x), *self.sample_shape) + straight.unflatten(1, self.sample_shape)

    @torch.no_grad()
    def _start_linear(self) -> None:
        """Cosines of rising frequency for the straight ways, and little of what comes of the convolutions."""
        if self.to_latent.weight.is_meta:
            return  # weights of a file follow; computing without memory imports sympy, which takes a second
        latents, size = self.latent_size, prod(self.sample_shape)
        channels = size // self._values
        self.to_latent.weight[:, :-size] *= _LITTLE
        self.to_latent.weight[:, -size:] = 0
        self.from_latent.weight[-size:] = 0
        self.from_latent.bias[-size:] = 0
        at = torch.arange(self._values, dtype=torch.float64) + 0.5
        for number in range(min(latents, size)):
            wave = torch.cos(math.pi / self._values * (number // channels + 0.5) * at)
            wave = (wave * math.sqrt(2 / self._values)).float()
            place = slice(number % channels, None, channels)
            self.to_latent.weight[number, -size:][place] = wave
            self.from_latent.weight[-size:, number][place] = wave
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        last.weight *= _LITTLE
        last.bias.zero_()


def _convolutions(channels: list[int], options: Options, *, all_hidden: bool = False) -> Sequence:
    layers = {
        f"conv{number}": nn.Conv2d(*pair, (1, _KERNEL), padding=(0, _KERNEL // 2))
        for number, pair in enumerate(pairwise(channels))
    }
    return stack(layers, options.hidden_norm, options.activation, all_hidden=all_hidden)


def _side_by_side(hidden: Tensor, x: Tensor) -> Tensor:
    """All values of both, (N, values), in one pass where no gradient is wanted."""
    if torch.is_grad_enabled():
        return torch.cat([hidden.flatten(1), x.flatten(1)], 1)
    first = hidden.shape[1:].numel()
    found = x.new_empty(len(x), first + x.shape[1:].numel())
    found[:, :first].unflatten(1, hidden.shape[1:]).copy_(hidden)
    found[:, first:].copy_(x.flatten(1))
    return found


MODEL = Conv1dAutoencoder
