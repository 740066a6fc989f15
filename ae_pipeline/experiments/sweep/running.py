"""The sweep: which trial is next, until none is missing.

A grid goes seed by seed, so that every setting has a value early; settings that Optuna draws get all their seeds at
once, so that the next draw knows them. A setting with a trial that was stopped or failed is not tried further.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import open_split
from ae_pipeline.errors import SweepError
from ae_pipeline.evaluation.metrics import METRICS, Metric
from ae_pipeline.experiments.sweep.progress import SweepProgress, sweep_progress
from ae_pipeline.experiments.sweep.results import Results, summarise
from ae_pipeline.experiments.sweep.runs import SweepRuns
from ae_pipeline.experiments.sweep.space import Dimension, Setting, combinations, parse_space
from ae_pipeline.experiments.sweep.stopping import StopRule, describe
from ae_pipeline.experiments.sweep.study import OpenTrial, Study, open_study, study_digest
from ae_pipeline.experiments.sweep.trial import Trial, run_trial
from ae_pipeline.files import locked_folder
from ae_pipeline.params import SWEEPS, Params
from ae_pipeline.params.base import replaced
from ae_pipeline.provenance import git_state
from ae_pipeline.training.loop import Epoch


@dataclass(frozen=True)
class Swept:
    """A sweep's results; `missing` trials were not begun before the time was over."""

    results: Results
    trials: list[Trial]
    missing: int
    runs: SweepRuns
    params: Params

    def trial_params(self) -> list[tuple[Params, Trial]]:
        """Each trial with all of its parameters."""
        return [(_with(self.params, trial.setting, trial.seed), trial) for trial in self.trials]


@dataclass(frozen=True)
class _Sweep:
    """What does not change while it goes."""

    params: Params
    root: Path
    space: list[Dimension]
    splits: tuple[SampleSet, SampleSet]
    git: dict[str, Any]
    rule: StopRule
    objective: Metric

    @property
    def seeds(self) -> list[int]:
        first = self.params.train.seed
        return list(range(first, first + self.params.sweep.seeds))

    @property
    def settings(self) -> list[Setting]:
        """All settings of a grid; none where they are drawn."""
        return combinations(self.space) if self.params.sweep.trials is None else []

    @property
    def total(self) -> int:
        """Trials, if none is stopped."""
        return len(self.seeds) * (self.params.sweep.trials or len(self.settings))


def run_sweep(params: Params, root: Path, timeout: float = float("inf")) -> Swept:
    """Do the trials that `params.sweep` asks for and that no earlier run has done.

    After `timeout` seconds no further one begins. Raises ConfigError before any training for a space that cannot be
    tried, TargetError when another process is at the same study. MLflow is completed by the caller.
    """
    space = parse_space(params.sweep.space, params, params.sweep.trials)
    prepared = root / params.paths.prepared
    splits = open_split(prepared, "train"), open_split(prepared, "validation")
    metric, limit = tolerance(params)
    rule = StopRule(params.sweep.margin, limit, of_mse=metric.name == "mse")
    sweep = _Sweep(params, root, space, splits, git_state(root), rule, metric)
    grid = params.sweep.trials is None
    digest = study_digest(params, space, splits, metric, grid=grid)
    folder = root / params.paths.work / SWEEPS / digest[:16]
    runs = SweepRuns(params, root, digest, sweep.git)
    with locked_folder(folder), open_study(folder / "optuna.db", space, rule.identity, metric, grid=grid) as study:
        runs.begin()
        missing = _run(sweep, study, runs, folder / "trial", time.monotonic() + timeout)
        trials = _asked(sweep, study)
    return Swept(summarise(trials, limit, metric.name), trials, missing, runs, params)


def tolerance(params: Params) -> tuple[Metric, float | None]:
    """The metric that settings are compared by, and the limit on it; a PSNR is an MSE."""
    asked = params.sweep
    if asked.min_psnr is not None:
        return METRICS["mse"], 10 ** (-asked.min_psnr / 10)
    return next(((METRICS[limit.metric], limit.value) for limit in asked.limits), (METRICS["mse"], None))


