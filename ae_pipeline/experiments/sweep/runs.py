"""Each trial of a sweep in MLflow, as a child of one run for the sweep, in an experiment beside the trainings'.

While it goes, trials are logged as they begin and end. Tracking decides nothing: when the server is away, the sweep
goes on, and `complete` logs in the end whatever MLflow lacks, or says that it could not.
"""

import sys
from pathlib import Path
from typing import Any

from ae_pipeline.errors import TrackingError
from ae_pipeline.experiments.sweep.results import Outcome, Results, columns
from ae_pipeline.experiments.sweep.space import SECTIONS, Setting
from ae_pipeline.experiments.sweep.stopping import describe
from ae_pipeline.experiments.sweep.trial import State, Trial
from ae_pipeline.files import sha256_json
from ae_pipeline.operation.tracking.connection import connect
from ae_pipeline.operation.tracking.orphans import CLOSED_TAG, claim_run, close_orphans, process_tags
from ae_pipeline.operation.tracking.publish import experiment_id, log_params, log_values
from ae_pipeline.params import Params

SWEEP_TAG = "ae_pipeline.sweep"
"""Identity of the study that a sweep's run is of."""
TRIAL_TAG = "ae_pipeline.sweep_trial"
STATE_TAG = "ae_pipeline.sweep_state"
"""Tag with `finished`, `stopped` or `failed`; written last: a child run without it is not complete."""
PARENT_TAG = "mlflow.parentRunId"
_STATUS: dict[State, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class SweepRuns:
    """The runs of one study. A run that a killed sweep left is closed as KILLED, and its trial gets another."""

    def __init__(self, params: Params, root: Path, study: str, git: dict[str, Any]):
        self._params = params
        self._root = root
        self._study = study
        self._git = git
        self._experiment = ""
        self._parent = ""
        self._child: str | None = None
        self.is_away = False

    def begin(self) -> None:
        """Close what dead processes left, and open the sweep's run."""
        try:
            self._begin()
        except TrackingError as error:
            self._go_on_without(error)

    def start(self, params: Params, setting: Setting) -> None:
        """A trial begins; `params` are all of its parameters."""
        self._child = None
        if not self.is_away:
            try:
                with connect(self._params, self._root, "sweep") as (client, _):
                    self._child = self._create(client, params, setting)
            except TrackingError as error:
                self._go_on_without(error)

    def finish(self, trial: Trial) -> None:
        """A trial has a result."""
        if self._child and not self.is_away:
            try:
                with connect(self._params, self._root, "sweep") as (client, _):
                    _log(client, self._child, trial)
            except TrackingError as error:
                self._go_on_without(error)

    def interrupted(self) -> None:
        """The sweep ends in the middle of a trial."""
        if self._parent and not self.is_away:
            try:
                with connect(self._params, self._root, "sweep") as (client, _):
                    for run in filter(None, (self._child, self._parent)):
                        client.set_terminated(run, "KILLED")
            except TrackingError as error:
                self._go_on_without(error)

    def complete(self, trials: list[tuple[Params, Trial]], results: Results, files: list[Path]) -> None:
        """Make MLflow hold all of it: trials, metrics of the choice, reports. Raises TrackingError if it cannot."""
        if not self._parent:
            self._begin()
        with connect(self._params, self._root, "sweep") as (client, _):
            found = client.search_runs(
                [self._experiment], f"tags.`{PARENT_TAG}` = '{self._parent}'", max_results=50_000
            )
            known = {(run.data.tags.get(TRIAL_TAG), run.data.tags.get(STATE_TAG)) for run in found}
            for params, trial in trials:
                if (_identity(params, trial.setting), trial.state) not in known:
                    _log(client, self._create(client, params, trial.setting), trial)
            for path in files:
                client.log_artifact(self._parent, str(path))
            for name, outcome in (("smallest", results.smallest), ("knee", results.knee), ("best", results.best)):
                if outcome is not None:
                    _log_outcome(client, self._parent, name, outcome)
            client.set_terminated(self._parent, "FINISHED")

    def _begin(self) -> None:
        with connect(self._params, self._root, "sweep") as (client, uri):
            name = f"{self._params.tracking.experiment}-sweep"
            self._experiment = experiment_id(client, name, self._params, self._root, uri)
            close_orphans(client, self._experiment)
            found = client.search_runs([self._experiment], f"tags.`{SWEEP_TAG}` = '{self._study}'")
            if found:
                self._parent = str(found[0].info.run_id)
                claim_run(client, self._parent)
                client.update_run(self._parent, status="RUNNING")
            else:
                tags = {SWEEP_TAG: self._study, **self._tags()}
                run = client.create_run(self._experiment, tags=tags, run_name=f"sweep-{self._study[:7]}")
                self._parent = str(run.info.run_id)

    def _create(self, client: Any, params: Params, setting: Setting) -> str:
        tags = {PARENT_TAG: self._parent, TRIAL_TAG: _identity(params, setting), **self._tags()}
        name = f"{describe(setting)}, seed={params.train.seed}"
        run_id = str(client.create_run(self._experiment, tags=tags, run_name=name).info.run_id)
        log_params(client, run_id, params.used(*SECTIONS))
        return run_id

    def _tags(self) -> dict[str, str]:
        return {
            **process_tags(),
            "mlflow.source.name": "ae-pipeline sweep",
            "git_commit": self._git["commit"] or "",
            "git_dirty": str(self._git["dirty"]).lower(),
        }

    def _go_on_without(self, error: TrackingError) -> None:
        self.is_away = True
        print(f"the sweep goes on without MLflow until its end: {error}", file=sys.stderr)


def _identity(params: Params, setting: Setting) -> str:
    return sha256_json([setting, params.train.seed])[:16]


def _log(client: Any, run_id: str, trial: Trial) -> None:
    log_values(client, run_id, metrics={**trial.metrics, "seconds": trial.seconds}, curves=trial.history)
    if trial.reason:
        client.set_tag(run_id, CLOSED_TAG, trial.reason)
    client.set_tag(run_id, STATE_TAG, trial.state)
    client.set_terminated(run_id, _STATUS[trial.state])


def _log_outcome(client: Any, run_id: str, name: str, outcome: Outcome) -> None:
    assert outcome.bits
    client.set_tag(run_id, name, describe(outcome.setting))
    measured = {metric.name: outcome.mean(metric) for metric in columns(outcome.objective) if metric.of_means is None}
    found = {"bits_per_row": outcome.bits.mean, **measured}
    log_values(client, run_id, metrics={f"{name}_{metric}": value for metric, value in found.items()})
