"""The machine: who is at work in the folder, and how much room its disks have."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ae_pipeline.operation.ownership import at_work
from ae_pipeline.params import Params
from ae_pipeline.store.storage.place import is_url

_LITTLE_SHARE, _LITTLE_BYTES = 0.05, 1 << 30


def look_at_checkout(root: Path) -> dict[str, Any]:
    """Who holds the folder, in words."""
    return {"folder": str(root.resolve()), "at_work": at_work(root)}


def look_at_disks(params: Params, root: Path) -> list[dict[str, Any]]:
    """Each file system that something is written to, once, with what is free on it for a user."""
    inbox = [] if is_url(params.inbox.location) else [params.inbox.location]
    paths = params.paths
    places = [".", paths.growing, paths.latents, paths.work, paths.tracking, params.inbox.quarantine, *inbox]
    found: dict[int, dict[str, Any]] = {}
    for place in [*places, tempfile.gettempdir()]:
        folder = _there(root / place)
        usage = shutil.disk_usage(folder)
        values = {
            "place": place,
            "free": usage.free,
            "total": usage.total,
            "little": is_little(usage.free, usage.total),
        }
        found.setdefault(folder.stat().st_dev, values)
    return list(found.values())


def is_little(free: int, total: int) -> bool:
    """Whether bytes are running out: a twentieth is left, or a GiB."""
    return free < _LITTLE_SHARE * total or free < _LITTLE_BYTES


def _there(path: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
