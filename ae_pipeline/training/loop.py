"""fit(): the training loop. No files, no tracker; progress leaves through `on_epoch`."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.header import Scaling
from ae_pipeline.errors import DataError, TrainingError
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import TrainParams
from ae_pipeline.training import ranks
from ae_pipeline.training.batches import Rows
from ae_pipeline.training.checkpoints import Checkpoints
from ae_pipeline.training.rate import RateModel
from ae_pipeline.training.steps.course import Order, State, draws, restore_draws
from ae_pipeline.training.steps.linear_start import begin_as_klt
from ae_pipeline.training.steps.precision import Precision, choose_precision
from ae_pipeline.training.steps.trainer import VALIDATION_BATCH_ROWS, Trained, Trainer, trial

# A validation loss this many times the untrained model's counts as diverged; of one that begins as a linear transform,
# which may be nearly perfect, as many times the error of answering the mean, if that is more.
_DIVERGED = 10.0


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
    """0 where none was better than the beginning, which is kept: see `Autoencoder.begins_as_cosines`."""
    stopped_early: bool
    precision: Precision
    rate: RateModel | None = None
    """The steps to quantise with, of the best epoch; None without train.rate_weight."""

    untrained: float = math.inf
    """Validation loss before training."""

    @property
    def best(self) -> Epoch | None:
        """The epoch with the lowest validation loss; None where the beginning was better than all."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    @property
    def validation_loss(self) -> float:
        """The validation loss of the weights that the model carries."""
        return self.untrained if self.best is None else self.best.validation_loss

    @property
    def warnings(self) -> list[str]:
        """What a person has to know of it."""
        if self.best_epoch:
            return []
        return [
            f"no epoch lowered the validation loss of {self.untrained:.5g}, which the network has before training, as "
            "a cosine transform: the codec is that, untrained. The records that validate hold what the trained ones do "
            "not, such as tones of other frequencies; more records of every sort would help. `evaluate` measures what "
            "the codec is worth"
        ]


