"""What is remembered of an inbox between two runs. Only a cache: without it, files are read again."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ae_pipeline.files import finished_file, read_small
from ae_pipeline.operation.inbox.files.listing import InboxFile

_LARGEST = 1 << 30


class Ledger:
    """What was found out about files, by name and stamp; when those that wait were seen first; the quarantine's stamps.

    Nothing that no run notes again is kept.
    """

    def __init__(self, path: Path, location: str):
        self._path = path
        self._location = location
        self._new: dict[str, Any] = {"files": {}, "seen": {}, "quarantine": {}}
        self._old: dict[str, Any] = {}
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            values = json.loads(read_small(path, _LARGEST))
            if values["location"] == location:
                self._old = {key: values[key] for key in self._new if isinstance(values.get(key), dict)}

    def look_up(self, file: InboxFile) -> tuple[str, list[str]] | None:
        """Digest of the file's bytes and the keys that it has in a store (see `batches.known_contents`), if known."""
        found = self.before(file)
        if found is None or self._old["files"][file.name].get("stamp") != file.stamp:
            return None
        self.note(file, *found)
        return found

    def before(self, file: InboxFile) -> tuple[str, list[str]] | None:
        """What `look_up` gives, of a file of this name as it was, whether or not it has changed since."""
        try:
            entry = self._old["files"][file.name]
            return str(entry["sha256"]), [str(key) for key in entry["keys"]]
        except (KeyError, TypeError):
            return None

    def note(self, file: InboxFile, digest: str, keys: list[str]) -> None:
        """Remember a file. The `keys` of labels are those of their images."""
        self._new["files"][file.name] = {"stamp": file.stamp, "sha256": digest, "keys": keys}

    def unchanged_for(self, file: InboxFile, now: float) -> float:
        """Seconds, by the clock of this machine, since a run first saw the file as it is; 0 for the first look."""
        seen = now
        with suppress(KeyError, TypeError, ValueError):
            look, since = self._old["seen"][file.name]
            if look == file.look and 0 < since <= now:
                seen = float(since)
        self._new["seen"][file.name] = [file.look, seen]
        return now - seen

    def quarantined(self, name: str) -> str | None:
        """The stamp that a file in the quarantine had when it was what its reason says."""
        stamp = self._old.get("quarantine", {}).get(name)
        return stamp if isinstance(stamp, str) else None

    def note_quarantined(self, name: str, stamp: str) -> None:
        """Remember the stamp of a file that is what its reason says."""
        self._new["quarantine"][name] = stamp

    def save(self) -> None:
        """Write what was noted. In ASCII: names need not be UTF-8."""
        with finished_file(self._path) as temporary:
            temporary.write_text(json.dumps({"location": self._location, **self._new}, indent=1), encoding="ascii")
