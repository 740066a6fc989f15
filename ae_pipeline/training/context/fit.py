"""Trains the networks of a context codec on some pictures.

Masks and values have nothing in common: their networks are trained side by side. The loss is the bits that the entropy
coder will take.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.options import Options
from ae_pipeline.codec.devices import one_torch_thread
from ae_pipeline.errors import TrainingError
from ae_pipeline.params import TrainParams
from ae_pipeline.training.checkpoints import Checkpoints
from ae_pipeline.training.context.abreast import Abreast
from ae_pipeline.training.context.course import Course, Losses
from ae_pipeline.training.context.items import EmptyBlocks, blocks_of, items_of
from ae_pipeline.training.context.layers import Rounding, bits_of
from ae_pipeline.training.context.nets import MaskNet, ValueNet, integers_of
from ae_pipeline.training.loop import Epoch, seeded

_COUNTED, _AT_ONCE = 8000, 2000


def fit_context(
    train: np.ndarray,
    validation: np.ndarray,
    options: Options,
    params: TrainParams,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """The state of `Networks`, and how it went: losses are bits a picture.

    `train` and `validation` are uint8 indices (pictures, height, width) with even sides; epochs, batch_size,
    learning_rate and seed are what counts of `params`. What `checkpoints` found is taken up, to the same result.
    Raises TrainingError when the loss is not finite.
    """
    height, width = train.shape[1:]
    grid, history = Grid(options.max_error), list[Epoch]()

    def course(network: Rounding, loss: Callable[[Rounding, np.ndarray], Tensor]) -> Course:
        return Course(network, loss, train, validation, params)

    with seeded(params.seed, torch.device("cpu"), compiled=False), one_torch_thread():
        courses = {"mask": course(MaskNet(height, width, options), _bits_of_masks)}
        if len(grid.values) > 2:  # otherwise the mask says it all
            network = ValueNet(height, width, options)
            courses["value"] = course(network, lambda network, indices: _bits_of_values(network, indices, grid))
        abreast = Abreast(courses, checkpoints or Checkpoints())
        history.extend(_epoch(number + 1, losses) for number, losses in enumerate(abreast.begun()))

        def ended(number: int, losses: dict[str, Losses]) -> None:
            history.append(_epoch(number, losses))
            on_epoch(history[-1])
            if not math.isfinite(history[-1].train_loss):
                raise TrainingError(f"the loss is not finite in epoch {number}; lower train.learning_rate")

        abreast.run(ended)
        state = integers_of(*(course.result for course in courses.values()))
    return state | _chances_of_empty(train), history


def _epoch(number: int, losses: dict[str, Losses]) -> Epoch:
    train, validation = (sum(getattr(of_one, split) for of_one in losses.values()) for split in ("train", "validation"))
    return Epoch(number, train, validation, losses["mask"].learning_rate)


def _bits_of_masks(network: Rounding, indices: np.ndarray) -> Tensor:
    """Bits of all pictures (n, height, width) together, without those of blocks that have nothing near them."""
    blocks = blocks_of(indices)
    return bits_of(network(blocks.context, blocks.places)[: len(blocks.symbols)], blocks.symbols).sum()


def _bits_of_values(network: Rounding, indices: np.ndarray, grid: Grid) -> Tensor:
    """Bits of all values that are not 0."""
    items = items_of(indices, grid)
    count, sixteenths = len(items.symbols), items.symbols // 16
    known = torch.zeros_like(items.places)
    known[:count] = sixteenths
    coarse, fine = network(items.context, items.places, items.ink, items.pictures, known)
    bits = bits_of(fine[:count], items.symbols % 16).sum()
    return bits if coarse is None else bits + bits_of(coarse[:count], sixteenths).sum()


def _chances_of_empty(train: np.ndarray) -> dict[str, Tensor]:
    empty = EmptyBlocks(*train.shape[1:])
    for first in range(0, min(len(train), _COUNTED), _AT_ONCE):
        empty.count(train[first : first + _AT_ONCE])
    return empty.tables()
