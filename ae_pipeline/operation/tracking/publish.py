"""What came out of the stages, into MLflow.

`publish` makes MLflow hold exactly one complete run for the training that is in the workspace, found by content: the
fingerprint of train's entry in dvc.lock. So it works for stages that DVC restored from its cache and for an empty
database, and does nothing twice. The computing stages know nothing of it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ae_pipeline.errors import TrackingError, without_secrets
from ae_pipeline.operation.tracking.connection import artifact_location, connect
from ae_pipeline.operation.tracking.orphans import TRAINING_TAG, claim_run, close_orphans, process_tags
from ae_pipeline.operation.tracking.workspace import Workspace, read_workspace
from ae_pipeline.params import Params

CHALLENGER = "challenger"
PUBLISHED_TAG = "ae_pipeline.published"
LATER_TAG = "later."


@dataclass(frozen=True)
class Published:
    """What `publish` did."""

    uri: str
    experiment: str
    experiment_id: str
    run_id: str
    model: str
    version: str
    outcome: str
    """What was done: `created` for a new run; for one that was there, with commas, `updated`, `registered` (a new
    version of the model), `challenger moved`, or `unchanged`."""

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.outcome}: run {self.run_id} in experiment {self.experiment}, {self.model} version {self.version} "
            f"is {CHALLENGER} ({self.uri})"
        )


def publish(params: Params, root: Path) -> Published:
    """Log the workspace's training to MLflow and point `challenger` at its model version.

    A run that a crash left half-logged is completed; those of other trainings are closed. Raises TrackingError when
    there is nothing to log or the server cannot be reached; nothing else depends on it.
    """
    workspace = read_workspace(params, root)
    with connect(params, root) as (client, uri):
        experiment = experiment_id(client, params.tracking.experiment, params, root, uri)
        found = client.search_runs([experiment], f"tags.`{TRAINING_TAG}` = '{workspace.training}'")
        # Oldest first, should two machines have published the same training at once.
        runs = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
        run = runs[0] if runs else _create_run(client, experiment, workspace)
        run_id = run.info.run_id
        is_new = run.data.tags.get(PUBLISHED_TAG) != workspace.digest or _lacks_files(client, run_id, workspace)
        if runs and (is_new or run.info.status == "RUNNING"):
            claim_run(client, run_id)
        close_orphans(client, experiment)
        if is_new:
            _log_training(client, run, workspace)
            _log_results(client, run, workspace)
        version, was_registered = _model_version(client, run_id, workspace)
        was_moved = _point_challenger(client, params.registered_model, version)
        client.set_tag(run_id, PUBLISHED_TAG, workspace.digest)
        client.set_terminated(run_id, "FINISHED", run.info.end_time)
        return Published(
            uri=without_secrets(uri),
            experiment=params.tracking.experiment,
            experiment_id=experiment,
            run_id=run_id,
            model=params.registered_model,
            version=version,
            outcome=_outcome(bool(runs), is_new, was_registered, was_moved),
        )


def _outcome(was_there: bool, is_new: bool, was_registered: bool, was_moved: bool) -> str:
    if not was_there:
        return "created"
    # A new version is the challenger always.
    done = {"updated": is_new, "registered": was_registered, "challenger moved": was_moved and not was_registered}
    return ", ".join(word for word, happened in done.items() if happened) or "unchanged"


def _lacks_files(client: Any, run_id: str, workspace: Workspace) -> bool:
    """Whether the run has lost a file or folder that was attached to it."""
    there = {item.path for item in client.list_artifacts(run_id)}
    return not {folder or path.name for path, folder in workspace.files()} <= there


def _point_challenger(client: Any, name: str, version: str) -> bool:
    """Whether `challenger` was not at that version already."""
    before = client.get_registered_model(name).aliases.get(CHALLENGER)
    if before is not None and str(before) == version:
        return False
    client.set_registered_model_alias(name, CHALLENGER, version)
    return True


def _create_run(client: Any, experiment: str, workspace: Workspace) -> Any:
    header = workspace.header
    git = header.provenance["git"]
    tags = {
        TRAINING_TAG: workspace.training,
        **process_tags(),
        "mlflow.source.name": "dvc repro",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": git["commit"] or "",
        "git_commit": git["commit"] or "",
        "git_dirty": str(git["dirty"]).lower(),
        "data_digest": header.provenance["data"]["digest"],
        "codec_fingerprint": header.fingerprint,
        **{f"dvc.{name}": digest for name, digest in workspace.dvc_digests.items()},
    }
    return client.create_run(experiment, tags=tags, run_name=_run_name(workspace))


def _log_training(client: Any, run: Any, workspace: Workspace) -> None:
    """Parameters, curves and data sets; logging the same again changes nothing."""
    from mlflow.entities import Metric, Param

    run_id, time_ms = run.info.run_id, run.info.start_time
    logged = run.data.params
    values = {name: str(value) for name, value in workspace.trained_with.items()}
    client.log_batch(run_id, params=[Param(name, value) for name, value in values.items() if name not in logged])
    # MLflow never changes a parameter. Those of evaluate and encode can change without a new training.
    for name in values.keys() & logged.keys():
        if values[name] != logged[name]:
            client.set_tag(run_id, f"{LATER_TAG}{name}", values[name])
    curves = [
        Metric(name, line[name], time_ms, int(line["epoch"]))
        for line in workspace.history
        for name in line
        if name != "epoch"
    ]
    for start in range(0, len(curves), 1000):
        client.log_batch(run_id, metrics=curves[start : start + 1000])
    client.log_inputs(run_id, list(_data_sets(workspace)))


def _log_results(client: Any, run: Any, workspace: Workspace) -> None:
    """Final metrics and files: what may change without a new training (evaluation, stores)."""
    from mlflow.entities import Metric

    run_id = run.info.run_id
    now = int(time.time() * 1000)
    numbers = {name: value for name, value in workspace.metrics.items() if value is not None}
    client.log_batch(run_id, metrics=[Metric(name, float(value), now, 0) for name, value in numbers.items()])
    client.set_tag(run_id, "mlflow.note.content", workspace.describe())
    for path, folder in workspace.files():
        client.log_artifact(run_id, str(path), folder)


def log_values(
    client: Any, run_id: str, *, metrics: dict[str, float | None], curves: dict[str, list[float]] | None = None
) -> None:
    """Final metrics, and curves with one value per epoch, into any run."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    found = [Metric(name, float(value), now, 0) for name, value in metrics.items() if value is not None]
    for name, values in (curves or {}).items():
        found += [Metric(name, value, now, epoch) for epoch, value in enumerate(values, start=1)]
    for start in range(0, len(found), 1000):
        client.log_batch(run_id, metrics=found[start : start + 1000])


