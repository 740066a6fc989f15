"""Layers, and the activations and sums that come after them, in fewer passes over memory: the same bits, sooner.

    y = in_turn(x, convolution, activation, convolution)    # as convolution(activation(convolution(x)))

oneDNN takes an activation along with a product or a convolution, and one convolution hands its values to the next one
in oneDNN's own order of them. The operators are those that torch's own compiler calls. So it computes what torch would
compute, by the same kernels; tests/models/test_fused.py compares every bit. Where torch goes another way than oneDNN,
and where gradients are wanted, the modules are simply called.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ae_pipeline.models.layers import linear
from ae_pipeline.models.layers.linear import Linear

# Others are computed otherwise by oneDNN, in the last bit.
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu"}
# Convolutions of fewer rows may go another way than oneDNN.
_MANY_ROWS = 16


class Sequence(nn.Sequential):
    """nn.Sequential whose modules are computed by `in_turn`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """What the modules make of it, one after the other."""
        return in_turn(input, *self)


def in_turn(x: Tensor, *modules: nn.Module) -> Tensor:
    """What modules make of `x`, one after the other."""
    if not _is_fused(x):
        for each in modules:
            x = each(x)
        return x
    steps = _steps([module for module in modules if not _does_nothing(module)])
    for (module, activation), (following, _) in pairwise([*steps, (None, None)]):
        if type(module) is Linear:
            x = torch.ops.mkldnn._linear_pointwise(x, module.weight, module.bias, *_as_attribute(activation))
        elif isinstance(module, nn.Conv2d):
            x = _convolved(x, module, activation, goes_on=_is_convolution(following))
        else:
            assert module is not None
            x = module(x)
            if activation is not None:
                x = activation(x)
    return x


def added(x: Tensor, layer: Linear, other: Tensor) -> Tensor:
    """(N, in_features) and (N, out_features) to `other + layer(x)`."""
    if not _is_fused(x):
        return other + layer(x)
    summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, layer.weight, layer.bias, "add")
    return summed


def _is_fused(x: Tensor) -> bool:
    """Whether what is made of `x` can be: float32 on an x86-64 CPU, by oneDNN, without gradients."""
    return (
        linear.HAS_ONEDNN
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )


def _does_nothing(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and not module.training)


def _steps(modules: list[nn.Module]) -> list[tuple[nn.Module | None, nn.Module | None]]:
    """Modules, each with the activation that is taken along, if one is."""
    steps: list[tuple[nn.Module | None, nn.Module | None]] = []
    for module in modules:
        if steps and steps[-1][1] is None and type(module) in _ACTIVATIONS and _takes_along(steps[-1][0]):
            steps[-1] = (steps[-1][0], module)
        else:
            steps.append((module, None))
    return steps


def _takes_along(module: nn.Module | None) -> bool:
    return type(module) is Linear or _is_convolution(module)


def _is_convolution(module: nn.Module | None) -> bool:
    return type(module) is nn.Conv2d


def _convolved(x: Tensor, module: nn.Conv2d, activation: nn.Module | None, *, goes_on: bool) -> Tensor:
    """`goes_on`: another convolution comes next."""
    if len(x) < _MANY_ROWS:
        found: Tensor = module(x)
        return found if activation is None else activation(found)
    # Values that lie channels last stay so, as torch keeps them; that is another kernel, and no order of oneDNN's own.
    if goes_on and not x.is_mkldnn and x.is_contiguous() and x.stride(1) != 1:
        x = x.to_mkldnn()
    options = (module.padding, module.stride, module.dilation, module.groups)
    attribute = _as_attribute(activation)
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, module.weight, module.bias, *options, *attribute)
    if y.is_mkldnn:
        return y if goes_on else y.to_dense()
    # One place may lie channels last or not: what comes of an activation does not, and then takes other kernels.
    return y.flatten().view(y.shape) if activation is not None and y.is_contiguous() else y


def _as_attribute(activation: nn.Module | None) -> tuple[str, list[Any], str]:
    """Name, numbers and algorithm of an activation, or of none, in the form that oneDNN's operators take."""
    if activation is None:
        return "none", [], ""
    slope = [activation.negative_slope] if isinstance(activation, nn.LeakyReLU) else []
    return _ACTIVATIONS[type(activation)], slope, ""
