"""What is trained, and how a step changes it."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.header import Scaling
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import TrainParams
from ae_pipeline.training import ranks
from ae_pipeline.training.batches import Rows
from ae_pipeline.training.rate import RateModel
from ae_pipeline.training.steps.averaging import WeightAverage
from ae_pipeline.training.steps.course import Optimisation, Order, State

VALIDATION_BATCH_ROWS = 2048
# Shares of all steps over which the learning rate (cosine) and the rate term rise from zero: before the network has
# learned anything, saving bits would switch dimensions off for good.
_WARM_UP, _RATE_WARM_UP = 0.02, 0.1
# Where the cosine ends, as a share of the learning rate, if weights are averaged: averages need no rest, and go on
# getting better.
_LAST_RATE = 0.1
# A prime that keeps the seeds of ranks and steps apart.
_SPREAD = 1_000_003


class Trained(nn.Module):
    """What is trained: the model, initialised, and with train.rate_weight a rate model."""

    def __init__(self, model: Autoencoder, params: TrainParams):
        super().__init__()
        if params.initialisation == "glorot":
            model.apply(_initialise_glorot)
        self.model = model
        self.rate: RateModel | None = None
        if params.rate_weight:
            rounds = params.rate_latents == "rounded"
            shared, channels = params.rate_code == "shared", model.latent_channels
            rate = RateModel(model.latent_size, shared=shared, rounds=rounds, channels=channels)
            self.rate = rate.to(next(model.parameters()).device)


class _Loss(nn.Module):
    """The loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, trained: Trained, params: TrainParams, *, compiled: bool):
        super().__init__()
        self._trained, self._params = trained, params
        self._loss = torch.compile(trained.model.loss) if compiled else trained.model.loss

    def forward(self, x: Tensor, target: Tensor, rate_share: float) -> Tensor:
        """See `Autoencoder.loss`."""
        return self._loss(x, target, self._params, self._trained.rate, rate_share)


