"""fit(): the training loop. No files, no tracker; progress leaves through `on_epoch`."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.header import Scaling
from ae_pipeline.errors import DataError, TrainingError
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import TrainParams
from ae_pipeline.training.averaging import WeightAverage
from ae_pipeline.training.batches import Rows
from ae_pipeline.training.linear_start import begin_as_klt
from ae_pipeline.training.precision import Precision, choose_precision
from ae_pipeline.training.rate import RateModel

_VALIDATION_BATCH_ROWS = 2048
# A validation loss this many times the untrained model's counts as diverged; of one that begins as the KLT, which may
# be nearly perfect on few columns, as many times the error of answering the mean, if that is more.
_DIVERGED = 10.0
# Shares of all steps over which the learning rate (cosine) and the rate term rise from zero: before the network has
# learned anything, saving bits would switch dimensions off for good.
_WARM_UP, _RATE_WARM_UP = 0.02, 0.1
# Where the cosine ends, as a share of the learning rate, if weights are averaged: averages need no rest, and go on
# getting better.
_LAST_RATE = 0.1


@dataclass(frozen=True)
class Epoch:
    """One line of the history."""

    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float


@dataclass(frozen=True)
class Fitted:
    """What a training led to; the model carries the best epoch's weights."""

    history: list[Epoch]
    best_epoch: int
    stopped_early: bool
    precision: Precision
    rate: RateModel | None = None
    """The steps to quantise with, of the best epoch; None without train.rate_weight."""

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return self.history[self.best_epoch - 1]


