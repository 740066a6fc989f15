"""Trains the networks of a context codec on some pictures.

Masks, values and restoring have nothing in common: their networks are trained side by side. The loss of the
first two is the bits that the entropy coder will take.
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
from ae_pipeline.training.context.items import EmptyBlocks, blocks_of, items_of, moves_of
from ae_pipeline.training.context.layers import Rounding, bits_of
from ae_pipeline.training.context.nets import MaskNet, RestoreNet, ValueNet, integers_of
from ae_pipeline.training.loop import Epoch, seeded

_COUNTED, _AT_ONCE = 8000, 2000
# What is beyond a bin is cut off, and would learn nothing without.
_BEYOND = 0.02


def fit_context(
    train: np.ndarray,
    validation: np.ndarray,
    options: Options,
    params: TrainParams,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """The state of `Networks`, and how it went: losses are bits a picture.

    `train` and `validation` are uint8 pixels (pictures, height, width) with even sides; epochs, batch_size,
    learning_rate and seed are what counts of `params`. What `checkpoints` found is taken up, to the same result.
    Raises TrainingError when the loss is not finite.
    """
    height, width = train.shape[1:]
    grid, history = Grid(options.max_error), list[Epoch]()

    def course(network: Rounding, loss: Callable[[Rounding, np.ndarray], Tensor]) -> Course:
        return Course(network, loss, train, validation, params)

    with seeded(params.seed, torch.device("cpu"), compiled=False), one_torch_thread():
        network: Rounding = MaskNet(height, width, options)
        courses = {"mask": course(network, lambda network, pixels: _bits_of_masks(network, pixels, grid))}
        if len(grid.values) > 2:  # otherwise the mask says it all
            network = ValueNet(height, width, options)
            courses["value"] = course(network, lambda network, pixels: _bits_of_values(network, pixels, grid))
        if options.restore:
            network = RestoreNet(height, width, options)
            courses["restore"] = course(network, lambda network, pixels: _distance(network, pixels, grid))
        abreast = Abreast(courses, checkpoints or Checkpoints())
        history.extend(_epoch(number + 1, losses) for number, losses in enumerate(abreast.begun()))

        def ended(number: int, losses: dict[str, Losses]) -> None:
            history.append(_epoch(number, losses))
            on_epoch(history[-1])
            if not math.isfinite(history[-1].train_loss):
                raise TrainingError(f"the loss is not finite in epoch {number}; lower train.learning_rate")

        abreast.run(ended)
        state = integers_of(*(course.result for course in courses.values()))
    return state | _chances_of_empty(train, grid), history


def _epoch(number: int, losses: dict[str, Losses]) -> Epoch:
    of_bits = [of_one for name, of_one in losses.items() if name != "restore"]
    train, validation = (sum(getattr(of_one, split) for of_one in of_bits) for split in ("train", "validation"))
    return Epoch(number, train, validation, losses["mask"].learning_rate)


def _bits_of_masks(network: Rounding, pixels: np.ndarray, grid: Grid) -> Tensor:
    """Bits of all pictures (n, height, width) together, without those of blocks that have nothing near them."""
    blocks = blocks_of(grid.indices(pixels))
    return bits_of(network(blocks.context, blocks.places)[: len(blocks.symbols)], blocks.symbols).sum()


def _bits_of_values(network: Rounding, pixels: np.ndarray, grid: Grid) -> Tensor:
    """Bits of all values that are not 0."""
    items = items_of(grid.indices(pixels), grid)
    count, sixteenths = len(items.symbols), items.symbols // 16
    known = torch.zeros_like(items.places)
    known[:count] = sixteenths
    coarse, fine = network(items.context, items.places, items.ink, items.pictures, known)
    bits = bits_of(fine[:count], items.symbols % 16).sum()
    return bits if coarse is None else bits + bits_of(coarse[:count], sixteenths).sum()


def _distance(network: Rounding, pixels: np.ndarray, grid: Grid) -> Tensor:
    """Squared distance of restored values from the originals, in units of the bound; a little of what is cut off."""
    moves = moves_of(pixels, grid)
    found = network(moves.context)[: len(moves.wanted)]
    within = torch.minimum(torch.maximum(found, moves.least), moves.most)
    squares = (within - moves.wanted).square() + _BEYOND * (found - within).square()
    return squares.sum() / (grid.max_error + 1) ** 2


def _chances_of_empty(train: np.ndarray, grid: Grid) -> dict[str, Tensor]:
    empty = EmptyBlocks(*train.shape[1:])
    for first in range(0, min(len(train), _COUNTED), _AT_ONCE):
        empty.count(grid.indices(train[first : first + _AT_ONCE]))
    return empty.tables()
