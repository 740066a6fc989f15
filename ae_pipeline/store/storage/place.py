"""Which kind of place a store is at: decided here, from a path or a URL, and nowhere else."""

from pathlib import Path
from typing import Any

from ae_pipeline.store.storage.folder import LocalStorage, Storage
from ae_pipeline.store.storage.url import RemoteStorage


def open_storage(place: Path | str | Storage) -> Storage:
    """The storage behind a path or URL. Raises ConfigError for a kind of URL at which no store is kept."""
    if not isinstance(place, Path | str):
        return place
    if isinstance(place, str) and place.startswith("file://"):
        place = place.removeprefix("file://")
    return RemoteStorage(place) if isinstance(place, str) and is_url(place) else LocalStorage(Path(place))


def is_url(place: Any) -> bool:
    """Whether a place is an fsspec URL, not a path."""
    return "://" in str(place) or "::" in str(place)