def fit(
    model: Autoencoder,
    train: Rows,
    validation: Rows,
    params: TrainParams,
    scaling: Scaling,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Train `model` in place and leave it with the weights of the epoch with the lowest validation loss.

    Deterministic for `params.seed` on one machine with one number of threads: rows are shuffled by a generator of
    their own, noise and dropout draw from torch's, seeded here. Raises TrainingError when the loss is not finite,
    explodes, or never gets below that of the untrained model.
    """
    if train.rows < 2:
        raise DataError(f"the train split has {train.rows} row; expected at least 2")
    generator = torch.Generator().manual_seed(params.seed)
    history: list[Epoch] = []
    best_state: dict[str, Tensor] = {}
    best_epoch = 0
    with seeded(params.seed, next(model.parameters()).device, compiled=params.compile):
        trained = _Trained(model, params)
        model.zero = -scaling.offset / scaling.scale
        if model.begins_as_klt:
            begin_as_klt(model, train, scaling, params.rate_weight)
        steps = params.epochs * math.ceil(train.rows / params.batch_size)
        precision = choose_precision(params.autocast, partial(_trial, trained, train, params, scaling, steps))
        trainer = _Trainer(trained, params, scaling, steps, autocast=precision.autocast, compiled=params.compile)
        untrained = best_loss = trainer.validation_loss(validation)
        worst = _DIVERGED * max(untrained, _spread(validation, scaling) if model.begins_as_klt else 0.0)
        for number in range(1, params.epochs + 1):
            learning_rate = trainer.learning_rate
            train_loss = trainer.epoch(train, generator)
            epoch = Epoch(number, train_loss, trainer.validation_loss(validation), learning_rate)
            _check(epoch, untrained, worst)
            history.append(epoch)
            on_epoch(epoch)
            if epoch.validation_loss < best_loss:
                best_loss, best_epoch = epoch.validation_loss, number
                best_state = copy.deepcopy(trainer.kept.state_dict())
            if params.patience and number - best_epoch >= params.patience:
                break
    if not best_epoch:
        raise TrainingError(
            f"training never lowered the validation loss of {untrained:.5g} in {len(history)} epochs; "
            "change train.learning_rate, train.optimizer or the model, or, where `prepare` warns of its values, "
            "remove outliers from the validation split"
        )
    trained.load_state_dict(best_state)
    return Fitted(history, best_epoch, len(history) < params.epochs, precision, trained.rate)


class _Trained(nn.Module):
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


class _Trainer:
    """A model and its rate model, if there is one, and all that changes in the `steps` in which they are trained."""

    def __init__(
        self,
        trained: _Trained,
        params: TrainParams,
        scaling: Scaling,
        steps: int,
        *,
        autocast: bool,
        compiled: bool = False,
    ):
        self._trained = trained
        self._optimizer = _optimizer(trained, params)
        self._schedule = _schedule(self._optimizer, params, steps)
        self._average = WeightAverage(trained, params.ema * steps) if params.ema else None
        self.kept = trained if self._average is None else self._average.modules
        self._loss = torch.compile(trained.model.loss) if compiled else trained.model.loss
        self._params, self._scaling, self._steps, self._autocast = params, scaling, steps, autocast

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def epoch(self, train: Rows, generator: torch.Generator) -> float:
        """A step for every batch; returns the mean loss over rows."""
        self._trained.train()
        losses: list[Tensor] = []
        rows: list[int] = []
        for pixels in train.shuffled(self._params.batch_size, generator):
            if len(pixels) < 2:
                continue  # batch statistics of one row do not exist
            losses.append(self.step(pixels))
            rows.append(len(pixels))
        return float(np.average(torch.stack(losses).cpu().double().numpy(), weights=rows))

    def step(self, pixels: Tensor) -> Tensor:
        """One batch; returns its loss."""
        target = scale_pixels(pixels.float(), self._scaling)
        if self._params.mirror:
            target = _mirrored(target)
        noise_std = self._params.noise_std
        x = target + noise_std * torch.randn_like(target) if noise_std else target
        rate_share = min(1.0, self._schedule.last_epoch / self._steps / _RATE_WARM_UP)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self._autocast):
            loss: Tensor = self._loss(x, target, self._params, self._trained.rate, rate_share)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        if self._average is not None:
            self._average.update()
        return loss.detach()

    @torch.inference_mode()
    def validation_loss(self, rows: Rows) -> float:
        """The loss of what would be kept, on clean rows, without dropout, latents rounded, in float32; mean of rows."""
        self.kept.eval()
        total = 0.0
        for pixels in rows.in_order(_VALIDATION_BATCH_ROWS):
            target = scale_pixels(pixels.float(), self._scaling)
            total += float(self.kept.model.loss(target, target, self._params, self.kept.rate)) * len(pixels)
        return total / rows.rows


def _trial(
    trained: _Trained, train: Rows, params: TrainParams, scaling: Scaling, steps: int, autocast: bool
) -> Iterator[float]:
    """Losses of steps on copies, the same batches and draws whatever the precision; nothing of it stays."""
    trainer = _Trainer(copy.deepcopy(trained).train(), params, scaling, steps, autocast=autocast)
    generator = torch.Generator().manual_seed(params.seed)
    for pixels in train.shuffled(params.batch_size, generator):
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


@torch.no_grad()
def _spread(rows: Rows, scaling: Scaling) -> float:
    """Mean squared distance of scaled values from each value's mean."""
    moments = torch.zeros(2, 1, dtype=torch.float64)
    for pixels in rows.in_order(_VALIDATION_BATCH_ROWS):
        x = scale_pixels(pixels.float(), scaling).flatten(1).double().cpu()
        moments = moments + torch.stack([x.sum(0), x.square().sum(0)])
    mean, square = moments / rows.rows
    return float((square - mean.square()).mean())


def _check(epoch: Epoch, untrained: float, worst: float) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
        raise TrainingError(
            f"the loss is not a number in epoch {epoch.epoch} (train {epoch.train_loss:.5g}, validation "
            f"{epoch.validation_loss:.5g}); lower train.learning_rate, now {epoch.learning_rate:g}; no codec is written"
        )
    if epoch.validation_loss > worst:
        raise TrainingError(
            f"training diverges: validation loss {epoch.validation_loss:.5g} in epoch {epoch.epoch}, {untrained:.5g} "
            f"before training; lower train.learning_rate (now {epoch.learning_rate:g}); no codec was written"
        )


def _optimizer(trained: _Trained, params: TrainParams) -> torch.optim.Optimizer:
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


@contextmanager
def seeded(seed: int, device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """Seed noise and dropout, and ask for deterministic kernels; leave torch's own state as it was."""
    devices = [device] if device.type == "cuda" else []
    before = torch.get_deterministic_debug_mode()
    fill_before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        torch.set_deterministic_debug_mode("warn")
        if compiled:  # asks torch's compiler too, and imports it: that takes longer than a small training
            torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling new memory only helps code that reads what it never wrote; it is an eighth of a small step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            if compiled:
                torch.use_deterministic_algorithms(False)
            torch.set_deterministic_debug_mode(before)
            torch.utils.deterministic.fill_uninitialized_memory = fill_before  # type: ignore[attr-defined]
