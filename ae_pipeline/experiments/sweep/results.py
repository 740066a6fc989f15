"""What the trials say: means and intervals over seeds, the Pareto front, its knee, the smallest in a tolerance."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ae_pipeline.evaluation.metrics import psnr_of
from ae_pipeline.experiments.sweep.space import Setting
from ae_pipeline.experiments.sweep.stopping import describe
from ae_pipeline.experiments.sweep.trial import Trial
from ae_pipeline.files import canonical_json

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; `half` of its 95% interval by Student's t, None for a single value."""

    mean: float
    half: float | None


@dataclass(frozen=True)
class Outcome:
    """One setting: its trials, and its means, None unless all trials that there are have finished."""

    setting: Setting
    trials: list[Trial]
    bits: Estimate | None
    mse: Estimate | None

    @property
    def finished(self) -> int:
        """Trials that came to an end."""
        return sum(trial.state == "finished" for trial in self.trials)

    @property
    def worthless(self) -> bool:
        """Whether a trial is not better than answering each value's mean, however small the MSE."""
        return any(trial.worthless for trial in self.trials)

    def describe(self) -> str:
        """One line for people."""
        assert self.bits
        assert self.mse
        psnr = psnr_of(self.mse.mean)
        return (
            f"{describe(self.setting)}: {self.bits.mean:.1f} bits per row, MSE {self.mse.mean:.6f}"
            f"{'' if psnr is None else f', PSNR {psnr:.2f} dB'} ({self.finished} seed{'s'[: self.finished > 1]})"
        )


@dataclass(frozen=True)
class Results:
    """All settings, and those that have a name.

    `best` has the lowest MSE; `smallest` is within the tolerance, and better than answering each value's mean.
    """

    outcomes: list[Outcome]
    front: list[Outcome]
    best: Outcome | None
    knee: Outcome | None
    smallest: Outcome | None
    max_mse: float | None

    @property
    def chosen(self) -> Outcome | None:
        """With a tolerance the smallest within it, else the one at the knee; never one that is worthless."""
        found = self.knee if self.max_mse is None else self.smallest
        return None if found is None or found.worthless else found

    @property
    def passed_over(self) -> Outcome | None:
        """What would be chosen, were it not worthless; None if something is chosen, or nothing could be."""
        if self.chosen is not None:
            return None
        if self.max_mse is None:
            return self.knee
        return next((item for item in self.front if _mse(item) <= self.max_mse), None)


def summarise(trials: list[Trial], max_mse: float | None) -> Results:
    """Group trials by setting. A setting with a trial that was stopped or failed is not chosen: it would be by luck."""
    groups: dict[bytes, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(canonical_json(trial.setting), []).append(trial)
    outcomes = [_outcome(group) for group in groups.values()]
    whole = sorted((item for item in outcomes if item.bits), key=lambda item: (_bits(item), _mse(item)))
    front: list[Outcome] = []
    for item in whole:
        if not front or _mse(item) < _mse(front[-1]):
            front.append(item)
    at = knee([_bits(item) for item in front], [_mse(item) for item in front])
    return Results(
        outcomes=outcomes,
        front=front,
        best=front[-1] if front else None,
        knee=None if at is None else front[at],
        smallest=next(
            (item for item in front if max_mse is not None and _mse(item) <= max_mse and not item.worthless), None
        ),
        max_mse=max_mse,
    )


def estimate(values: list[float]) -> Estimate:
    """Mean and half of its 95% interval."""
    from scipy.stats import t

    if len(values) < 2:
        return Estimate(values[0], None)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(float(np.mean(values)), float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error)


def knee(bits: list[float], mse: list[float]) -> int | None:
    """Where more bits begin to bring less: index into a front with rising bits and falling MSE, None if it has no knee.

    Kneedle for a whole curve (Satopaa, Albrecht, Irwin and Raghavan, "Finding a 'kneedle' in a haystack", 2011): both
    axes scaled to [0, 1], the point furthest below the line from end to end. A front has no noise to smooth, and
    the paper's threshold is for curves whose end is not known yet. It depends on where the sweep begins and ends.
    """
    if len(bits) < 3:
        return None
    x = (np.array(bits) - bits[0]) / (bits[-1] - bits[0])
    y = (np.array(mse) - mse[-1]) / (mse[0] - mse[-1])
    below = (1 - x) - y
    at = int(below.argmax())
    return at if below[at] > 1e-9 else None


def as_json(results: Results, trials: list[Trial]) -> dict[str, Any]:
    """What sweep.json holds."""

    def named(outcome: Outcome | None) -> Setting | None:
        return None if outcome is None else outcome.setting

    return {
        "max_mse": results.max_mse,
        "smallest_within": named(results.smallest),
        "knee": named(results.knee),
        "best": named(results.best),
        "settings": [_setting_json(item, results) for item in results.outcomes],
        "trials": [_trial_json(trial) for trial in trials],
    }


def _setting_json(outcome: Outcome, results: Results) -> dict[str, Any]:
    states = [trial.state for trial in outcome.trials]
    return {
        "params": outcome.setting,
        "seeds": [trial.seed for trial in outcome.trials],
        "states": {state: states.count(state) for state in sorted(set(states))},
        "bits_per_row": None if outcome.bits is None else outcome.bits.mean,
        "bits_per_row_interval": _interval(outcome.bits),
        "mse": None if outcome.mse is None else outcome.mse.mean,
        "mse_interval": _interval(outcome.mse),
        "psnr": None if outcome.mse is None else psnr_of(outcome.mse.mean),
        "on_front": outcome in results.front,
        "better_than_mean": not outcome.worthless,
    }


def _trial_json(trial: Trial) -> dict[str, Any]:
    names = ("bits_per_row", "bits_per_row_with_codec", "mse", "psnr")
    return {
        "params": trial.setting,
        "seed": trial.seed,
        "state": trial.state,
        **{name: trial.metrics.get(name) for name in names},
        "epochs": len(trial.history["validation_loss"]),
        "seconds": trial.seconds,
        "reason": trial.reason,
        "commit": trial.commit,
    }


def _interval(found: Estimate | None) -> list[float] | None:
    return None if found is None or found.half is None else [found.mean - found.half, found.mean + found.half]


def _outcome(trials: list[Trial]) -> Outcome:
    if any(trial.state != "finished" for trial in trials):
        return Outcome(trials[0].setting, trials, None, None)
    bits, mse = ([getattr(trial, name) for trial in trials] for name in ("bits", "mse"))
    return Outcome(trials[0].setting, trials, estimate(bits), estimate(mse))


def _bits(outcome: Outcome) -> float:
    assert outcome.bits
    return outcome.bits.mean


def _mse(outcome: Outcome) -> float:
    assert outcome.mse
    return outcome.mse.mean
