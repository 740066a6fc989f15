"""A trained float network in integers (integer.py), while it is trained on: everything is rounded (tuning.py).

Weights, activations, latents and logits are rounded on grids whose steps are powers of two, and gradients pass as if
they were not (straight-through; Jacob and others, arXiv:1712.05877). For the rate, latents are noisy as in rate.py;
the decoder gets them rounded (Minnen and Singh, "Channel-wise autoregressive entropy models", ICIP 2020).
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ae_pipeline.codec.integer import (
    EXACT,
    LARGEST_INPUT,
    LOGIT_BITS,
    LOGIT_ZERO,
    WEIGHT_LIMIT,
    product_of,
    sigmoid_table,
    swap_layers,
    weighted,
)
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.models.base import Autoencoder, Weighted, output_axis
from ae_pipeline.models.neighbours import neighbour_loss
from ae_pipeline.params import TrainParams
from ae_pipeline.training.batches import Rows
from ae_pipeline.training.rate import RateModel

# A pixel p is seen as p / 2 ** 8, for bfloat16's and the integers' sake, not as p / 255.
_PIXEL_BITS, _PIXEL_SCALE = 8, 256 / 255
_CALIBRATION_ROWS, BATCH_ROWS = 8192, 2048


class RoundedLayer(nn.Module):
    """A float layer that computes as its `IntegerLayer` will, in real units.

    An integer a stands for a / 2 ** bits_in on the way in and a / 2 ** bits_out on the way out. Outputs are rounded if
    it `rounds`, and left to the network otherwise.
    """

    def __init__(self, layer: Weighted, *, rounds: bool):
        super().__init__()
        self._rounds = rounds
        assert isinstance(layer.bias, nn.Parameter)
        self.weight, self.bias = layer.weight, layer.bias
        self.axis = output_axis(layer)
        self.bits_in, self.bits_out = _PIXEL_BITS, 0
        self.weight_bits: Tensor | None = None
        self.largest = 0.0
        self._product = product_of(layer)

    def forward(self, a: Tensor) -> Tensor:
        """(N, in...) to (N, out...); what comes before grids are fitted is float, and watched."""
        if self.weight_bits is None:
            out = self._product(a, self.weight, self.bias)
            self.largest = max(self.largest, float(out.max()))
            return out
        zeros = torch.zeros_like(self.weight_bits)
        steps = torch.exp2(-self.weight_bits.float())
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, steps, zeros, self.axis, -WEIGHT_LIMIT, WEIGHT_LIMIT
        )
        out = self._product(a, weight, self.bias)
        return _round(out, self.bits_out, 0, 255) if self._rounds else out

    @torch.no_grad()
    def fit_weights(self) -> None:
        """Choose the grid of each output's weights: as fine as int8 and exact sums allow."""
        largest = self.weight.transpose(0, self.axis).flatten(1).abs().amax(1).clamp_min(2.0**-20)
        self.weight_bits = torch.floor(torch.log2((WEIGHT_LIMIT + 0.49) / largest)).to(torch.int32)
        # A little more room than needed: weights may grow while they are trained on.
        while (beyond := self._largest_sums() >= 0.8 * EXACT).any():
            self.weight_bits[beyond] -= 1

    @torch.no_grad()
    def integers(self) -> dict[str, Tensor]:
        """The `weight`, `bias` and `shift` of the IntegerLayer."""
        assert self.weight_bits is not None
        while (beyond := self._largest_sums() >= EXACT).any():
            self.weight_bits[beyond] -= 1
        weight, bias = self._rounded()
        return {
            "weight": weight.to(torch.int8).cpu(),
            "bias": bias.to(torch.int32).cpu(),
            "shift": (self.weight_bits + self.bits_in - self.bits_out).to(torch.int8).cpu(),
        }

    def _rounded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias in integers, as float64."""
        assert self.weight_bits is not None
        bits = self.weight_bits.double()
        shape = [-1 if axis == self.axis else 1 for axis in range(self.weight.dim())]
        weight = torch.round(self.weight.double() * torch.exp2(bits).reshape(shape))
        return weight.clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT), torch.round(
            self.bias.double() * torch.exp2(bits + self.bits_in)
        )

    def _largest_sums(self) -> Tensor:
        """What the sum of each output can reach."""
        weight, bias = self._rounded()
        return weight.transpose(0, self.axis).flatten(1).abs().sum(1) * LARGEST_INPUT + bias.abs()


class RoundedNetwork(nn.Module):
    """A frozen autoencoder of uint8 samples and its quantiser, rounded; latents are in steps of the quantiser."""

    def __init__(self, model: Autoencoder, quantiser: Quantiser):
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(True)
        self.lowest, self.highest = quantiser.lowest, quantiser.highest
        self._sigmoid = isinstance(model.output, nn.Sigmoid)
        self._output_bits = LOGIT_BITS if self._sigmoid else _PIXEL_BITS
        self._names = [*model.encoder_layers(), *model.decoder_layers()]
        self._latent = len(model.encoder_layers()) - 1
        self._fold(quantiser.to(next(model.parameters()).device))
        self.layers: list[RoundedLayer] = []
        swap_layers(self.model, self._swapped)

    @torch.no_grad()
    def _fold(self, quantiser: Quantiser) -> None:
        """Move the scales of pixels, latents and logits into weights."""
        places = (0, self._latent, self._latent + 1, -1)
        first, latent, from_latent, last = (weighted(self.model, self._names[place]) for place in places)
        assert latent.bias is not None
        assert from_latent.bias is not None
        assert last.bias is not None
        first.weight *= _PIXEL_SCALE
        latent.weight /= quantiser.scale[:, None]
        latent.bias.sub_(quantiser.zero_point).div_(quantiser.scale)
        from_latent.bias += from_latent.weight @ quantiser.zero_point
        from_latent.weight *= quantiser.scale
        if self._sigmoid:
            last.bias += LOGIT_ZERO / 2**LOGIT_BITS
        else:
            last.weight /= _PIXEL_SCALE
            last.bias /= _PIXEL_SCALE

    def _swapped(self, name: str, layer: Weighted) -> RoundedLayer:
        hidden = name not in (self._names[self._latent], self._names[-1])
        self.layers.append(RoundedLayer(layer, rounds=hidden))
        return self.layers[-1]

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 (N, *shape) to latents (N, L) in steps, not rounded."""
        return self.model.encode(pixels.float() * 2.0**-_PIXEL_BITS)

    def decode(self, z: Tensor) -> Tensor:
        """Latents in steps (N, L), rounded here, to what `values` takes."""
        return _round(self.model.decode_raw(_round(z, 0, self.lowest, self.highest)), self._output_bits, 0, 255)

    def values(self, raw: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        return torch.sigmoid(self._logits(raw)) if self._sigmoid else raw * _PIXEL_SCALE

    def _logits(self, raw: Tensor) -> Tensor:
        return raw - LOGIT_ZERO / 2**LOGIT_BITS

    def loss(self, pixels: Tensor, params: TrainParams, rate: RateModel | None) -> Tensor:
        """`Autoencoder.loss` of the rounded network."""
        z = self.encode(pixels)
        raw, target = self.decode(z), pixels.float() / 255
        if params.loss == "bce" and self._sigmoid:
            loss = functional.binary_cross_entropy_with_logits(self._logits(raw), target)
        else:
            loss = functional.mse_loss(self.values(raw), target)
        if params.neighbour_weight:
            loss = loss + params.neighbour_weight * neighbour_loss(target, self.values(raw), 0.0)
        if rate is None:
            return loss
        y = z + torch.rand_like(z) - 0.5 if self.training else torch.round(z)
        return loss + params.rate_weight * rate.bits(y).mean()

    @torch.no_grad()
    def calibrate(self, rows: Rows) -> None:
        """Fit all grids: those of activations to the largest that some rows have."""
        seen = 0
        for pixels in rows.in_order(BATCH_ROWS):
            self.decode(self.encode(pixels))
            seen += len(pixels)
            if seen >= _CALIBRATION_ROWS:
                break
        bits_in = _PIXEL_BITS
        for number, layer in enumerate(self.layers):
            layer.bits_in = bits_in
            if number == self._latent:
                layer.bits_out = 0
            elif number == len(self.layers) - 1:
                layer.bits_out = self._output_bits
            else:
                layer.bits_out = min(24, math.floor(math.log2(255.49 / max(layer.largest, 2.0**-20))))
            bits_in = layer.bits_out
            layer.fit_weights()

    def integers(self) -> dict[str, Tensor]:
        """The state of the model after `integer.integerise`."""
        layers = zip(self._names, self.layers, strict=True)
        state = {f"{name}.{key}": value for name, layer in layers for key, value in layer.integers().items()}
        return state | ({"output.table": sigmoid_table()} if self._sigmoid else {})


def _round(x: Tensor, bits: int, low: int, high: int) -> Tensor:
    """Values on the grid of steps 2 ** -bits, between low and high steps."""
    return torch.fake_quantize_per_tensor_affine(x, 2.0**-bits, 0, low, high)
