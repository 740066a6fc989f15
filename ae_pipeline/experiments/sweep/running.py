"""The sweep: which trial is next, until none is missing.

A grid goes seed by seed, so that every setting has a value early; settings that Optuna draws get all their seeds at
once, so that the next draw knows them. A setting with a trial that was stopped or failed is not tried further.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import open_split
from ae_pipeline.errors import ConfigError, SweepError
from ae_pipeline.evaluation.measures.metrics import METRICS, Metric
from ae_pipeline.experiments.sweep.results import Results, summarise
from ae_pipeline.experiments.sweep.runs import SweepRuns
from ae_pipeline.experiments.sweep.space import Setting, combinations, describe, parse_space, with_setting
from ae_pipeline.experiments.sweep.stopping import StopRule
from ae_pipeline.experiments.sweep.study import OpenTrial, Study, open_study, study_digest
from ae_pipeline.experiments.sweep.trial import Trial, run_trial
from ae_pipeline.files import locked_folder
from ae_pipeline.params import SWEEPS, Params
from ae_pipeline.provenance import git_state
from ae_pipeline.training.loop import Epoch


@dataclass(frozen=True)
class Swept:
    """A sweep's results; `missing` trials were not begun before the time was over."""

    results: Results
    missing: int
    runs: SweepRuns


@dataclass(frozen=True)
class _Sweep:
    """What does not change while it goes."""

    params: Params
    settings: list[Setting]
    """All settings of a grid; none where they are drawn."""
    splits: tuple[SampleSet, SampleSet]
    git: dict[str, Any]
    rule: StopRule
    objective: Metric

    @property
    def seeds(self) -> range:
        first = self.params.train.seed
        return range(first, first + self.params.sweep.seeds)

    @property
    def total(self) -> int:
        """Trials, if none is stopped."""
        return len(self.seeds) * (self.params.sweep.trials or len(self.settings))


def run_sweep(params: Params, root: Path, timeout: float = float("inf")) -> Swept:
    """Do the trials that `params.sweep` asks for and that no earlier run has done.

    After `timeout` seconds no further one begins. Raises ConfigError before any training for a space that cannot be
    tried, TargetError when another process is at the same study. MLflow is completed by the caller.
    """
    if params.codec.family == "context":
        raise ConfigError(
            "a sweep looks for the smallest autoencoder within a tolerance, but codec.family is context, whose error "
            "is set by codec.max_error; set it to autoencoder and encode.layout to binary, or compare context codecs "
            "by `ae-pipeline bench`"
        )
    space = parse_space(params.sweep.space, params, params.sweep.trials)
    prepared = root / params.paths.prepared
    splits = open_split(prepared, "train"), open_split(prepared, "validation")
    metric, limit = tolerance(params)
    rule = StopRule(params.sweep.margin, limit, of_mse=metric.name == "mse")
    grid = params.sweep.trials is None
    sweep = _Sweep(params, combinations(space) if grid else [], splits, git_state(root), rule, metric)
    digest = study_digest(params, space, splits, metric, grid=grid)
    folder = root / params.paths.work / SWEEPS / digest[:16]
    runs = SweepRuns(params, root, digest, sweep.git)
    with locked_folder(folder), open_study(folder / "optuna.db", space, rule.identity, metric, grid=grid) as study:
        runs.begin()
        missing = _run(sweep, study, runs, folder / "trial", time.monotonic() + timeout)
        return Swept(summarise(_asked(sweep, study), limit, metric.name), missing, runs)


def tolerance(params: Params) -> tuple[Metric, float | None]:
    """The metric that settings are compared by, and the limit on it; a PSNR is an MSE."""
    asked = params.sweep
    if asked.min_psnr is not None:
        return METRICS["mse"], 10 ** (-asked.min_psnr / 10)
    return next(((METRICS[limit.metric], limit.value) for limit in asked.limits), (METRICS["mse"], None))


def _run(sweep: _Sweep, study: Study, runs: SweepRuns, work: Path, end: float) -> int:
    """Returns how many trials are missing."""
    done = len(_asked(sweep, study))
    with tqdm(total=sweep.total, initial=done, unit="trial", desc="sweep", disable=None) as bar:
        while (opened := _next(sweep, study)) is not None:
            if time.monotonic() > end:
                study.give_up(opened)
                return sweep.total - len(_asked(sweep, study))
            params = with_setting(sweep.params, opened.setting, opened.seed)
            watch = _watch(sweep.rule, params, opened, _asked(sweep, study), bar)
            try:
                runs.start(opened.setting, opened.seed)
                trial = run_trial(params, opened.setting, sweep.splits, work, sweep.git, watch)
                _check_objective(sweep, trial)
                study.finish(opened, trial)
                runs.finish(trial)
            except BaseException:  # Ctrl-C, too: the next sweep does the trial again
                study.give_up(opened)
                runs.interrupted()
                raise
            bar.write(trial.describe(), file=sys.stderr)  # what is printed may be JSON
            bar.update()
        found = len(study.settings())
        if found < (sweep.params.sweep.trials or 0):
            bar.write(f"Optuna found no more than {found} settings in this space", file=sys.stderr)
    return 0


def _check_objective(sweep: _Sweep, trial: Trial) -> None:
    name = sweep.objective.name
    if trial.state == "finished" and trial.metrics.get(name) is None:
        raise SweepError(
            f"{name} has no value for the validation rows, so sweep.{sweep.objective.limit} cannot be kept; give a "
            "tolerance on another metric"
        )


def _watch(
    rule: StopRule, params: Params, opened: OpenTrial, trials: list[Trial], bar: "tqdm[Any]"
) -> Callable[[list[Epoch]], None]:
    """What is called after every epoch: shows it, and stops a trial that cannot win."""
    finished = [trial for trial in trials if trial.state == "finished"]
    name = f"{describe(opened.setting)}, seed {opened.seed}"

    def watch(history: list[Epoch]) -> None:
        losses = [epoch.validation_loss for epoch in history]
        bar.set_postfix_str(f"{name}, epoch {len(history)}/{params.train.epochs}, loss {losses[-1]:.5f}")
        rule.check(params, opened.setting, losses, finished)

    return watch


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