def log_params(client: Any, run_id: str, params: dict[str, Any]) -> None:
    """Parameters of a new run; MLflow never changes one."""
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])


def _data_sets(workspace: Workspace) -> Iterator[Any]:
    """The splits as MLflow inputs: by name and digest, without the data."""
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    for split, digest in workspace.data_digests.items():
        source = HTTPDatasetSource(f"file://{workspace.prepared / split}")
        data_set = MetaDataset(source, name=f"{workspace.params.source.name}-{split}", digest=digest[:36])
        yield DatasetInput(data_set._to_mlflow_entity(), [InputTag("mlflow.data.context", split)])


def _model_version(client: Any, run_id: str, workspace: Workspace) -> tuple[str, bool]:
    """The registered version of this run's codec, and whether it had to be logged and registered."""
    name = workspace.params.registered_model
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    number = max((int(version.version) for version in versions), default=None)
    version = str(number or _register(client, name, _log_model(run_id, workspace)))
    tags = {
        "codec_fingerprint": workspace.header.fingerprint,
        "data_digest": workspace.header.provenance["data"]["digest"],
        "mse": f"{workspace.metrics['mse']:.6g}",
        "bits_per_row": f"{workspace.metrics['bits_per_row']:.6g}",
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    return version, number is None


def _register(client: Any, name: str, model: Any) -> int | str:
    """A new version of the registered model, which is made when there is none."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, model.model_uri, model.run_id, model_id=model.model_id)
    return version.version


class _CodecFlavor:
    """What `Model.log` asks of an MLflow flavor."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace

    def save_model(self, path: str, mlflow_model: Any, **options: Any) -> None:  # noqa: ARG002 (for `Model.log` itself)
        """A pyfunc model from code, with the codec folder as its artifact: no pickle."""
        import mlflow
        from mlflow.models import ModelSignature

        from ae_pipeline.operation.tracking import pyfunc_model

        code = Path(pyfunc_model.__file__)
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            python_model=str(code),
            artifacts={"codec": str(self._workspace.codec)},
            code_paths=[str(code.parents[2])],  # the package, which the file imports
            signature=ModelSignature.from_dict(pyfunc_model.signature(self._workspace.header)),
            input_example=self._workspace.input_example(),
            pip_requirements=pyfunc_model.requirements(),
        )


def _log_model(run_id: str, workspace: Workspace) -> Any:
    """Log the model; returns MLflow's ModelInfo.

    As `mlflow.pyfunc.log_model` does, but for one step: that loads the model again, to try its input example.
    """
    import mlflow
    from mlflow.models import Model

    with mlflow.start_run(run_id=run_id, nested=True):
        return Model.log(
            artifact_path=None,
            name="codec",
            flavor=_CodecFlavor(workspace),
            flavor_name="pyfunc.ModelFromCode",
            validate_serving_input=False,
        )


def experiment_id(client: Any, name: str, params: Params, root: Path, uri: str) -> str:
    """Id of the experiment of that name, which is made when there is none. Raises TrackingError if it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise TrackingError(f"experiment {name} is in MLflow's trash; restore it there or set tracking.experiment")
        return found.experiment_id
    return client.create_experiment(name, artifact_location(uri, params, root))


def _run_name(workspace: Workspace) -> str:
    params = workspace.params
    return (
        f"{params.model.name}-{params.train.latent_size}x{params.quantiser.levels}-{workspace.header.fingerprint[:7]}"
    )
