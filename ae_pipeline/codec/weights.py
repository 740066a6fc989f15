"""Weights as the file of a codec in floats has them: float16, or a byte each, which is half of that.

Of bytes, a tensor of two axes or more is int8 with a scale for each slice along its first axis, weight = scale * q, as
in Jacob and others, arXiv:1712.05877, section 2.1, without a zero point; scales and all other tensors are float16. What
training ends with is rounded so, and what the codec then computes with is what its file says.
"""

import torch
from torch import Tensor

from ae_pipeline.params import WeightBits

SCALE = ".scale"
"""What the name of a tensor's scales ends in."""
_LIMIT = 127


def stored_weights(state: dict[str, Tensor], bits: WeightBits) -> dict[str, Tensor]:
    """The tensors of a file, from float32 weights. What `loaded_weights` gives comes back without any change."""
    if bits == 16:
        return {name: weight.half() for name, weight in state.items()}
    stored: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.dim() < 2:
            stored[name] = weight.half()
            continue
        axes = tuple(range(1, weight.dim()))
        scale = (weight.abs().amax(axes) / _LIMIT).half()
        shaped = _shaped(scale, weight)
        q = weight / torch.where(shaped > 0, shaped, torch.inf)
        stored[name], stored[name + SCALE] = q.round().clamp(-_LIMIT, _LIMIT).to(torch.int8), scale
    return stored


def loaded_weights(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """float32 weights of a file's tensors."""
    return {
        name: _shaped(stored[name + SCALE], tensor) * tensor if name + SCALE in stored else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(SCALE)
    }


def _shaped(scale: Tensor, weight: Tensor) -> Tensor:
    """(outputs,) to float32 that multiplies slices along the first axis."""
    return scale.float().reshape(-1, *[1] * (weight.dim() - 1))
