"""When a trial cannot win any more. Optuna's own pruners know one objective, and a sweep has two: bits and MSE.

After half of the epochs and before the last, every epoch's validation loss is taken for what it may become at best:
times the largest relative gain that any finished trial still made after that epoch, and `margin` below that. If the
setting has finished with other seeds, what it may become is their mean if that is lower: bad luck stops nothing.
Training then stops

- where the loss is the MSE: if another setting ended, through its quantiser, below that and takes no more bits, or
  more by less than `margin` of its latents' own (ids, attributes and footers are the same for all). How many bits this
  one takes at least is known from finished trials with no more latents and levels that differ otherwise in nothing, or
  only in what leaves the bits about alone (`_ABOUT_EQUAL`). So it cannot come on the Pareto front, but for a few bits,
  unless it gains more in the rest than any trial before it.
- where the loss is MSE + weight * bits (`train.rate_weight`): if another setting is below that at this weight. This
  one is then worse at its own trade-off; it could come on the front only where that is not convex.
- with a tolerance and a setting that ended within it, where the loss is the MSE: if this one cannot come within it.
  The smallest one within is then another. (The front's end of few bits and large errors is not drawn: without a
  tolerance it is.)

Losses that say less about the MSE (bce, with an L1 penalty) stop nothing, nor does a tolerance on another metric.
"""

from dataclasses import dataclass, replace
from statistics import fmean

from ae_pipeline.evaluation.measures.metrics import Metrics
from ae_pipeline.experiments.sweep.space import Setting, describe
from ae_pipeline.experiments.sweep.trial import StopTrial, Trial, by_setting
from ae_pipeline.params import Params
from ae_pipeline.params.options import MODELS

_GROWING = ("train.latent_size", "quantiser.levels")
"""More of these, and all else equal: no fewer bits."""
_ABOUT_EQUAL = tuple(
    [f"train.{name}" for name in ("learning_rate", "optimizer", "schedule", "weight_decay", "noise_std", "epochs")]
    + [f"train.{name}" for name in ("batch_size", "patience", "ema", "initialisation", "autocast", "compile", "device")]
    + [f"model.{model}.{name}" for model, options in MODELS.items() for name in options.about_equal_bits]
)
"""How well a latent is used, not how it is spread over the quantiser's levels."""


@dataclass(frozen=True)
class StopRule:
    """`margin` is relative; `max_mse` is the tolerance, if there is one. Without `of_mse` nothing is stopped."""

    margin: float
    max_mse: float | None
    of_mse: bool = True

    @property
    def identity(self) -> list[float | None]:
        """A trial that was stopped is done again when this is another."""
        return [self.margin, self.max_mse]

    def check(self, params: Params, setting: Setting, losses: list[float], finished: list[Trial]) -> None:
        """Raise StopTrial if the trial with these validation losses so far cannot win against `finished` ones."""
        weight = _rate_weight(params) if self.of_mse else None
        if weight is None or not params.train.epochs / 2 < len(losses) < params.train.epochs:
            return
        gains = [_gain(trial, len(losses)) for trial in finished if trial.epochs == params.train.epochs]
        if not gains:
            return
        best = min(losses) * min(gains) * (1 - self.margin)
        own = [trial for trial in finished if trial.setting == setting]
        others = _means_of([trial for trial in finished if trial.setting != setting])
        least_bits = max((known.bits for known in others if _is_no_larger(known.setting, setting)), default=0.0)
        if own:
            least_bits = fmean(trial.bits for trial in own)
            best = min(best, fmean(trial.mse + weight * trial.bits for trial in own))
        found = f"after epoch {len(losses)}: {best:.6f} at best"
        for other in others:
            no_larger = other.bits - self.margin * other.own_bits <= least_bits
            if (weight or no_larger) and other.mse + weight * other.bits < best:
                raise StopTrial(f"behind {describe(other.setting)} {found}", other.setting)
        if self.max_mse is not None and not weight and best > self.max_mse:
            for other in others:
                if other.mse <= self.max_mse:
                    raise StopTrial(f"not within the tolerance {found}", other.setting)


def _rate_weight(params: Params) -> float | None:
    """What a bit per row weighs in the loss beside the MSE; None where the loss is of another kind."""
    used = params.used("train")
    if used["train.loss"] != "mse" or used["train.l1_latent"]:
        return None
    return float(used.get("train.rate_weight", 0.0))


def _gain(trial: Trial, epochs: int) -> float:
    """Best validation loss of a finished trial, relative to its best one after so many epochs: at most 1."""
    losses = trial.history["validation_loss"]
    return min(losses) / min(losses[:epochs])


def _means_of(trials: list[Trial]) -> list[Trial]:
    """One trial for each setting, with the means over its seeds of what is compared here."""
    return [replace(group[0], metrics=_means(group)) for group in by_setting(trials)]


def _means(trials: list[Trial]) -> Metrics:
    return {
        "bits_per_row": fmean(trial.bits for trial in trials),
        "latent_bits_per_row": fmean(trial.own_bits for trial in trials),
        "mse": fmean(trial.mse for trial in trials),
    }


def _is_no_larger(one: Setting, other: Setting) -> bool:
    """Whether the first of two settings takes about as many bits as the second, or fewer."""
    return all(
        path in _ABOUT_EQUAL or (one[path] <= value if path in _GROWING else one[path] == value)
        for path, value in other.items()
    )