def _run(sweep: _Sweep, study: Study, runs: SweepRuns, work: Path, end: float) -> int:
    """Returns how many trials are missing."""
    with sweep_progress(sweep.total, len(_asked(sweep, study))) as progress:
        while (opened := _next(sweep, study)) is not None:
            if time.monotonic() > end:
                study.give_up(opened)
                return sweep.total - len(_asked(sweep, study))
            params = _with(sweep.params, opened.setting, opened.seed)
            watch = _watch(sweep.rule, params, opened, _asked(sweep, study), progress)
            with _or_given_up(study, runs, opened):
                runs.start(params, opened.setting)
                trial = run_trial(params, opened.setting, sweep.splits, work, sweep.git, watch)
                trial.rules.extend(sweep.rule.identity)
                _check_objective(sweep, trial)
                study.finish(opened, trial)
                runs.finish(trial)
            progress.ended(f"{_name(opened)}: {_line(trial)}")
        found = len(study.settings())
        if found < (sweep.params.sweep.trials or 0):
            progress.note(f"Optuna found no more than {found} settings in this space")
    return 0


def _check_objective(sweep: _Sweep, trial: Trial) -> None:
    name = sweep.objective.name
    if trial.state == "finished" and trial.metrics.get(name) is None:
        raise SweepError(
            f"{name} has no value for the validation rows, so sweep.{sweep.objective.limit} cannot be kept; give a "
            "tolerance on another metric"
        )


def _watch(
    rule: StopRule, params: Params, opened: OpenTrial, trials: list[Trial], progress: SweepProgress
) -> Callable[[list[Epoch]], None]:
    """What is called after every epoch: shows it, and stops a trial that cannot win."""
    finished = [trial for trial in trials if trial.state == "finished"]

    def watch(history: list[Epoch]) -> None:
        losses = [epoch.validation_loss for epoch in history]
        progress.at(f"{_name(opened)}, epoch {len(history)}/{params.train.epochs}, loss {losses[-1]:.5f}")
        rule.check(params, opened.setting, losses, finished)

    return watch


@contextmanager
def _or_given_up(study: Study, runs: SweepRuns, opened: OpenTrial) -> Iterator[None]:
    """Whatever ends the sweep within a trial, Ctrl-C too: the trial is done again by the next one."""
    try:
        yield
    except BaseException:
        study.give_up(opened)
        runs.interrupted()
        raise


def _next(sweep: _Sweep, study: Study) -> OpenTrial | None:
    """The first trial that is missing, begun."""
    asked, trials = sweep.params.sweep, _asked(sweep, study)
    done = [(trial.setting, trial.seed) for trial in trials]
    over = [trial.setting for trial in trials if trial.state != "finished"]
    known = study.settings()
    if asked.trials is None:
        wanted = [(setting, seed) for seed in sweep.seeds for setting in sweep.settings]
    else:
        wanted = [(setting, seed) for setting in known[: asked.trials] for seed in sweep.seeds]
    for setting, seed in wanted:
        if (setting, seed) not in done and setting not in over:
            return study.begin(setting, seed)
    if asked.trials is not None and len(known) < asked.trials:
        return study.draw(sweep.seeds[0], known)
    return None


def _asked(sweep: _Sweep, study: Study) -> list[Trial]:
    """The trials of this sweep: the study may hold other values and more seeds, from earlier ones.

    One that was stopped for a setting which is not of this sweep does not count.
    """
    asked = sweep.params.sweep
    settings = sweep.settings if asked.trials is None else study.settings()[: asked.trials]
    found = [trial for trial in study.trials() if trial.seed in sweep.seeds and trial.setting in settings]
    return [trial for trial in found if trial.state != "stopped" or trial.behind in settings]


def _with(params: Params, setting: Setting, seed: int) -> Params:
    return replaced(params, {**setting, "train.seed": seed})


def _name(opened: OpenTrial) -> str:
    return f"{describe(opened.setting)}, seed {opened.seed}"


def _line(trial: Trial) -> str:
    if trial.state != "finished":
        return f"{trial.state}, {trial.reason}"
    return f"{trial.bits:.1f} bits per row, MSE {trial.mse:.6f}, {trial.seconds:.0f} s"
