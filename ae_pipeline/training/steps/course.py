"""Where a training stands: the order of its rows, what is optimised and by what, what is drawn.

Each can be taken down as a `State` and put back into an equal one, which then goes on to the same bits.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ae_pipeline.training.batches import Rows

State = dict[str, Any]
"""Dictionaries and lists of tensors and of what JSON holds."""


class Order:
    """Shuffled batches, epoch after epoch; what is left of one where it was taken up in the middle."""

    def __init__(self, rows: Rows, batch_size: int, seed: int):
        self._rows, self._batch_size = rows, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._start = self._generator.get_state()
        self.done = 0
        """Batches of this epoch that were given out."""

    def batches(self) -> Iterator[Tensor]:
        """The batches (n, *shape) of this epoch that are left. When they are through, the next epoch begins."""
        self._generator.set_state(self._start)
        for pixels in self._rows.shuffled(self._batch_size, self._generator, self.done):
            self.done += 1
            yield pixels
        self._start, self.done = self._generator.get_state(), 0

    def state(self) -> State:
        """Where this epoch's order begins, and how much of it is done."""
        return {"start": self._start, "done": self.done}

    def restore(self, state: State) -> None:
        """Go on from there."""
        self._start, self.done = state["start"], state["done"]


class Optimisation:
    """Modules, with the optimizer and the schedule of learning rates that change them."""

    def __init__(self, modules: nn.Module, optimizer: Optimizer, schedule: LRScheduler):
        self.modules, self._optimizer, self._schedule = modules, optimizer, schedule

    @property
    def steps(self) -> int:
        """How many were made."""
        return int(self._schedule.last_epoch)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def step(self, loss: Tensor) -> None:
        """Go down the gradient of `loss`."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._schedule.step()

    def state(self) -> State:
        """All of it."""
        return {
            "modules": dict(self.modules.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Go on from there, in modules and optimizer that were made in the same way."""
        self.modules.load_state_dict(state["modules"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])


def draws(device: torch.device) -> State:
    """The states of torch's own generators, which noise and dropout draw from."""
    state: State = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = getattr(torch, device.type).get_rng_state()
    return state


def restore_draws(state: State) -> None:
    """Draw from here on what would have been drawn there."""
    for name, value in state.items():
        (torch if name == "cpu" else getattr(torch, name)).set_rng_state(value)
