"""Flow `encode_new`: encode what is new in the inbox with the champion, into its growing store.

By hand: `python -m flows.encode_new`
"""

import tempfile
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from ae_pipeline.operation.champion.moves import champion_version
from ae_pipeline.operation.inbox.batches import InboxRun
from ae_pipeline.operation.inbox.files.names import shown
from ae_pipeline.operation.inbox.run import encode_inbox
from ae_pipeline.operation.tracking.connection import fetch_codec, tracking_uri
from ae_pipeline.params import Params, load_params
from flows import alerts, artifacts
from flows.plain_errors import explain_parameters, run_by_hand
from flows.progress import Progress
from flows.run_records import begin

_TWO_HOURS = 7200
_LOGGED, _SHOWN = 100, 1000  # files, in the log for each kind, and in an artifact
_TOLD = 3  # files that an alert names


@flow(
    name="encode_new",
    timeout_seconds=_TWO_HOURS,
    persist_result=False,
    result_serializer="json",
    on_completion=[alerts.tell],
    on_failure=[alerts.tell],
    on_crashed=[explain_parameters, alerts.tell],
)
def encode_new(workspace: Path = Path()) -> Any:
    """Take the files that are new in params.yaml's inbox; bad ones go to its quarantine. The state names all not taken.

    Args:
        workspace: The checkout: the folder with params.yaml.

    """
    begin()
    params = load_params(workspace / "params.yaml")
    version = champion_version(params, workspace)
    if version is None:
        return Completed(name="Skipped", message=f"{params.registered_model} has no champion yet; promote one first")
    run = _encode(params, workspace, version)
    if run.quarantined:
        alerts.note(alerts.QUARANTINED, _told(run.quarantined))
    for what, files in (("in quarantine", run.quarantined), ("not encoded", run.failed), ("waiting", run.why_waiting)):
        for file, reason in list(files.items())[:_LOGGED]:
            get_run_logger().warning("%s is %s: %s", file, what, reason)
        if len(files) > _LOGGED:
            get_run_logger().warning("and %s more files are %s", len(files) - _LOGGED, what)
    if run.colour_to_grey:
        get_run_logger().warning("%s image(s) were converted from colour to grey", run.colour_to_grey)
    if run.transparency_dropped:
        get_run_logger().warning("the transparency of %s image(s) was dropped", run.transparency_dropped)
    if run.why_not_joined:
        get_run_logger().warning("small parts of the store were not joined: %s", run.why_not_joined)
    _show(run, params, workspace, version)
    return Completed(message=run.summary())


def _told(quarantined: dict[str, str]) -> str:
    some = "; ".join(f"{file}: {reason}" for file, reason in list(quarantined.items())[:_TOLD])
    more = f"; and {len(quarantined) - _TOLD:,} more" if len(quarantined) > _TOLD else ""
    return f"{len(quarantined):,} file(s) could not be used and are in quarantine: {some}{more}"


@task(
    name="encode inbox",
    task_run_name="encode inbox",
    cache_policy=NO_CACHE,
    persist_result=False,
    result_serializer="json",
)
def _encode(params: Params, workspace: Path, version: str) -> InboxRun:
    """The codec's files are taken from the model version; none of its code is run."""
    with tempfile.TemporaryDirectory() as folder:
        codec = fetch_codec(f"models:/{params.registered_model}/{version}", params, workspace, Path(folder))
        told = Progress("encode-new-progress", "encode inbox")
        run = encode_inbox(params, workspace, codec, told, told.begin)
        told.end()
        return run


def _show(run: InboxRun, params: Params, workspace: Path, version: str) -> None:
    artifacts.values_table(
        run.statistics(), "encode-new-batch", f"Encoded with {params.registered_model} version {version}"
    )
    links = [f"- {artifacts.model_link(tracking_uri(params, workspace), params.registered_model, version)}"]
    links.append(f"- store `{shown(str(Path(run.store).resolve()))}`")
    artifacts.markdown("\n".join(links), "encode-new-links", "Where the results are")
    if run.quarantined:
        rows = [{"file": file, "reason": reason} for file, reason in run.quarantined.items()]
        artifacts.rows_table(rows, "encode-new-quarantine", "Files that could not be used")
    others = {"failed": run.failed, "waiting": run.why_waiting, "left alone": run.left_alone}
    rows = [{"file": file, "is": what, "why": why} for what, files in others.items() for file, why in files.items()]
    if rows:
        artifacts.rows_table(rows[:_SHOWN], "encode-new-not-taken", "Files that are not in a store, nor in quarantine")


if __name__ == "__main__":
    run_by_hand(encode_new)
