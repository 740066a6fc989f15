"""What the trials say: means and intervals over seeds, the Pareto front, its knee, the smallest in a tolerance."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ae_pipeline.evaluation.measures.metrics import METRICS, Metric, reported
from ae_pipeline.experiments.front import front
from ae_pipeline.experiments.sweep.space import Setting, describe
from ae_pipeline.experiments.sweep.trial import Trial, by_setting

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; `half` of its 95% interval by Student's t, None for a single value."""

    mean: float
    half: float | None

    def words(self, digits: int) -> str:
        """Mean and interval for people."""
        return f"{self.mean:.{digits}f}" + ("" if self.half is None else f" ± {self.half:.{digits}f}")


@dataclass(frozen=True)
class Outcome:
    """One setting: its trials, and its means, none unless all trials that there are have finished."""

    setting: Setting
    trials: list[Trial]
    objective: Metric
    """What settings are compared by, beside their bits."""
    estimates: dict[str, Estimate]
    """Every measured metric of the table, by its name."""

    @property
    def bits(self) -> Estimate | None:
        """Bits per row; None without a value of the objective."""
        return self.estimates.get("bits_per_row") if self.objective.name in self.estimates else None

    @property
    def mean_bits(self) -> float:
        """Mean of the bits; infinite where there is no value."""
        return math.inf if self.bits is None else self.bits.mean

    @property
    def loss(self) -> float:
        """The mean of the objective, lower is better; infinite where it has no value."""
        found = self.estimates.get(self.objective.name)
        return math.inf if found is None else self.objective.loss(found.mean)

    def mean(self, metric: Metric) -> float | None:
        """Mean of a metric over seeds; of those that come of others, the one of their means."""
        if metric.of_means is not None:
            return metric.of_means({name: found.mean for name, found in self.estimates.items()})
        found = self.estimates.get(metric.name)
        return None if found is None else found.mean

    def is_within(self, limit: float) -> bool:
        """Whether the mean of the objective keeps the limit."""
        return self.loss <= self.objective.loss(limit)

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
        values = [(metric, self.mean(metric)) for metric in columns(self.objective)]
        found = "".join(
            f", {metric.short} {value:.{digits_of(metric)}f}{metric.title.removeprefix(metric.short).replace(',', '')}"
            for metric, value in values
            if value is not None
        )
        seeds = f"{self.finished} seed{'s'[: self.finished > 1]}"
        return f"{describe(self.setting)}: {self.mean_bits:.1f} bits per row{found} ({seeds})"


@dataclass(frozen=True)
class Results:
    """All settings, and those that have a name.

    `best` has the lowest error; `smallest` is within the tolerance, and better than answering each value's mean.
    """

    objective: Metric
    """What is wanted of few bits: the MSE, or the metric that the tolerance is on."""
    limit: float | None
    """The tolerance."""
    trials: list[Trial]
    outcomes: list[Outcome]
    front: list[Outcome]
    best: Outcome | None
    knee: Outcome | None
    smallest: Outcome | None

    @property
    def chosen(self) -> Outcome | None:
        """The smallest within the tolerance, without one the one at the knee; never one that is worthless."""
        found = self.knee if self.limit is None else self.smallest
        return None if found is None or found.worthless else found

    @property
    def passed_over(self) -> Outcome | None:
        """What would be chosen, were it not worthless; None if something is chosen, or nothing could be."""
        if self.chosen is not None:
            return None
        if self.limit is None:
            return self.knee
        return next((item for item in self.front if item.is_within(self.limit)), None)


def columns(objective: Metric) -> list[Metric]:
    """The metrics that the report of a sweep has."""
    return [objective, *(metric for metric in reported("sweep") if metric != objective)]


def digits_of(metric: Metric) -> int:
    """Digits of a mean over seeds: one more than a single value's, so that its interval can be seen."""
    return metric.digits if metric.of_means else metric.digits + 1


def summarise(trials: list[Trial], limit: float | None, objective: str = "mse") -> Results:
    """Group trials by setting. A setting with a trial that was stopped or failed is not chosen: it would be by luck."""
    metric = METRICS[objective]
    outcomes = [_outcome(group, metric) for group in by_setting(trials)]
    measured = [item for item in outcomes if item.bits]
    best = front(measured, bits=lambda item: item.mean_bits, error=lambda item: item.loss)
    at = knee([item.mean_bits for item in best], [item.loss for item in best])
    return Results(
        objective=metric,
        limit=limit,
        trials=trials,
        outcomes=outcomes,
        front=best,
        best=best[-1] if best else None,
        knee=None if at is None else best[at],
        smallest=next(
            (item for item in best if limit is not None and item.is_within(limit) and not item.worthless), None
        ),
    )


def estimate(values: list[float]) -> Estimate:
    """Mean and half of its 95% interval."""
    from scipy.stats import sem, t

    if len(values) < 2:
        return Estimate(values[0], None)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sem(values))
    return Estimate(float(np.mean(values)), half)


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


def as_json(results: Results) -> dict[str, Any]:
    """What sweep.json holds."""
    return {
        "max_mse": None,
        **({} if results.limit is None else {results.objective.limit: results.limit}),
        "smallest_within": results.smallest and results.smallest.setting,
        "knee": results.knee and results.knee.setting,
        "best": results.best and results.best.setting,
        "settings": [_setting_json(item, results) for item in results.outcomes],
        "trials": [_trial_json(trial, results.objective) for trial in results.trials],
    }


def _setting_json(outcome: Outcome, results: Results) -> dict[str, Any]:
    states = [trial.state for trial in outcome.trials]
    found: dict[str, Any] = {
        "params": outcome.setting,
        "seeds": [trial.seed for trial in outcome.trials],
        "states": {state: states.count(state) for state in sorted(set(states))},
        "bits_per_row": None if outcome.bits is None else outcome.bits.mean,
        "bits_per_row_interval": _interval(outcome.bits),
    }
    for metric in columns(outcome.objective):
        found[metric.name] = outcome.mean(metric) if outcome.bits else None
        if metric.of_means is None:
            found[f"{metric.name}_interval"] = _interval(outcome.estimates.get(metric.name))
    return {**found, "on_front": outcome in results.front, "better_than_mean": not outcome.worthless}


def _trial_json(trial: Trial, objective: Metric) -> dict[str, Any]:
    names = ("bits_per_row", "bits_per_row_with_codec", *(metric.name for metric in columns(objective)))
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


def _outcome(trials: list[Trial], objective: Metric) -> Outcome:
    found: dict[str, Estimate] = {}
    if all(trial.state == "finished" for trial in trials):
        for name, metric in METRICS.items():
            values = [value for trial in trials if (value := trial.metrics.get(name)) is not None]
            if metric.of_means is None and len(values) == len(trials):
                found[name] = estimate(values)
    return Outcome(trials[0].setting, trials, objective, found)
