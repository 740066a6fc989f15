"""The files of an inbox: which are there, local copies of them, what is remembered of them, and the quarantine.

An inbox is a folder or any fsspec URL. Nothing in it is trusted to stay: a file may vanish while it is looked at.
"""

import datetime
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from ae_pipeline.errors import ConfigError, DataError, PipelineError, first_line
from ae_pipeline.files import finished_file, make_folder, read_small, sha256_file, write_json
from ae_pipeline.params_operation import InboxParams

_LARGEST_LEDGER = 1 << 30
_UNFINISHED = (".tmp", ".part", ".crdownload")
# What file systems call the time of the last change, and what else changes with a file's content.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_STAMPS = (*_TIMES, "ino", "ETag", "etag", "md5Hash", "generation")


@dataclass(frozen=True)
class InboxFile:
    """One file. `name` is its path in the inbox, with `/`; `stamp` changes whenever the content may have."""

    name: str
    path: str
    stamp: str
    settled: bool


class Inbox:
    """Files of `params.location`, which is relative to `root` unless it is a URL. A place that is missing is empty."""

    def __init__(self, params: InboxParams, root: Path):
        self.location = params.location
        self._settle_seconds = params.settle_seconds
        self._quarantine = root / params.quarantine
        self.is_local = "://" not in self.location and "::" not in self.location
        url = str((root / self.location).resolve()) if self.is_local else self.location
        try:
            self._files, base = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"inbox.location {self.location!r} cannot be opened: {first_line(error)}; install what it needs, or "
                "give a folder"
            ) from None
        self._base = str(base).rstrip("/")
        self._fetched = 0
        if self.is_local and self._is_inside(self._quarantine.resolve()):
            raise ConfigError(
                f"inbox.quarantine {params.quarantine!r} is in the inbox {self.location!r}, whose files are taken from "
                "there again; set it to a folder beside the inbox"
            )

    def files(self) -> list[InboxFile]:
        """Everything but links, hidden and unfinished files, in name order. Raises DataError."""
        with self._reaching():
            self._files.invalidate_cache()
            found = self._files.find(self._base, detail=True)
        files = []
        for path, facts in found.items():
            name = str(path).removeprefix(self._base).lstrip("/")
            if name and facts.get("type") == "file" and not _is_left_alone(name):
                stamp = json.dumps([facts.get("size"), *(str(facts[key]) for key in _STAMPS if key in facts)])
                files.append(InboxFile(name, str(path), stamp, self._is_settled(facts)))
        return sorted(files, key=lambda file: file.name)

    def sweep(self) -> None:
        """Remove what a killed run was just writing into the quarantine."""
        remove_temporary(self._quarantine)

    def fetch(self, file: InboxFile, work: Path) -> Path:
        """The file itself, or from a URL a copy of it below `work`. Raises FileNotFoundError if it vanished."""
        if self.is_local:
            return Path(file.path)
        # A folder for each, because files in different sub-folders may have the same name.
        self._fetched += 1
        target = work / str(self._fetched) / Path(file.name).name
        make_folder(target.parent)
        with self._reaching():
            self._files.get_file(file.path, str(target))
        return target

    def put_aside(self, file: InboxFile, local: Path, digest: str, reason: str) -> None:
        """Into the quarantine, with the reason beside it: moved from a folder, copied from a URL.

        The reason is written first: a crash in between leaves the file in the inbox, and the next run does this again.
        """
        target = self._quarantine / file.name
        if target.exists() and (not digest or sha256_file(target) != digest):
            target = target.with_name(f"{digest[:12] or 'unreadable'}-{target.name}")
        make_folder(target.parent)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with finished_file(target.with_name(f"{target.name}.reason.txt")) as temporary:
            temporary.write_text(f"{reason}\ntime: {now}\nsha256: {digest}\n", encoding="utf-8")
        try:
            if self.is_local:
                os.replace(local, target)
                return
        except OSError:  # the quarantine is on another file system
            pass
        with finished_file(target) as temporary:
            shutil.copyfile(local, temporary)
        if self.is_local:
            local.unlink()

    def put_aside_before(self) -> set[str]:
        """Digests of a URL's files that were copied to the quarantine: they are still there, and not tried again.

        To have one tried again, delete its reason. What is put into a folder again is always tried.
        """
        reasons = [] if self.is_local else sorted(self._quarantine.rglob("*.reason.txt"))
        lines = [line for file in reasons for line in file.read_text(encoding="utf-8").splitlines()]
        return {line.removeprefix("sha256: ") for line in lines if line.startswith("sha256: ")}

    def _is_inside(self, folder: Path) -> bool:
        base = Path(self._base)
        return folder.is_relative_to(base) and not _is_left_alone(f"{folder.relative_to(base).as_posix()}/x")

    def _is_settled(self, facts: dict[str, Any]) -> bool:
        changed = next((facts[key] for key in _TIMES if facts.get(key)), None)
        if isinstance(changed, str):
            changed = datetime.datetime.fromisoformat(changed)
        if isinstance(changed, datetime.datetime):
            # Times without a zone are in UTC, as object stores give them.
            changed = (changed if changed.tzinfo else changed.replace(tzinfo=datetime.UTC)).timestamp()
        return changed is None or time.time() - changed >= self._settle_seconds

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (PipelineError, FileNotFoundError):
            raise
        except Exception as error:  # each kind of storage has errors of its own
            raise DataError(
                f"cannot read the inbox {self.location}: {first_line(error)}; check inbox.location, network and "
                "credentials, then run again"
            ) from None


class Ledger:
    """What was found out about files, by name and stamp, so that they need not be read again. Only a cache."""

    def __init__(self, path: Path, location: str):
        self._path = path
        self._location = location
        self._new: dict[str, dict[str, Any]] = {}
        try:
            values = json.loads(read_small(path, _LARGEST_LEDGER))
            self._old = values["files"] if values["location"] == location else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._old = {}

    def look_up(self, file: InboxFile) -> tuple[str, list[str]] | None:
        """Digest of the file's bytes and the keys that it has in a store (see `inbox.known_contents`), if known."""
        try:
            entry = self._old[file.name]
            if entry["stamp"] != file.stamp:
                return None
            found = str(entry["sha256"]), [str(key) for key in entry["keys"]]
        except (KeyError, TypeError):
            return None
        self.note(file, *found)
        return found

    def note(self, file: InboxFile, digest: str, keys: list[str]) -> None:
        """Remember a file; those that no run notes again are forgotten."""
        self._new[file.name] = {"stamp": file.stamp, "sha256": digest, "keys": keys}

    def save(self) -> None:
        """Write what was noted."""
        write_json(self._path, {"location": self._location, "files": self._new})


def remove_temporary(folder: Path) -> None:
    """Remove the unfinished files of a killed run; for folders that only one run writes at a time."""
    for left in folder.rglob(".*.tmp") if folder.is_dir() else ():
        left.unlink()


def _is_left_alone(name: str) -> bool:
    hidden = any(part.startswith(("_", ".")) for part in name.split("/"))
    return hidden or name.lower().endswith(_UNFINISHED)
