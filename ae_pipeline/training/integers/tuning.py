"""Turns a trained float network into one in integers: it trains on while everything is rounded (to_integers.py)."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import TrainParams
from ae_pipeline.training.batches import Rows
from ae_pipeline.training.checkpoints import Checkpoints
from ae_pipeline.training.integers.to_integers import BATCH_ROWS, RoundedNetwork
from ae_pipeline.training.loop import seeded
from ae_pipeline.training.rate import RateModel
from ae_pipeline.training.steps.course import Optimisation, Order, State, draws, restore_draws

# Shares of the training's learning rate, which falls to zero again, and of its epochs.
_SPEED, _EPOCHS = 0.02, 0.05


@dataclass(frozen=True)
class Tuned:
    """What rounding cost: losses of validation rows, as in training."""

    epochs: int
    float_loss: float
    """Loss of the float network, with quantised latents."""
    rounded_loss: float
    """Loss after rounding, before training on."""
    loss: float
    """Loss of the integer network."""


def tune(
    model: Autoencoder,
    quantiser: Quantiser,
    rate: RateModel | None,
    train: Rows,
    validation: Rows,
    params: TrainParams,
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, Tensor], Tuned]:
    """Round a frozen `model` and train it on; returns the state of the integer model of the best epoch, and its cost.

    `rate` is that of the quantised latents, trained with it. Deterministic for `params.seed` as `fit` is, and taken up
    from `checkpoints` as there.
    """
    checkpoints = checkpoints or Checkpoints()
    device = next(iter(train.in_order(1))).device
    network = RoundedNetwork(model, quantiser).to(device).eval()
    rate = None if rate is None else rate.to(device)
    with seeded(params.seed, device):
        float_loss = _loss(network, rate, validation, params)
        network.calibrate(train)
        rounded_loss = _loss(network, rate, validation, params)
        tuning = _Tuning(network, rate, train, params, rounded_loss)
        checkpoints.follow("integers", tuning)
        while tuning.done < tuning.epochs:
            tuning.epoch(validation, checkpoints.step)
            checkpoints.step(epoch_ended=True)
        tuning.modules.load_state_dict(tuning.best)
    return network.integers(), Tuned(tuning.epochs, float_loss, rounded_loss, tuning.best_loss)


class _Tuning:
    """The epochs in which a rounded network is trained on."""

    def __init__(self, network: RoundedNetwork, rate: RateModel | None, train: Rows, params: TrainParams, loss: float):
        """`loss` is what it begins with."""
        self._network, self._rate, self._params = network, rate, params
        self.modules = nn.ModuleList([network] if rate is None else [network, rate])
        self.best_loss, self.best = loss, copy.deepcopy(self.modules.state_dict())
        self.epochs = max(1, round(_EPOCHS * params.epochs))
        self.done = 0
        optimizer = torch.optim.Adam(self.modules.parameters(), lr=_SPEED * params.learning_rate, fused=True)
        steps = self.epochs * math.ceil(train.rows / params.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self._optimisation = Optimisation(self.modules, optimizer, schedule)
        self._order = Order(train, params.batch_size, params.seed + 1)
        self._device = next(network.parameters()).device

    def epoch(self, validation: Rows, after_step: Callable[[], None]) -> None:
        """Train through what is left of an epoch, and keep what is better than all before."""
        self.modules.train()
        for pixels in self._order.batches():
            self._optimisation.step(self._network.loss(pixels, self._params, self._rate))
            after_step()
        self.modules.eval()
        loss = _loss(self._network, self._rate, validation, self._params)
        if loss < self.best_loss:
            self.best_loss, self.best = loss, copy.deepcopy(self.modules.state_dict())
        self.done += 1

    @property
    def where(self) -> str:
        """How far it is, in words."""
        if self.done == self.epochs:
            return "the end of the epochs that round the network to integers"
        done = f", {self._order.done:,} steps of which are done" if self._order.done else ""
        return f"epoch {self.done + 1} of the {self.epochs} that round the network to integers{done}"

    def state(self) -> State:
        """All that decides how it goes on."""
        return {
            "optimisation": self._optimisation.state(),
            "order": self._order.state(),
            "draws": draws(self._device),
            "done": self.done,
            "best": {"loss": self.best_loss, "state": dict(self.best)},
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self._optimisation.restore(state["optimisation"])
        self._order.restore(state["order"])
        self.done = state["done"]
        self.best_loss, self.best = state["best"]["loss"], state["best"]["state"]
        restore_draws(state["draws"])


@torch.inference_mode()
def _loss(network: RoundedNetwork, rate: RateModel | None, rows: Rows, params: TrainParams) -> float:
    total = sum(float(network.loss(pixels, params, rate)) * len(pixels) for pixels in rows.in_order(BATCH_ROWS))
    return total / rows.rows
