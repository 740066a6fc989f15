"""Layers whose floats become the integers of `codec/context/networks.py`: trained as floats, then as they round.

A hidden value is 1/64 of its byte, a logit 1/16 of it, less 128; a weight w of an output with exponent e is the
integer round(w * 2 ** e) of at most 127. Rounding passes gradients through (Bengio, Léonard and Courville,
arXiv:1308.3432).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ae_pipeline.codec.context.chances import LOGIT_UNIT
from ae_pipeline.codec.integer import WEIGHT_LIMIT
from ae_pipeline.models.layers.linear import linear

UNIT = 64.0
"""Bytes of a hidden value of 1."""
_LARGEST_BYTE = 255
_LOGIT_ZERO = 128
_MOST_EXPONENT = 14
_SMALLEST = 2.0**-8  # of an output's largest weight


class Rounding(nn.Module):
    """A part of a network that begins to compute in what will be integers when it is told to."""

    rounds = False

    def begin_rounding(self) -> None:
        """From now on, results are those of the integers."""
        for module in self.modules():
            if isinstance(module, Rounding):
                module.rounds = True
                module._fix()

    def _fix(self) -> None:
        """What is decided when rounding begins."""


class RoundedLinear(Rounding):
    """(n, inputs) to (n, outputs): hidden values from 0 to 255 / 64, or logits in octaves."""

    exponent: Tensor

    def __init__(self, inputs: int, outputs: int, *, gives_logits: bool = False):
        super().__init__()
        spread = (0.3 if gives_logits else 1.4) / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * spread)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("exponent", torch.zeros(outputs))
        self._gives_logits = gives_logits

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        if not self.rounds:
            found = linear(values, self.weight, self.bias)
            return found if self._gives_logits else found.clamp(0, _LARGEST_BYTE / UNIT)
        scale = torch.exp2(self.exponent)
        weight = rounded(self.weight * scale[:, None]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) / scale[:, None]
        found = linear(values, weight, rounded(self.bias * scale * UNIT) / (scale * UNIT))
        if self._gives_logits:
            return rounded(found * LOGIT_UNIT).clamp(-_LOGIT_ZERO, _LOGIT_ZERO - 1) / LOGIT_UNIT
        return rounded(found * UNIT).clamp(0, _LARGEST_BYTE) / UNIT

    @torch.no_grad()
    def _fix(self) -> None:
        largest = self.weight.abs().amax(1).clamp_min(_SMALLEST)
        self.exponent.copy_(torch.floor(torch.log2(WEIGHT_LIMIT / largest)).clamp(0, _MOST_EXPONENT))

    @torch.no_grad()
    def integers(self) -> dict[str, Tensor]:
        """What an `IntegerLayer` has: weight int8, bias int32 and shift int8."""
        scale = torch.exp2(self.exponent)
        weight = torch.round(self.weight * scale[:, None]).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        bias, shift = torch.round(self.bias * scale * UNIT), self.exponent
        if self._gives_logits:
            # In units of 1/16 instead of 1/64, and 128 more.
            bias, shift = bias + _LOGIT_ZERO * UNIT / LOGIT_UNIT * scale, self.exponent + math.log2(UNIT / LOGIT_UNIT)
        return {"weight": weight.to(torch.int8), "bias": bias.to(torch.int32), "shift": shift.to(torch.int8)}


class RoundedTable(Rounding):
    """Rows of hidden values, looked up by number."""

    def __init__(self, rows: int, size: int):
        super().__init__()
        self.values = nn.Parameter(torch.rand(rows, size) * 0.3 + 0.5)

    def forward(self, numbers: Tensor) -> Tensor:
        """int64 (n,) to (n, size)."""
        found = rounded(self.values * UNIT).clamp(0, _LARGEST_BYTE) / UNIT if self.rounds else self.values
        return functional.embedding(numbers, found.clamp(0, _LARGEST_BYTE / UNIT))

    @torch.no_grad()
    def integers(self) -> Tensor:
        """uint8 (rows, size)."""
        return torch.round(self.values * UNIT).clamp(0, _LARGEST_BYTE).to(torch.uint8)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:  # noqa: ARG004 (torch's signature)
        return torch.round(values)

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0]


def rounded(values: Tensor) -> Tensor:
    """To whole numbers, halves to even; gradients pass as if nothing was rounded."""
    return _Rounded.apply(values)


def bits_of(logits: Tensor, symbols: Tensor) -> Tensor:
    """Bits of each symbol (n,) by logits (n, 16) in octaves, with 2 ** logit piecewise linear as in `chances`."""
    whole = torch.floor(logits.detach())
    natural = whole * math.log(2) + torch.log1p(logits - whole)
    chosen = natural.gather(1, symbols[:, None])[:, 0]
    return (torch.logsumexp(natural, 1) - chosen) / math.log(2)
