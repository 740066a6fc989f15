"""The registered model in MLflow as the champion's history sees it: settled, and moved in recorded steps."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ae_pipeline.errors import TrackingError
from ae_pipeline.operation.champion.history import (
    ABANDONED,
    DONE,
    MOVED_BY_HAND,
    PENDING,
    UNKNOWN,
    Entry,
    current,
    now,
    read_entries,
)
from ae_pipeline.operation.champion.lost import check_not_lost, mark_champion
from ae_pipeline.operation.tracking.connection import connect, copy_codec, find_run, store_exists, tracking_uri
from ae_pipeline.operation.tracking.publish import CHALLENGER
from ae_pipeline.params import Params

CHAMPION = "champion"


class RegisteredModel:
    """The registered model inside an open connection, settled."""

    def __init__(self, client: Any, uri: str, name: str):
        self.client, self.uri, self.name = client, uri, name
        self._challenger = client.get_registered_model(name).aliases.get(CHALLENGER)
        self.entries = settle(client, name)

    @property
    def champion(self) -> str | None:
        """The version that has the alias. Whether there never was one, `Registry.champion` says."""
        return current(self.entries)

    @property
    def challenger(self) -> str:
        """The version that was published last. Raises TrackingError if there is none."""
        if self._challenger is None:
            raise TrackingError(
                f"{self.name} has no version with the alias {CHALLENGER}; `ae-pipeline publish` gives it to the "
                "training that is in this folder (`dvc repro` makes one)"
            )
        return str(self._challenger)

    def version(self, number: str) -> Any:
        """MLflow's entity. Raises TrackingError if there is none."""
        found = {str(item.version): item for item in self.client.search_model_versions(f"name = '{self.name}'")}
        if number not in found:
            there = ", ".join(sorted(found, key=int)) or "none"
            raise TrackingError(
                f"{self.name} has no version {number} (there: {there}), it may have been deleted; choose another with "
                "`ae-pipeline promote VERSION`"
            )
        return found[number]

    def fetch(self, number: str, target: Path) -> Path:
        """The version's codec folder, copied below `target`."""
        self.version(number)
        return copy_codec(self.client, self.uri, f"models:/{self.name}/{number}", target)

    def move(self, number: str, action: str, *, by: str, why: str, verdict: str | None = None) -> Entry:
        """Give a version the alias: entry, alias, entry."""
        if number == self.champion:
            raise TrackingError(f"version {number} of {self.name} is champion already; there is nothing to do")
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(number, Path(folder))  # a champion whose codec cannot be fetched would stop production
        entry = Entry(
            number=_next_number(self.entries),
            version=number,
            previous=self.champion,
            action=action,
            at=now(),
            by=by,
            why=why,
            run_id=self.version(number).run_id or None,
            verdict=verdict,
            state=PENDING,
        )
        self.client.set_registered_model_tag(self.name, entry.key, entry.value)
        self.client.set_registered_model_alias(self.name, CHAMPION, number)
        done = replace(entry, state=DONE)
        self.client.set_registered_model_tag(self.name, done.key, done.value)
        mark_champion(self.client, self.name, done.run_id)
        self.entries.append(done)
        return done

    def run_of(self, number: str) -> Any | None:
        """MLflow's run of a version; None where there is none, or it was deleted."""
        run = find_run(self.client, self.version(number).run_id or None)
        return run if run is not None and run.info.lifecycle_stage == "active" else None


@dataclass(frozen=True)
class Registry:
    """What an open connection found."""

    params: Params
    root: Path
    uri: str
    client: Any | None
    """The client; None where there is no database yet."""
    model: RegisteredModel | None
    """The model; None where nothing has been published under this name."""

    @property
    def champion(self) -> str | None:
        """The version in production; None before the first promotion. Raises TrackingError if it was lost."""
        champion = self.model.champion if self.model else None
        if champion is None:
            check_not_lost(self.params, self.root, self.client, self.model)
        return champion


@contextmanager
def open_model(params: Params, root: Path, command: str) -> Iterator[tuple[RegisteredModel, Registry]]:
    """Connect and settle; `command` is what an error says to run again. Raises TrackingError if nothing is there."""
    with find_model(params, root, command) as found:
        if found.model is None:
            assert found.champion is None  # or it was lost
            raise TrackingError(
                f"no registered model {params.registered_model} at {found.uri}; `ae-pipeline publish` makes it of the "
                "training that is in this folder (`dvc repro` makes one)"
            )
        yield found.model, found


@contextmanager
def find_model(params: Params, root: Path, command: str) -> Iterator[Registry]:
    """What `open_model` yields as found, also where nothing has been published."""
    if not store_exists(params, root):
        # Looking for a champion makes no database.
        yield Registry(params, root, tracking_uri(params, root), None, None)
        return
    with connect(params, root, command) as (client, uri):
        name = params.registered_model
        found = client.search_registered_models(f"name = '{name}'")
        yield Registry(params, root, uri, client, RegisteredModel(client, uri, name) if found else None)


def settle(client: Any, name: str) -> list[Entry]:
    """Bring the history of a registered model in line with its alias, and return it.

    A pending entry is done if its version has the alias, else abandoned. An alias that is not where the history left
    it was moved by hand: that is recorded, and stays.
    """
    registered = client.get_registered_model(name)
    entries = read_entries(registered.tags)
    alias = registered.aliases.get(CHAMPION)
    champion = None if alias is None else str(alias)
    for place, entry in enumerate(entries):
        if entry.state == PENDING:
            reached = entry.version == champion and place == len(entries) - 1
            entries[place] = replace(entry, state=DONE if reached else ABANDONED)
            client.set_registered_model_tag(name, entry.key, entries[place].value)
    before = current(entries)
    if champion != before:
        entry = Entry(
            number=_next_number(entries),
            version=champion,
            previous=before,
            action=MOVED_BY_HAND,
            at=now(),
            by=UNKNOWN,
            why="the alias was removed, or its version deleted" if champion is None else "the alias was set in MLflow",
            run_id=client.get_model_version(name, champion).run_id or None if champion else None,
            verdict=None,
            state=DONE,
        )
        client.set_registered_model_tag(name, entry.key, entry.value)
        entries.append(entry)
    if champion is not None:
        mark_champion(client, name, _run_of(entries))
    return entries


def _run_of(entries: list[Entry]) -> str | None:
    return next((entry.run_id for entry in reversed(entries) if entry.state == DONE), None)


def _next_number(entries: list[Entry]) -> int:
    return max((entry.number for entry in entries), default=0) + 1
