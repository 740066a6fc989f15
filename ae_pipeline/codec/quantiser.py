"""Uniform scalar quantiser with its own scale and zero point for every latent dimension."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

# Shares of the train latents that may fall outside the range, below and above.
_CLIPPED = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 6e-3, 1e-2, 2e-2, 4e-2)


@dataclass(frozen=True)
class Quantiser:
    """latent = zero_point + scale * q, with q an integer of `levels` values around zero.

    q runs from -(levels // 2) to levels - 1 - levels // 2, so that every supported `levels` (2 to 256) fits int8.
    """

    levels: int
    scale: Tensor
    """(L,) float32, positive."""
    zero_point: Tensor
    """(L,) float32: the latent that q = 0 stands for."""

    @property
    def lowest(self) -> int:
        """Smallest q."""
        return -(self.levels // 2)

    @property
    def highest(self) -> int:
        """Largest q."""
        return self.lowest + self.levels - 1

    def quantise(self, z: Tensor) -> Tensor:
        """(N, L) float32 to int8; rounds half to even, clips to the range."""
        steps = (z - self.zero_point).div_(self.scale).round_()
        return steps.clamp_(self.lowest, self.highest).to(torch.int8)

    def dequantise(self, q: Tensor) -> Tensor:
        """(N, L) int8 to float32."""
        steps = q.to(torch.float32)
        return torch.addcmul(self.zero_point, steps, self.scale, out=steps)

    def to(self, device: torch.device) -> "Quantiser":
        """The quantiser with its tensors on `device`."""
        return Quantiser(self.levels, self.scale.to(device), self.zero_point.to(device))

    def of_channels(self, channels: int) -> "Quantiser":
        """That of the first `channels` latents if it comes again in all others; else itself."""
        steps = torch.stack([self.scale, self.zero_point]).reshape(2, -1, channels or len(self.scale))
        return Quantiser(self.levels, *steps[:, 0]) if bool((steps == steps[:, :1]).all()) else self

    @classmethod
    def fit(cls, z: Tensor, levels: int) -> "Quantiser":
        """Choose each dimension's range by the least mean squared quantisation error on train latents (N, L)."""
        order = torch.sort(z, dim=0).values
        last = len(z) - 1
        best_error = torch.full((z.shape[1],), torch.inf)
        best_low, best_high = order[0].clone(), order[-1].clone()
        for below, above in product(_CLIPPED, _CLIPPED):
            low, high = order[round(below * last)], order[round((1 - above) * last)]
            candidate = cls._of_range(low, high, levels)
            error = (candidate.dequantise(candidate.quantise(z)) - z).square_().mean(dim=0)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_low, best_high = torch.where(better, low, best_low), torch.where(better, high, best_high)
        return cls._of_range(best_low, best_high, levels)

    @classmethod
    def _of_range(cls, low: Tensor, high: Tensor, levels: int) -> "Quantiser":
        scale = (high - low) / (levels - 1)
        # A dimension that never changes needs no range; any positive scale gives its value back at q = 0.
        constant = scale <= torch.finfo(torch.float32).tiny
        scale = torch.where(constant, 1.0, scale)
        zero_point = torch.where(constant, low, low + scale * (levels // 2))
        return cls(levels, scale, zero_point)
