"""A linear layer that uses the faster matrix product on x86-64 CPUs.

torch sends float32 products to MKL, which leaves half of the speed of an AMD CPU unused; oneDNN, which torch also
contains, does not (bench/throughput.py measures both). The operator is the one that torch's own compiler calls.
MKL moreover sums a row in another order at another place in its block, in layers of fewer than nine outputs; oneDNN
does not (tests/promises/test_determinism.py).
"""

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def has_onednn(operator: str) -> bool:
    """Whether torch contains oneDNN, with this operator of torch.ops.mkldnn, on an x86-64 CPU."""
    x86_64 = platform.machine() in ("x86_64", "AMD64")
    return x86_64 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, operator)


HAS_ONEDNN = has_onednn("_linear_pointwise")


class Linear(nn.Linear):
    """nn.Linear; float32 on an x86-64 CPU goes to oneDNN, compiled and autocast models go where torch sends them."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(N, in_features) to (N, out_features)."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `Linear` computes: (N, in_features) to (N, out_features)."""
    own_way = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if HAS_ONEDNN and not own_way and x.device.type == "cpu" and x.dtype == torch.float32:
        return _OneDnnLinear.apply(x, weight, bias)
    return functional.linear(x, weight, bias)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (gradient,) = gradients
        x, weight = context.saved_tensors
        of_x = _product(gradient, weight.t(), None) if context.needs_input_grad[0] else None
        return of_x, _product(gradient.t(), x.t(), None), gradient.sum(0)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X @ weight.T + bias"""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
