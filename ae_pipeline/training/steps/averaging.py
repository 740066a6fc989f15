"""Averages of a network's weights while it is trained.

The averaged network is as good as one whose learning rate has already fallen: the noise of single steps is gone from it
(Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30, 1992).
"""

from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

# The average is brought up to date this many times in the steps that it goes back.
_UPDATES = 64
# At first it goes back a fifth of the updates there were, so that it forgets how the network began.
_WARM_UP = 5.0

Tensors = tuple[Tensor, ...] | list[Tensor]
Modules = TypeVar("Modules", bound=nn.Module)


class WeightAverage(Generic[Modules]):
    """Exponential moving average of all weights and batch statistics of `modules`, going back about `steps` steps."""

    def __init__(self, modules: Modules, steps: float):
        self._source = modules
        self._every = max(1, round(steps / _UPDATES))
        self._least_share = min(1.0, self._every / max(steps, 1.0))
        self._average = AveragedModel(modules, multi_avg_fn=self._move, use_buffers=True)
        self.modules = cast(Modules, self._average.module)
        """The averaged ones."""
        self._steps = 0

    def update(self) -> None:
        """Count a step in; call it after every one."""
        if self._steps % self._every == 0:
            self._average.update_parameters(self._source)
        self._steps += 1

    def state(self) -> dict[str, Any]:
        """The averages, and how many steps went into them."""
        return {"average": dict(self._average.state_dict()), "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._average.load_state_dict(state["average"])
        self._steps = state["steps"]

    def _move(self, averages: Tensors, now: Tensors, _: Tensor | int) -> None:
        if averages[0].is_floating_point():
            # The count that torch gives is a tensor, which a GPU would have to be waited for.
            share = max(self._least_share, _WARM_UP / (_WARM_UP + self._steps / self._every))
            torch._foreach_lerp_(averages, now, share)
        else:  # how many batches there were
            torch._foreach_copy_(averages, now)
