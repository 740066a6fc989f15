"""The course of one network's training: its epochs, from the first one or from where it was taken down.

The first part of the steps computes in floats, the rest in what will be integers; the weights are averages over the
last steps. A course computes on one thread, so that it comes out the same whatever goes on beside it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ae_pipeline.params import TrainParams
from ae_pipeline.training.context.layers import Rounding
from ae_pipeline.training.steps.averaging import WeightAverage
from ae_pipeline.training.steps.course import State

_WARM_UP_STEPS, _LAST_RATE = 50, 0.02
_BETAS, _WEIGHT_DECAY, _LARGEST_GRADIENT = (0.9, 0.99), 1e-4, 20.0
# Gradients of whole pictures, in bits, are this much larger than those that the limit above is for.
_SCALE = 20 / math.log(2)
_ROUNDED_FROM = 0.65
_AVERAGED_STEPS = 333.0
_VALIDATED_AT_ONCE = 250

Loss = Callable[[Rounding, np.ndarray], Tensor]
"""What is to become small, summed over uint8 rows (n, height, width), by a network."""


class Losses(NamedTuple):
    """Mean loss of a train row and of a validation row in an epoch, and its last learning rate."""

    train: float
    validation: float
    learning_rate: float


class Course:
    """Trains a network on uint8 rows (n, height, width)."""

    def __init__(self, network: Rounding, loss: Loss, train: np.ndarray, validation: np.ndarray, params: TrainParams):
        self._network, self._loss, self._train, self._validation = network, loss, train, validation
        self.epochs = params.epochs
        self._params, self._every = params, math.ceil(len(train) / params.batch_size)
        self._steps = params.epochs * self._every
        self._optimizer = torch.optim.AdamW(
            network.parameters(), params.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY
        )
        self._average: WeightAverage[Rounding] | None = None
        self._generator = np.random.default_rng(params.seed)
        self._order_begins = self._generator.bit_generator.state
        self._done, self._total, self._rate = 0, 0.0, 0.0
        self.losses: list[Losses] = []
        """What the epochs had that are done."""

    @property
    def result(self) -> Rounding:
        """The network with averaged weights, or, before rounding begins, as it is."""
        return self._network if self._average is None else self._average.modules

    def run(self, step: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Go through the epochs that are left, and stop after each. The state is whole but within a `step`."""
        while len(self.losses) < self._params.epochs:
            self._generator.bit_generator.state = self._order_begins
            order = self._generator.permutation(len(self._train))
            while self._done < self._every:
                with step():
                    self._one_step(np.sort(order[self._done * self._params.batch_size :][: self._params.batch_size]))
            with step():
                validation = self._mean_of_validation()
                self.losses.append(Losses(self._total / len(self._train), validation, self._rate))
                self._done, self._total = 0, 0.0
                self._order_begins = self._generator.bit_generator.state
            yield

    def _one_step(self, rows: np.ndarray) -> None:
        number = len(self.losses) * self._every + self._done
        if self._average is None and number >= min(_ROUNDED_FROM * self._steps, self._steps - 1):
            self._begin_rounding()
        self._rate = _share(number, self._steps) * self._params.learning_rate
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate
        loss = self._loss(self._network, self._train[rows])
        (loss / (len(rows) * _SCALE)).backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()
        self._total += float(loss.detach())
        self._done += 1

    def _begin_rounding(self) -> None:
        self._network.begin_rounding()
        self._average = WeightAverage(self._network, min(_AVERAGED_STEPS, self._steps / 8))

    @torch.no_grad()
    def _mean_of_validation(self) -> float:
        rows, at_once = self._validation, _VALIDATED_AT_ONCE
        pieces = (rows[first : first + at_once] for first in range(0, len(rows), at_once))
        return sum(float(self._loss(self.result, piece)) for piece in pieces) / len(rows)

    @property
    def where(self) -> str:
        """How far it is, in words."""
        if len(self.losses) == self._params.epochs:
            return f"the end of epoch {len(self.losses)}"
        done = f", {self._done:,} steps of which are done" if self._done else ""
        return f"epoch {len(self.losses) + 1} of {self._params.epochs}{done}"

    def state(self) -> State:
        """All that decides how it goes on, and what came out so far."""
        return {
            "network": dict(self._network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state(),
            "order_begins": self._order_begins,
            "done": self._done,
            "total": self._total,
            "rate": self._rate,
            "losses": [list(losses) for losses in self.losses],
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        if state["average"] is not None:
            self._begin_rounding()
            assert self._average is not None
            self._average.restore(state["average"])
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._order_begins, self._done = state["order_begins"], state["done"]
        self._total, self._rate = state["total"], state["rate"]
        self.losses = [Losses(*losses) for losses in state["losses"]]


def _share(step: int, steps: int) -> float:
    """Share of the learning rate: up in the first steps, then down along a cosine."""
    falling = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * falling
