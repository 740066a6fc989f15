"""Trains the networks of a context codec on the indices of some pictures.

The loss is the bits that the entropy coder will take. The first part of the steps computes in floats, the rest in what
will be integers; the weights are averages over the last steps. Masks and values have nothing in common: their networks
are trained side by side.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.options import Options
from ae_pipeline.errors import TrainingError
from ae_pipeline.params import TrainParams
from ae_pipeline.training.context.items import EmptyBlocks, blocks_of, items_of
from ae_pipeline.training.context.layers import bits_of
from ae_pipeline.training.context.nets import MaskNet, ValueNet, integers_of
from ae_pipeline.training.loop import Epoch, seeded
from ae_pipeline.training.steps.averaging import WeightAverage

_WARM_UP_STEPS, _LAST_RATE = 50, 0.02
_BETAS, _WEIGHT_DECAY, _LARGEST_GRADIENT = (0.9, 0.99), 1e-4, 20.0
# Gradients of whole pictures, in bits, are this much larger than those that the limit above is for.
_SCALE = 20 / math.log(2)
_ROUNDED_FROM = 0.65
_AVERAGED_STEPS = 333.0
_COUNTED, _AT_ONCE = 8000, 2000


class _Pair(nn.Module):
    """Both networks."""

    def __init__(self, height: int, width: int, options: Options):
        super().__init__()
        self.grid = Grid(options.max_error)
        self.mask = MaskNet(height, width, options)
        self.value = ValueNet(height, width, options) if len(self.grid.values) > 2 else None

    def bits(self, indices: np.ndarray) -> Tensor:
        """Bits of all pictures (n, height, width) together, without those of blocks that have nothing near them."""
        blocks = blocks_of(indices)
        bits = bits_of(self.mask(blocks.context, blocks.places), blocks.symbols).sum()
        if self.value is None:
            return bits
        items = items_of(indices, self.grid)
        sixteenths = items.symbols // 16
        coarse, fine = self.value(items.context, items.places, items.ink, items.pictures, sixteenths)
        bits = bits + bits_of(fine, items.symbols % 16).sum()
        return bits if coarse is None else bits + bits_of(coarse, sixteenths).sum()

    def begin_rounding(self) -> None:
        """See `Rounding`."""
        for network in self.networks():
            network.begin_rounding()

    def networks(self) -> list[MaskNet | ValueNet]:
        """The networks that there are: a grid of two values needs only masks."""
        return [self.mask] if self.value is None else [self.mask, self.value]


def fit_context(
    train: np.ndarray,
    validation: np.ndarray,
    options: Options,
    params: TrainParams,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """The state of `Networks`, and how it went: losses are bits a picture.

    `train` and `validation` are uint8 indices (pictures, height, width) with even sides; epochs, batch_size,
    learning_rate and seed are what counts of `params`. Raises TrainingError when the loss is not finite.
    """
    height, width = train.shape[1:]
    history: list[Epoch] = []
    with seeded(params.seed, torch.device("cpu"), compiled=False):
        pair = _Pair(height, width, options)
        optimizer = torch.optim.AdamW(pair.parameters(), params.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY)
        every = math.ceil(len(train) / params.batch_size)
        steps, average = params.epochs * every, None
        generator = np.random.default_rng(params.seed)
        for epoch in range(params.epochs):
            order, total = generator.permutation(len(train)), 0.0
            for number in range(every):
                step = epoch * every + number
                if average is None and step >= _ROUNDED_FROM * steps:
                    pair.begin_rounding()
                    average = WeightAverage(pair, min(_AVERAGED_STEPS, steps / 8))
                rate = _rate(step, steps) * params.learning_rate
                batch = train[np.sort(order[number * params.batch_size :][: params.batch_size])]
                total += _step(pair, optimizer, batch, rate)
                if average is not None:
                    average.update()
            best = pair if average is None else average.modules
            history.append(Epoch(epoch + 1, total / len(train), _bits_a_picture(best, validation), rate))
            on_epoch(history[-1])
            if not math.isfinite(history[-1].train_loss):
                raise TrainingError(f"the loss is not finite in epoch {epoch + 1}; lower train.learning_rate")
        assert average is not None
        state = integers_of(*average.modules.networks())
    return state | _chances_of_empty(train), history


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: up in the first steps, then down along a cosine."""
    falling = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * falling


def _step(pair: _Pair, optimizer: torch.optim.Optimizer, batch: np.ndarray, rate: float) -> float:
    """One step; the bits of the batch."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    bits = pair.bits(batch)
    (bits / (len(batch) * _SCALE)).backward()
    for network in pair.networks():
        torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(bits.detach())


@torch.no_grad()
def _bits_a_picture(pair: _Pair, indices: np.ndarray) -> float:
    pieces = (indices[first : first + _AT_ONCE // 8] for first in range(0, len(indices), _AT_ONCE // 8))
    return sum(float(pair.bits(piece)) for piece in pieces) / len(indices)


def _chances_of_empty(train: np.ndarray) -> dict[str, Tensor]:
    empty = EmptyBlocks(*train.shape[1:])
    for first in range(0, min(len(train), _COUNTED), _AT_ONCE):
        empty.count(train[first : first + _AT_ONCE])
    return empty.tables()
