"""Which snapshots of a store there are, and what each of them added.

`vacuum` removes the manifests of earlier snapshots. So that one that was removed on purpose can be told from one that
was lost, and so that what each snapshot added stays known, it leaves `_snapshots/vacuumed.json`: how many parts each
removed snapshot had. A snapshot adds its parts after those of the one before.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from ae_pipeline.errors import StoreError, first_line
from ae_pipeline.files import sha256_json, sync_folder, write_json
from ae_pipeline.store.format.entries import Count
from ae_pipeline.store.format.manifest import SNAPSHOTS_FOLDER, PartEntry, kept_snapshots, read_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage, Storage, place_of, read_whole
from ae_pipeline.store.storage.place import open_storage

VACUUMED_NAME = f"{SNAPSHOTS_FOLDER}/vacuumed.json"
_LARGEST_RECORD = 16 << 20


_RECORD = TypeAdapter(dict[Literal["parts"], list[Count]])


def read_vacuumed(place: Path | str | Storage) -> list[int]:
    """The numbers of parts of snapshots 1, 2, ... that were removed on purpose; none where there is no record.

    Of one whose manifest was damaged by then, those of the one before. Raises StoreError if the record is damaged.
    """
    storage = open_storage(place)
    where = place_of(storage, VACUUMED_NAME)
    try:
        data = read_whole(storage, VACUUMED_NAME, most=_LARGEST_RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        advice = "give permission, or restore it"
        raise StoreError(f"cannot be read: {first_line(error)}", place=where, advice=advice) from None
    try:
        values = json.loads(data)
        digest = values.pop("digest")
        if digest != sha256_json(values):
            raise ValueError("its digest does not match its contents")
        return _RECORD.validate_python(values)["parts"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        advice = "restore it, or run `ae-pipeline vacuum`"
        raise StoreError(f"is damaged: {first_line(error)}", place=where, advice=advice) from None


def note_removed(store: Path, last: int) -> None:
    """Record that snapshots 1 to `last` are gone, durably, before their manifests are removed.

    The parts that one added whose manifest is lost count with the one after it.
    """
    try:
        counts = read_vacuumed(store)[:last]
    except StoreError:
        counts = []
    there = set(kept_snapshots(LocalStorage(store)))
    for number in range(len(counts) + 1, last + 1):
        counts.append(counts[-1] if counts else 0)
        if number in there or number == last:  # the newest one is elsewhere
            with suppress(StoreError):
                counts[-1] = len(read_manifest(store, number).parts)
    values = {"parts": counts}
    write_json(store / VACUUMED_NAME, {**values, "digest": sha256_json(values)})
    sync_folder(store)


def added_parts(place: Path | str | Storage, snapshot: int) -> tuple[LatentStore, list[PartEntry]]:
    """Open a store and list the parts that one snapshot added, also if it was removed since. A repair adds none.

    Raises StoreError if there is no such snapshot, or its manifest is lost.
    """
    newest = LatentStore.open(place)
    removed = read_vacuumed(place)
    if snapshot > newest.manifest.snapshot:
        return LatentStore.open(place, snapshot), []  # raises: there is none

    def count(number: int) -> int:
        if number <= len(removed):
            return removed[number - 1] if number else 0
        return len(read_manifest(place, number).parts)

    return newest, newest.manifest.parts[count(snapshot - 1) : count(snapshot)]
