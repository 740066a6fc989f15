"""No champion: has there never been one, or was it lost? Whoever asks for the champion asks here.

A champion is lost when its version or its alias was deleted, when the registered model was deleted or renamed (in
MLflow, or in params.yaml), or when the database was emptied. Then production must stop: with "no champion yet" it would
wait in silence, and the next challenger would take the place on the quality gate alone.
"""

import json
from pathlib import Path
from typing import Any

from ae_pipeline.errors import TrackingError, named
from ae_pipeline.operation.champion.history import DONE, champion_before, current, read_entries
from ae_pipeline.operation.tracking.connection import find_run, pages, versions_of
from ae_pipeline.params import Params

CHAMPION_TAG = "ae_pipeline.champion"
"""A tag of a run: the registered models whose champion its codec was, as a JSON list."""
MONITOR_TAG = "ae_pipeline.monitor"
"""A tag of a run with the drift of batches: registered model and version that encoded them, `name/3`."""
_ALL = 3  # mlflow.entities.ViewType.ALL: also what is in MLflow's trash


def check_not_lost(params: Params, root: Path, model: Any) -> None:
    """Raise TrackingError if this RegisteredModel had a champion. To be called where there is none."""
    found = _in_history(model) or (_in_mlflow(model) if model.client else None) or _in_stores(params, root)
    if found is None:
        return
    evidence, advice = found
    begin = "`ae-pipeline promote VERSION --why ...` begins anew"
    there = ", ".join(model.versions)
    begin = f"{begin} (there: {there})" if there else f"`ae-pipeline publish`, then {begin}"
    raise TrackingError(f"{model.name} has no champion, but there was one: {evidence}; {advice}{begin}")


def mark_champion(client: Any, name: str, run_id: str | None) -> None:
    """Let the run of a champion's training say so: that outlives the registered model."""
    run = find_run(client, run_id)
    names = _names(run.data.tags.get(CHAMPION_TAG)) if run else []
    if run and name not in names:
        client.set_tag(run_id, CHAMPION_TAG, json.dumps(sorted({*names, name})))


def _in_history(model: Any) -> tuple[str, str] | None:
    """The alias was taken from the last champion of the history."""
    moves = [entry for entry in model.entries if entry.state == DONE]
    last = next((entry for entry in reversed(moves) if entry.version is not None), None)
    if last is None:
        return None
    noticed = next((entry.at for entry in moves if entry.number > last.number), last.at)
    if last.version in model.versions:
        back = f"`ae-pipeline promote {last.version} --why ...` makes it champion again, "
        return f"version {last.version}, from which the alias was taken by hand (noticed {noticed})", back
    before = champion_before([entry for entry in moves if entry.number <= last.number])
    back = f"`ae-pipeline promote {before} --why ...` goes back to the one before, " if before in model.versions else ""
    return f"version {last.version}, which was deleted (noticed {noticed})", back


def _in_mlflow(model: Any) -> tuple[str, str] | None:
    """Runs of trainings that were champion and of monitored batches know of it, or the model was renamed."""
    client, name = model.client, model.name
    runs = _tagged_runs(client, CHAMPION_TAG)
    marked = [run for run in runs if name in _names(run.data.tags.get(CHAMPION_TAG))]
    renamed = _renamed(model, {run.info.run_id for run in marked})
    if renamed:
        return renamed
    if marked:
        return f"run {marked[0].info.run_id} trained it, and {name} does not know it any more", ""
    monitored = [run.data.tags[MONITOR_TAG] for run in _tagged_runs(client, MONITOR_TAG)]
    versions = sorted({tag.rpartition("/")[2] for tag in monitored if tag.rpartition("/")[0] == name})
    if versions:
        return f"batches that were encoded with version {', '.join(versions)} of it were monitored", ""
    return None


def _renamed(model: Any, run_ids: set[str]) -> tuple[str, str] | None:
    """Another registered model with a champion that was once one of this, or was trained on the same data."""
    data = {item.tags.get("data_digest") for item in model.versions.values()} - {None}
    for other in pages(model.client.search_registered_models):
        version = current(read_entries(other.tags)) if other.name != model.name else None
        if version is None:
            continue
        champion = versions_of(model.client, other.name).get(version)
        if champion is not None and (champion.run_id in run_ids or champion.tags.get("data_digest") in data):
            return (
                f"version {version} of {other.name}, which may be the same under another name",
                f"`tracking.registered_model: {other.name}` in params.yaml goes on with that one, ",
            )
    return None


def _in_stores(params: Params, root: Path) -> tuple[str, str] | None:
    """Only a champion's rows are in growing stores; each is called by its codec."""
    from ae_pipeline.operation.inbox.batches import growing_stores  # Arrow

    stores = [store.name for store in growing_stores(root / params.paths.growing)]
    if not stores:
        return None
    some = named(stores, 3)
    return f"{params.paths.growing} has rows that it encoded ({some}: each store is called by its codec)", ""


def _tagged_runs(client: Any, tag: str) -> list[Any]:
    experiments = [item.experiment_id for item in pages(client.search_experiments, view_type=_ALL)]
    if not experiments:
        return []
    query = f"tags.`{tag}` LIKE '%'"
    return list(pages(client.search_runs, experiments, query, run_view_type=_ALL))


def _names(tag: str | None) -> list[str]:
    try:
        names = json.loads(tag or "[]")
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
