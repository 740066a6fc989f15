"""What was tried, in Optuna's SQLite database: a sweep that was killed goes on with what is missing.

A study belongs to what decides its results: data, parameters, versions. Grids over the same parameters share one, so
that more values or more seeds only train what is new. Only this module imports Optuna.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from ae_pipeline import __version__
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import SweepError, first_line
from ae_pipeline.evaluation.measures.metrics import Metric
from ae_pipeline.experiments.sweep.space import SECTIONS, Dimension, Setting
from ae_pipeline.experiments.sweep.trial import Trial
from ae_pipeline.files import canonical_json, sha256_json
from ae_pipeline.params import Params

_TRIAL, _SETTING, _SEED = "trial", "setting", "seed"
# Settings that were drawn already, in a row, after which there is taken to be no other.
_MOST_REPEATS = 50


@dataclass(frozen=True)
class OpenTrial:
    """A trial that has begun: what is trained, with which seed; `handle` is Optuna's own."""

    handle: optuna.Trial
    setting: Setting
    seed: int


def study_digest(
    params: Params, space: list[Dimension], splits: tuple[SampleSet, SampleSet], objective: Metric, *, grid: bool
) -> str:
    """SHA-256 (hex) of what decides the results of a study's trials, their settings and seeds aside."""
    swept = {dimension.path for dimension in space}
    if "model.name" in swept:  # options of every model count
        fixed: dict[str, Any] = {"model": params.model.model_dump(), **params.used(*SECTIONS[1:])}
    else:
        fixed = params.used(*SECTIONS)
    ignored = {*swept, "train.seed", "encode.data_sets"}
    # Optuna refuses other choices under the same name. Numbers of a grid may grow.
    bound = [item for item in space if not (grid and item.is_numeric)]
    return sha256_json(
        {
            "data": [split.digest for split in splits],
            "fixed": {name: value for name, value in fixed.items() if name not in ignored},
            "paths": sorted(swept),
            "bound": sorted([item.path, list(item.values), item.is_range] for item in bound),
            "grid": grid,
            **({} if objective.name == "mse" else {"objective": objective.name}),
            "versions": [__version__, version("torch")],
        }
    )


class Study:
    """Trials of one study. One process at a time: the caller holds a lock."""

    def __init__(
        self, study: optuna.Study, space: list[Dimension], rules: list[float | None], objective: Metric, *, grid: bool
    ):
        self._study = study
        self._rules = rules
        self._objective = objective
        self._distributions = {item.path: _distribution(item, grid=grid) for item in space}
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            # Its process is gone: it is done again.
            study.tell(trial.number, state=TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """The trials with a result that counts, in the order of their beginning; one for each setting and seed."""
        found: dict[bytes, Trial] = {}
        for item in self._study.get_trials(deepcopy=False):
            if _TRIAL not in item.user_attrs:
                continue
            trial = Trial(**item.user_attrs[_TRIAL])
            key = canonical_json([trial.setting, trial.seed])
            known = found.get(key)
            if (trial.state != "stopped" or trial.rules == self._rules) and (not known or known.state != "finished"):
                found[key] = trial
        return list(found.values())

    def settings(self) -> list[Setting]:
        """Every setting that was begun, in that order, with a result or interrupted."""
        found: list[Setting] = []
        for item in self._study.get_trials(deepcopy=False):
            setting = item.user_attrs.get(_SETTING)
            if setting is not None and setting not in found:
                found.append(setting)
        return found

    def begin(self, setting: Setting, seed: int) -> OpenTrial:
        """A trial of this setting."""
        values = {path: _to_optuna(self._distributions[path], value) for path, value in setting.items()}
        self._study.enqueue_trial(values, user_attrs={_SETTING: setting, _SEED: seed})
        trial = self._study.ask(self._distributions)
        # One that was enqueued by a process which died before it began comes first.
        return OpenTrial(trial, trial.user_attrs[_SETTING], trial.user_attrs[_SEED])

    def draw(self, seed: int, known: list[Setting]) -> OpenTrial | None:
        """A trial of a setting that Optuna proposes and that is not known; None if it finds no other."""
        for _ in range(_MOST_REPEATS):
            trial = self._study.ask(self._distributions)
            setting = {path: _from_optuna(item, trial.params[path]) for path, item in self._distributions.items()}
            opened = OpenTrial(trial, setting, seed)
            if setting not in known:
                trial.set_user_attr(_SETTING, setting)
                return opened
            self.give_up(opened)
        return None

    def finish(self, opened: OpenTrial, trial: Trial) -> None:
        """Write down what came out; from here on it is not done again."""
        opened.handle.set_user_attr(_TRIAL, asdict(replace(trial, rules=self._rules)))
        if trial.state == "finished":
            loss = self._objective.loss(float(trial.metrics[self._objective.name] or 0.0))
            self._study.tell(opened.handle, [trial.bits, loss])
        else:
            self._study.tell(opened.handle, state=TrialState.PRUNED if trial.state == "stopped" else TrialState.FAIL)

    def give_up(self, opened: OpenTrial) -> None:
        """The trial was interrupted: it has to be done again."""
        # Ctrl-C may come when it has been told already.
        self._study.tell(opened.handle, state=TrialState.FAIL, skip_if_finished=True)


@contextmanager
def open_study(
    path: Path, space: list[Dimension], rules: list[float | None], objective: Metric, *, grid: bool
) -> Iterator[Study]:
    """The study in this SQLite file, which is made if there is none. Raises SweepError if it cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = _storage(path)
        try:
            study = optuna.create_study(
                storage=storage, study_name="sweep", directions=["minimize", "minimize"], load_if_exists=True
            )
            # Another seed each time: with the same one, the first draws of a resumed sweep would be those it has.
            study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials(deepcopy=False)))
            yield Study(study, space, rules, objective, grid=grid)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _unusable(path, error) from None


def _storage(path: Path) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
    except RuntimeError as error:  # of another version of Optuna
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> SweepError:
    return SweepError(f"cannot use {path}: {first_line(error)[:300]}; remove its folder to begin the sweep anew")


def _distribution(dimension: Dimension, *, grid: bool) -> BaseDistribution:
    """Numbers of a grid as the interval that they are in, which may grow later; other lists as choices."""
    if not dimension.is_range and not (grid and dimension.is_numeric):
        return CategoricalDistribution([canonical_json(value).decode() for value in dimension.values])
    low, high = min(dimension.values), max(dimension.values)
    # Sizes and weights differ by factors.
    log = dimension.is_range and low > 0
    if all(isinstance(value, int) for value in dimension.values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _to_optuna(distribution: BaseDistribution, value: Any) -> Any:
    return canonical_json(value).decode() if isinstance(distribution, CategoricalDistribution) else value


def _from_optuna(distribution: BaseDistribution, value: Any) -> Any:
    return json.loads(value) if isinstance(distribution, CategoricalDistribution) else value
