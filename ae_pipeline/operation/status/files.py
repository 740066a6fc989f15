"""Files that wait in the inbox, files in quarantine, and the growing stores. Looks only: nothing is taken or moved."""

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ae_pipeline.errors import StoreError, without_secrets
from ae_pipeline.files import read_small
from ae_pipeline.operation.inbox.batches import growing_stores, known_contents, statistics_path
from ae_pipeline.operation.inbox.files.ledger import Ledger
from ae_pipeline.operation.inbox.files.listing import Inbox, InboxFile
from ae_pipeline.operation.inbox.files.names import REASON_SUFFIX, shown
from ae_pipeline.operation.inbox.files.quarantine import Quarantine
from ae_pipeline.params import Params
from ae_pipeline.store.latent_store import LatentStore

_NAMED = 5  # files of each kind
_WEEK_S = 7 * 24 * 3600


def look_into_inbox(params: Params, root: Path) -> dict[str, Any]:
    """Files that are in no store yet, as far as the last run noted what it knew. Raises PipelineError.

    `oldest` is when the first of them came: by the time at which a folder's file was put there, not by its content's.
    """
    inbox, growing = Inbox(params.inbox, root), root / params.paths.growing
    listing = inbox.list()
    ledger = Ledger(growing / ".inbox" / "ledger.json", params.inbox.location)
    known = known_contents(growing) if listing.files else set()
    rejected = Quarantine(root / params.inbox.quarantine, inbox, ledger).rejected()

    def is_new(file: InboxFile) -> bool:
        digest, keys = ledger.look_up(file) or ("", [])
        return not (keys and known.issuperset(keys)) and digest not in rejected

    waiting = [file for file in listing.files if is_new(file)]
    times = [at for file in waiting if (at := _came(file, inbox)) is not None]
    return {
        "location": without_secrets(params.inbox.location),
        "waiting": len(waiting),
        "oldest": _utc(min(times)) if times else None,
        "files": [shown(file.name) for file in waiting[:_NAMED]],
        "unreadable": {shown(name): why for name, why in listing.unreadable.items()},
        "left_alone": len(listing.left_alone),
    }


def look_into_quarantine(params: Params, root: Path) -> dict[str, Any]:
    """How many files could not be used, and the newest with their reasons."""
    folder = root / params.inbox.quarantine
    reasons = sorted(folder.rglob(f"*{REASON_SUFFIX}"), key=_changed, reverse=True)
    newest = []
    for path in reasons[:_NAMED]:
        with suppress(OSError):
            reason = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
            name = path.relative_to(folder).as_posix().removesuffix(REASON_SUFFIX)
            newest.append({"file": shown(name), "since": _utc(_changed(path)), "reason": reason})
    return {"folder": params.inbox.quarantine, "files": len(reasons), "newest": newest}


def look_at_stores(params: Params, root: Path) -> list[dict[str, Any]]:
    """Each growing store: rows, bytes, snapshots, and what the last seven days added. Raises StoreError."""
    return [_store(path) for path in growing_stores(root / params.paths.growing)]


def _store(path: Path) -> dict[str, Any]:
    store = LatentStore.open(path)
    week = {"rows": 0, "bytes": 0, "snapshots": 0}
    for number in range(store.manifest.snapshot, 0, -1):
        batch = statistics_path(path, number)
        if not batch.exists():  # a repair's, or one whose run was killed
            continue
        if _changed(batch) < time.time() - _WEEK_S:
            break
        facts = _batch(batch)
        week["rows"] += facts.get("rows") or 0
        week["bytes"] += facts.get("bytes_out") or 0
        week["snapshots"] += 1
    totals = store.manifest.totals
    return {
        "store": path.name,
        "rows": totals.rows,
        "bytes": store.nbytes,
        "bytes_in": totals.bytes_in,
        "parts": len(store.manifest.parts),
        "snapshot": store.manifest.snapshot,
        "grew": _utc(_changed(path / "_manifest.json")),
        "last_seven_days": week,
    }


def _batch(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_small(path))
    except (OSError, ValueError):
        raise StoreError(
            "is not readable JSON", place=path, advice="delete it: the next encode_new writes it again"
        ) from None
    return values if isinstance(values, dict) else {}


def _came(file: InboxFile, inbox: Inbox) -> float | None:
    """When a file came; a copy may keep the time of its content, but not that of its entry in the folder."""
    try:
        return os.lstat(file.path).st_ctime if inbox.is_local else file.changed
    except OSError:
        return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