def fit(
    model: Autoencoder,
    train: Rows,
    validation: Rows,
    params: TrainParams,
    scaling: Scaling,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train `model` in place and leave it with the weights of the epoch with the lowest validation loss.

    Deterministic for `params.seed` on one machine with one number of threads: rows are shuffled by a generator of
    their own, noise and dropout draw from torch's, seeded here. What `checkpoints` found is taken up, to the same
    result. Raises TrainingError when the loss is not finite, explodes, or never gets below that of the untrained model,
    unless that is worth keeping (`Autoencoder.begins_as_cosines`).
    """
    if train.rows < (least := 2 * ranks.count()):
        rows = "1 row" if train.rows == 1 else f"{train.rows} rows"
        raise DataError(f"the train split has {rows}; expected at least {least}, 2 for each process that trains")
    checkpoints = checkpoints or Checkpoints()
    with seeded(params.seed, next(model.parameters()).device, compiled=params.compile):
        trained = Trained(model, params)
        model.zero = -scaling.offset / scaling.scale
        if model.begins_as_klt and not checkpoints.goes_on:
            begin_as_klt(model, train, scaling, params.rate_weight)
        steps = params.epochs * math.ceil(train.rows / params.batch_size)
        tried = partial(trial, trained, train, params, scaling, steps)
        chosen = checkpoints.settled("precision", lambda: asdict(choose_precision(params.autocast, tried)))
        precision = Precision(**chosen)
        trainer = Trainer(trained, params, scaling, steps, autocast=precision.autocast, compiled=params.compile)
        run = _Run(trainer, Order(train, params.batch_size, params.seed), validation, params)
        if not checkpoints.follow("float", run):
            is_linear = model.begins_as_klt or model.begins_as_cosines
            run.begin(_spread(validation, scaling) if is_linear else 0.0, keep=model.begins_as_cosines)
        while not run.ended:
            on_epoch(run.epoch(checkpoints.step))
            checkpoints.step(epoch_ended=True)
    if not run.best_state:
        raise TrainingError(
            f"training never lowered the validation loss of {run.untrained:.5g} in {len(run.history)} epochs; "
            "change train.learning_rate, train.optimizer or the model, or, where `prepare` warns of its values, "
            "remove outliers from the validation split"
        )
    trained.load_state_dict(run.best_state)
    stopped = len(run.history) < params.epochs
    return Fitted(run.history, run.best_epoch, stopped, precision, trained.rate, run.untrained)


class _Run:
    """The epochs of a training, from the first one or from where a checkpoint was taken."""

    def __init__(self, trainer: Trainer, order: Order, validation: Rows, params: TrainParams):
        self._trainer, self._order, self._validation, self._params = trainer, order, validation, params
        self._device = next(trainer.kept.parameters()).device
        self._learning_rate = trainer.learning_rate
        self.history: list[Epoch] = []
        self.best_state: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.untrained = self._best_loss = self._worst = math.inf

    def begin(self, spread: float, *, keep: bool) -> None:
        """Measure what training has to get below, and what it must not get above; keep the beginning if it is useful.

        `spread` is the error of answering each value's mean.
        """
        self.untrained = self._best_loss = self._trainer.validation_loss(self._validation)
        self._worst = _DIVERGED * max(self.untrained, spread)
        if keep and self.untrained < spread:
            self.best_state = copy.deepcopy(self._trainer.kept.state_dict())

    @property
    def ended(self) -> bool:
        """Whether there were enough epochs, or too many without a better one."""
        number, patience = len(self.history), self._params.patience
        return number == self._params.epochs or bool(patience and number - self.best_epoch >= patience)

    def epoch(self, after_step: Callable[[], None]) -> Epoch:
        """Train through what is left of an epoch, validate, and keep what is better than all before."""
        train_loss = self._trainer.epoch(self._order, after_step)
        loss = self._trainer.validation_loss(self._validation)
        epoch = Epoch(len(self.history) + 1, train_loss, loss, self._learning_rate)
        _check(epoch, self.untrained, self._worst, self._params.learning_rate)
        self.history.append(epoch)
        self._learning_rate = self._trainer.learning_rate
        if loss < self._best_loss:
            self._best_loss, self.best_epoch = loss, epoch.epoch
            self.best_state = copy.deepcopy(self._trainer.kept.state_dict())
        return epoch

    @property
    def where(self) -> str:
        """How far it is, in words."""
        if self.ended:
            return f"the end of epoch {len(self.history)}"
        done = f", {self._order.done:,} steps of which are done" if self._order.done else ""
        return f"epoch {len(self.history) + 1} of {self._params.epochs}{done}"

    def state(self) -> State:
        """All that decides how it goes on, and what came out so far."""
        return {
            "trainer": self._trainer.state(),
            "order": self._order.state(),
            "draws": draws(self._device),
            "learning_rate": self._learning_rate,
            "history": [asdict(epoch) for epoch in self.history],
            "best": {"epoch": self.best_epoch, "loss": self._best_loss, "state": dict(self.best_state)},
            "untrained": self.untrained,
            "worst": self._worst,
        }

    def restore(self, state: State) -> None:
        """Go on from there."""
        self._trainer.restore(state["trainer"])
        self._order.restore(state["order"])
        self._learning_rate = state["learning_rate"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        best = state["best"]
        self.best_epoch, self._best_loss, self.best_state = best["epoch"], best["loss"], best["state"]
        self.untrained, self._worst = state["untrained"], state["worst"]
        restore_draws(state["draws"])


@torch.no_grad()
def _spread(rows: Rows, scaling: Scaling) -> float:
    """Mean squared distance of scaled values from each value's mean."""
    moments = torch.zeros(2, 1, dtype=torch.float64)
    for pixels in rows.in_order(VALIDATION_BATCH_ROWS):
        x = scale_pixels(pixels.float(), scaling).flatten(1).double().cpu()
        moments = moments + torch.stack([x.sum(0), x.square().sum(0)])
    mean, square = moments / rows.rows
    return float((square - mean.square()).mean())


def _check(epoch: Epoch, untrained: float, worst: float, learning_rate: float) -> None:
    """Raise TrainingError for a loss that is no number, or far too high; `learning_rate` is that of params.yaml."""
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
        raise TrainingError(
            f"the loss is not a number in epoch {epoch.epoch} (train {epoch.train_loss:.5g}, validation "
            f"{epoch.validation_loss:.5g}); lower train.learning_rate, now {learning_rate:g}; no codec is written"
        )
    if epoch.validation_loss > worst:
        raise TrainingError(
            f"training diverges: validation loss {epoch.validation_loss:.5g} in epoch {epoch.epoch}, {untrained:.5g} "
            f"before training; lower train.learning_rate (now {learning_rate:g}); no codec was written"
        )


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
