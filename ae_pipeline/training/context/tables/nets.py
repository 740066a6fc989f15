"""The network of one field while it is trained: floats first, then what the codec's whole numbers will be.

See codec/tables/networks.py for what is computed in the end. Here inputs and hidden values are floats of the same size,
logits are octaves, and predictions standard deviations from the mean.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ae_pipeline.codec.tables.networks import BIAS_BITS, MOST_SCALE, MOST_WEIGHT, UNIT, Layer
from ae_pipeline.codec.tables.options import ColumnOptions


class RoundedLinear(nn.Module):
    """A linear layer whose weights are few whole numbers times a scale for each output, once `rounds` is set."""

    def __init__(self, inputs: int, outputs: int, gain: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / math.sqrt(max(1, inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.rounds = False

    def forward(self, x: Tensor) -> Tensor:
        """Values (n, inputs) to (n, outputs)."""
        if not self.rounds:
            return nn.functional.linear(x, self.weight, self.bias)
        with torch.no_grad():
            weights, scale, bias = self._rounded()
            apart = weights * scale[:, None] - self.weight, bias - self.bias
        return nn.functional.linear(x, self.weight + apart[0], self.bias + apart[1])

    def _rounded(self) -> tuple[Tensor, Tensor, Tensor]:
        largest = self.weight.abs().amax(1) if self.weight.shape[1] else torch.zeros(len(self.weight))
        scale = (torch.ceil(largest / MOST_WEIGHT * UNIT).clamp(1, MOST_SCALE)) / UNIT
        weights = torch.round(self.weight / scale[:, None]).clamp(-MOST_WEIGHT, MOST_WEIGHT)
        most = (1 << 15) - 1
        bias = torch.round(self.bias * (1 << BIAS_BITS)).clamp(-most, most) / (1 << BIAS_BITS)
        return weights, scale, bias

    @torch.no_grad()
    def integers(self) -> Layer:
        """The layer that it has become."""
        weights, scale, bias = self._rounded()
        return Layer(
            weights.numpy().astype(np.int8),
            (scale * UNIT).numpy().astype(np.uint16),
            (bias * (1 << BIAS_BITS)).numpy().astype(np.int16),
        )


class ColumnNet(nn.Module):
    """What a field's network becomes of; `spread_in_cells` is its standard deviation."""

    def __init__(self, sizes: dict[str, tuple[int, int]], column: ColumnOptions, spread_in_cells: float = 1.0):
        super().__init__()
        gains = {"first": 1.4, "second": 1.4, "out": 0.3, "linear": 0.01}
        self.layers = nn.ModuleDict({name: RoundedLinear(*size, gains[name]) for name, size in sizes.items()})
        self.predicts = column.span is not None
        self.symbols = sizes["out"][1] - int(self.predicts)
        # Width of the distribution that teaches the prediction, in coarse cells.
        self.log_width = nn.Parameter(torch.tensor(math.log(max(0.3, spread_in_cells / 2))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs (n, inputs) to logits (n, symbols) and the prediction (n,)."""
        hidden = x if "first" in self.layers else x[:, :0]
        for name in ("first", "second"):
            if name in self.layers:
                hidden = nn.functional.relu(self.layers[name](hidden))
        found = self.layers["out"](hidden)
        if not self.predicts:
            return found, None
        prediction = found[:, 0]
        if "linear" in self.layers:
            prediction = prediction + self.layers["linear"](x)[:, 0]
        return found[:, 1:], prediction

    @torch.no_grad()
    def begin_with(self, counts: Tensor) -> None:
        """Begin with chances as these counts (symbols,) of the training rows have them."""
        out = self.layers["out"]
        assert isinstance(out, RoundedLinear)
        out.bias[-self.symbols :] = torch.log2((counts + 0.5) / counts.sum())

    @torch.no_grad()
    def begin_with_line(self, weights: Tensor, bias: float) -> None:
        """Begin with a linear prediction: weights (inputs,)."""
        line = self.layers["linear"]
        assert isinstance(line, RoundedLinear)
        line.weight[0], line.bias[0] = weights, bias

    def begin_rounding(self) -> None:
        """From now on, compute with what the weights will be."""
        for layer in self.layers.values():
            assert isinstance(layer, RoundedLinear)
            layer.rounds = True

    def integers(self) -> dict[str, Layer]:
        """The layers of the codec's network."""
        return {name: layer.integers() for name, layer in self.layers.items() if isinstance(layer, RoundedLinear)}
