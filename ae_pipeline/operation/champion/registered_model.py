"""The registered model in MLflow as the champion's history sees it: settled, and moved in recorded steps."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
    next_entry,
    read_entries,
)
from ae_pipeline.operation.champion.lost import check_not_lost, mark_champion
from ae_pipeline.operation.tracking.connection import connect, copy_codec, store_exists, tracking_uri, versions_of
from ae_pipeline.operation.tracking.publish import CHALLENGER
from ae_pipeline.params import Params

CHAMPION = "champion"


class RegisteredModel:
    """The registered model inside an open connection, settled.

    `client` is None where there is no database yet; `exists` is False where nothing was published under this name.
    """

    def __init__(self, params: Params, root: Path, client: Any, uri: str):
        self.client, self.uri, self.name = client, uri, params.registered_model
        self._params, self._root = params, root
        found = client.search_registered_models(f"name = '{self.name}'") if client else []
        self.exists = bool(found)
        self.versions = versions_of(client, self.name) if client else {}
        self._challenger = found[0].aliases.get(CHALLENGER) if found else None
        self.entries = settle(client, found[0]) if found else []

    @property
    def champion(self) -> str | None:
        """The version in production; None before the first promotion. Raises TrackingError if it was lost."""
        version = current(self.entries)
        if version is None:
            check_not_lost(self._params, self._root, self)
        return version

    @property
    def challenger(self) -> str:
        """The version that was published last. Raises TrackingError if there is none."""
        if self._challenger is None:
            raise TrackingError(
                f"{self.name} has no version with the alias {CHALLENGER}; `ae-pipeline publish` gives it to the "
                "training that is in this folder (`dvc repro` makes one)"
            )
        return str(self._challenger)

    @property
    def has_challenger(self) -> bool:
        """Whether anything was published."""
        return self._challenger is not None

    def version(self, number: str) -> Any:
        """MLflow's entity. Raises TrackingError if there is none."""
        if number not in self.versions:
            there = ", ".join(self.versions) or "none"
            raise TrackingError(
                f"{self.name} has no version {number} (there: {there}), it may have been deleted; choose another with "
                "`ae-pipeline promote VERSION`"
            )
        return self.versions[number]

    def fetch(self, number: str, target: Path) -> Path:
        """The version's codec folder, copied below `target`."""
        self.version(number)
        return copy_codec(self.uri, f"models:/{self.name}/{number}", target)

    def move(self, number: str, action: str, *, by: str, why: str, verdict: str | None = None) -> Entry:
        """Give a version the alias: entry, alias, entry."""
        if number == current(self.entries):
            raise TrackingError(f"version {number} of {self.name} is champion already; there is nothing to do")
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(number, Path(folder))  # a champion whose codec cannot be fetched would stop production
        run_id = self.version(number).run_id or None
        entry = next_entry(self.entries, number, action, by=by, why=why, run_id=run_id, verdict=verdict, state=PENDING)
        self.client.set_registered_model_tag(self.name, entry.key, entry.value)
        self.client.set_registered_model_alias(self.name, CHAMPION, number)
        done = replace(entry, state=DONE)
        self.client.set_registered_model_tag(self.name, done.key, done.value)
        mark_champion(self.client, self.name, done.run_id)
        self.entries.append(done)
        return done


@contextmanager
def open_model(params: Params, root: Path, command: str) -> Iterator[RegisteredModel]:
    """Connect and settle; `command` is what an error says to run again. Raises TrackingError if nothing is there."""
    with find_model(params, root, command) as model:
        if not model.exists:
            assert model.champion is None  # or it was lost
            raise TrackingError(
                f"no registered model {model.name} at {model.uri}; `ae-pipeline publish` makes it of the training that "
                "is in this folder (`dvc repro` makes one)"
            )
        yield model


@contextmanager
def find_model(params: Params, root: Path, command: str, patience: float = 120.0) -> Iterator[RegisteredModel]:
    """What `open_model` yields, also where nothing has been published. `patience`: as `connect` has it."""
    if not store_exists(params, root):
        # Looking for a champion makes no database.
        yield RegisteredModel(params, root, None, tracking_uri(params, root))
        return
    with connect(params, root, command, patience) as (client, uri):
        yield RegisteredModel(params, root, client, uri)


def settle(client: Any, registered: Any) -> list[Entry]:
    """Bring the history of a registered model in line with its alias, and return it.

    A pending entry is done if its version has the alias, else abandoned. An alias that is not where the history left
    it was moved by hand: that is recorded, and stays.
    """
    name, entries = registered.name, read_entries(registered.tags)
    alias = registered.aliases.get(CHAMPION)
    champion = None if alias is None else str(alias)
    for place, entry in enumerate(entries):
        if entry.state == PENDING:
            reached = entry.version == champion and place == len(entries) - 1
            entries[place] = replace(entry, state=DONE if reached else ABANDONED)
            client.set_registered_model_tag(name, entry.key, entries[place].value)
    if champion != current(entries):
        why = "the alias was removed, or its version deleted" if champion is None else "the alias was set in MLflow"
        run_id = client.get_model_version(name, champion).run_id or None if champion else None
        entry = next_entry(entries, champion, MOVED_BY_HAND, by=UNKNOWN, why=why, run_id=run_id)
        client.set_registered_model_tag(name, entry.key, entry.value)
        entries.append(entry)
    if champion is not None:
        mark_champion(client, name, next(entry.run_id for entry in reversed(entries) if entry.state == DONE))
    return entries