class Trainer:
    """A model and its rate model, if there is one, and all that changes in the `steps` in which they are trained."""

    def __init__(
        self,
        trained: Trained,
        params: TrainParams,
        scaling: Scaling,
        steps: int,
        *,
        autocast: bool,
        compiled: bool = False,
        alone: bool = False,
    ):
        """It trains together with the other ranks (ranks.py), if there are any, unless `alone`."""
        self._trained = trained
        optimizer = _optimizer(trained, params)
        self._optimisation = Optimisation(trained, optimizer, _schedule(optimizer, params, steps))
        self._average = WeightAverage(trained, params.ema * steps) if params.ema else None
        self.kept = trained if self._average is None else self._average.modules
        self._loss: Callable[[Tensor, Tensor, float], Tensor] = _Loss(trained, params, compiled=compiled)
        self._ranks = 1 if alone else ranks.count()
        if self._ranks > 1:
            # Buffers are averaged in each step, not overwritten by the first rank's.
            self._loss = DistributedDataParallel(self._loss, forward_sync_buffers=False)
        self._params, self._scaling, self._steps, self._autocast = params, scaling, steps, autocast
        # Kept in one tensor: small ones that stay would lie between the large ones of steps and keep the system from
        # using that memory again.
        self._losses = torch.zeros(steps // params.epochs, device=next(trained.parameters()).device)
        self._rows: list[int] = []

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return self._optimisation.learning_rate

    def epoch(self, order: Order, after_step: Callable[[], None]) -> float:
        """A step for every batch that is left of an epoch; returns the mean loss over all its rows."""
        self._trained.train()
        for pixels in order.batches():
            if len(pixels) >= 2 * self._ranks:  # batch statistics of one row do not exist
                self._losses[len(self._rows)] = self.step(pixels)
                self._rows.append(len(pixels))
                after_step()
        losses = self._losses[: len(self._rows)].cpu().double().numpy()
        mean = float(np.average(losses, weights=self._rows))
        self._rows = []
        return mean

    def step(self, pixels: Tensor) -> Tensor:
        """One batch, of which each rank takes its share; returns its loss."""
        rows = len(pixels)
        if self._ranks > 1:
            pixels = ranks.share(pixels)
            # Draws of its own in each rank and step, so that a checkpoint need not hold those of all ranks.
            torch.manual_seed((self._params.seed * _SPREAD + self._optimisation.steps) * _SPREAD + ranks.rank())
        target = scale_pixels(pixels.float(), self._scaling)
        if self._params.mirror:
            target = _mirrored(target)
        noise_std = self._params.noise_std
        x = target + noise_std * torch.randn_like(target) if noise_std else target
        rate_share = min(1.0, self._optimisation.steps / self._steps / _RATE_WARM_UP)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self._autocast):
            loss: Tensor = self._loss(x, target, rate_share)
        if self._ranks > 1:  # gradients are averaged over ranks: a row counts alike in a larger share and a smaller one
            loss = loss * (len(pixels) * self._ranks / rows)
        self._optimisation.step(loss)
        if self._ranks > 1:
            ranks.average([*(b for b in self._trained.buffers() if b.is_floating_point()), loss])
        if self._average is not None:
            self._average.update()
        return loss.detach()

    @torch.inference_mode()
    def validation_loss(self, rows: Rows) -> float:
        """The loss of what would be kept, on clean rows, without dropout, latents rounded, in float32; mean of rows."""
        self.kept.eval()
        total = 0.0
        for number, pixels in enumerate(rows.in_order(VALIDATION_BATCH_ROWS)):
            if number % self._ranks != ranks.rank() % self._ranks:
                continue
            target = scale_pixels(pixels.float(), self._scaling)
            total += float(self.kept.model.loss(target, target, self._params, self.kept.rate)) * len(pixels)
        return (ranks.add_up(total) if self._ranks > 1 else total) / rows.rows

    def state(self) -> State:
        """Weights, averages, optimizer, and the losses of the epoch so far."""
        return {
            "optimisation": self._optimisation.state(),
            "average": None if self._average is None else self._average.state(),
            "batches_watched": self._trained.model.batches_watched,
            "losses": self._losses[: len(self._rows)],
            "rows": self._rows,
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self._optimisation.restore(state["optimisation"])
        if self._average is not None:
            self._average.restore(state["average"])
        self._trained.model.batches_watched = state["batches_watched"]
        self._rows = state["rows"]
        self._losses[: len(self._rows)] = state["losses"]


def trial(
    trained: Trained, train: Rows, params: TrainParams, scaling: Scaling, steps: int, autocast: bool
) -> Iterator[float]:
    """Losses of steps on copies, the same batches and draws whatever the precision; nothing of it stays."""
    trainer = Trainer(copy.deepcopy(trained).train(), params, scaling, steps, autocast=autocast, alone=True)
    generator = torch.Generator().manual_seed(params.seed)
    for pixels in train.few(params.batch_size, generator):
        if len(pixels) == params.batch_size:
            yield float(trainer.step(pixels))


def _mirrored(pictures: Tensor) -> Tensor:
    """(N, height, width[, channels]), about half of them left to right."""
    chosen = torch.rand(len(pictures), device=pictures.device) < 0.5
    return torch.where(chosen.reshape(-1, *[1] * (pictures.dim() - 1)), pictures.flip(2), pictures)


def _initialise_glorot(module: nn.Module) -> None:
    """Weights uniform within sqrt(6 / (fan_in + fan_out)), biases zero (Glorot and Bengio, 2010, equation 16)."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _optimizer(trained: Trained, params: TrainParams) -> torch.optim.Optimizer:
    speed, decay = params.learning_rate, params.weight_decay
    groups: list[dict[str, Any]] = [{"params": list(trained.model.parameters())}]
    if trained.rate is not None:  # steps and densities are no weights to be kept small
        groups.append({"params": list(trained.rate.parameters()), "weight_decay": 0.0})
    if params.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=speed, weight_decay=decay)
    kind = torch.optim.Adam if params.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=speed, weight_decay=decay, fused=True)


def _schedule(optimizer: torch.optim.Optimizer, params: TrainParams, steps: int) -> LRScheduler:
    if params.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    warm = max(1.0, _WARM_UP * steps)
    last = _LAST_RATE if params.ema else 0.0

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * step / steps)))

    return LambdaLR(optimizer, factor)
