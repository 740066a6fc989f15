"""The files of an inbox: which are there, which are left alone and why, and local copies of them.

An inbox is a folder or any fsspec URL. Nothing in it is trusted to stay: a file may vanish while it is looked at.
"""

import datetime
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ae_pipeline.errors import ConfigError, DataError, PipelineError, first_line
from ae_pipeline.files import is_utf8, make_folder
from ae_pipeline.operation.inbox.files.names import put_name, shown, why_left_alone
from ae_pipeline.params.operation import InboxParams
from ae_pipeline.store.storage.place import is_url

# What file systems call the time of the last change, and what else changes with a file's content.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_STAMPS = (*_TIMES, "ino", "ETag", "etag", "md5Hash", "generation")


class InboxError(DataError):
    """The inbox itself cannot be read: no file's fault."""


class FileChangedError(Exception):
    """Somebody changed the file while it was looked at."""


@dataclass(frozen=True)
class InboxFile:
    """One file. `name` is its path in the inbox, with `/`; `stamp` changes whenever the content may have.

    `changed`: when it was changed, in seconds since 1970 by the clock of its storage, if that is known. `look`: what of
    the stamp stays while nobody writes, on every storage: not all keep the numbers of files.
    """

    name: str
    path: str
    stamp: str
    look: str
    changed: float | None


@dataclass
class Listing:
    """What an inbox holds. `left_alone` and `unreadable` say why; folders end with `/`."""

    files: list[InboxFile] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def leave_alone(self, name: str) -> bool:
        """Whether a file is to be left alone, by its name or that of one of its folders; notes it."""
        parts = name.split("/")
        for depth, part in enumerate(parts, 1):
            if why := why_left_alone(part):
                self.left_alone["/".join(parts[:depth]) + "/" * (depth < len(parts))] = why
                return True
        return False


class Inbox:
    """Files of `params.location`, which is relative to `root` unless it is a URL. A place that is missing is empty."""

    def __init__(self, params: InboxParams, root: Path):
        self.location = params.location
        self.is_local = not is_url(self.location)
        self.folder = root / self.location
        self._quarantine = (root / params.quarantine).resolve()
        self._fetched = 0
        if not self.is_local:
            self._files, base = _open_url(self.location)
            self._base = str(base).rstrip("/")
            return
        if not is_utf8(self.folder):
            raise ConfigError(
                f"inbox.location: the path {shown(str(self.folder))} is not UTF-8, and what is in a store is; rename "
                "its folders, or set inbox.location to a link to it"
            )
        base = self.folder.resolve()
        inside = self._quarantine.relative_to(base).parts if self._quarantine.is_relative_to(base) else None
        if inside is not None and not any(map(why_left_alone, inside)):
            raise ConfigError(
                f"inbox.quarantine {params.quarantine!r} is in the inbox {self.location!r}, whose files are taken from "
                "there again; set it to a folder beside the inbox"
            )

    def list(self) -> Listing:
        """Everything in it, in name order. Raises InboxError."""
        found = Listing()
        with self._reaching():
            if self.is_local:
                self._scan(self.folder, "", found)
            else:
                self._find(found)
        found.files.sort(key=lambda file: file.name)
        return found

    def fetch(self, file: InboxFile, work: Path) -> Path:
        """The file itself, or from a URL a copy of it below `work`.

        Raises FileNotFoundError if it vanished, InboxError if the inbox cannot be reached any more, and whatever else
        the storage says of this file.
        """
        if self.is_local:
            return Path(file.path)
        # A folder for each, because files in different sub-folders may have the same name.
        self._fetched += 1
        target = work / str(self._fetched) / put_name(file.name.rsplit("/", 1)[-1])
        make_folder(target.parent)
        try:
            self._files.get_file(file.path, str(target))
        except FileNotFoundError:
            raise
        except Exception:
            with self._reaching():
                self._files.invalidate_cache()
                self._files.ls(self._base)
            raise  # the inbox is there: it is this file
        return target

    def check_unchanged(self, file: InboxFile) -> None:
        """Raise FileChangedError unless a folder's file is still the one that was listed. Of a URL, the copy counts."""
        with suppress(OSError):
            if not self.is_local or _local_file(file.name, file.path, os.lstat(file.path)).stamp == file.stamp:
                return
        raise FileChangedError

    def _scan(self, folder: Path, prefix: str, found: Listing) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            if not prefix:
                raise
            found.unreadable[prefix] = f"the folder cannot be read ({error.strerror}); give permission"
            return
        for entry in entries:
            name = prefix + entry.name
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                found.unreadable[name] = f"cannot be read ({error.strerror}); give permission"
                continue
            if stat.S_ISDIR(facts.st_mode):
                self._scan_folder(Path(entry.path), f"{name}/", found)
            elif not found.leave_alone(name):
                if stat.S_ISREG(facts.st_mode):
                    found.files.append(_local_file(name, entry.path, facts))
                else:
                    found.left_alone[name] = "a link" if stat.S_ISLNK(facts.st_mode) else "no file"

    def _scan_folder(self, folder: Path, prefix: str, found: Listing) -> None:
        why = why_left_alone(folder.name)
        if why is None:
            self._scan(folder, prefix, found)
        elif not self._quarantine.is_relative_to(folder.resolve()):
            found.left_alone[prefix] = why

    def _find(self, found: Listing) -> None:
        self._files.invalidate_cache()
        for path, facts in self._files.find(self._base, detail=True).items():
            name = str(path).removeprefix(self._base).lstrip("/")
            if not name or found.leave_alone(name):
                continue
            if facts.get("type") != "file":
                found.left_alone[name] = "no file"
                continue
            stamp = json.dumps([facts.get("size"), *(str(facts[key]) for key in _STAMPS if key in facts)])
            found.files.append(InboxFile(name, str(path), stamp, stamp, _changed(facts)))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (PipelineError, FileNotFoundError):
            raise
        except Exception as error:  # each kind of storage has errors of its own
            raise InboxError(
                f"cannot read the inbox {shown(self.location)}: {shown(first_line(error))}; check inbox.location, "
                "network and credentials, then run again"
            ) from None


def why_unsettled(
    file: InboxFile, unchanged_for: Callable[[InboxFile, float], float], settle_seconds: float, now: float
) -> str | None:
    """Why somebody may still be writing a file; None if it may be taken.

    Its time decides if that is past; else, as clocks differ, two looks that find the same (`Ledger.unchanged_for`).
    """
    age = None if file.changed is None else now - file.changed
    if (age is not None and age >= settle_seconds) or unchanged_for(file, now) >= settle_seconds:
        return None
    looks = "it is taken when the next run finds it unchanged"
    if age is None:
        return f"its storage does not say when it was changed; {looks}"
    if age < 0:
        return f"its time of change is {-age:,.0f} s in the future, so a clock is wrong; {looks}"
    return f"it was changed {age:,.0f} s ago, less than inbox.settle_seconds ({settle_seconds:g})"


def remove_temporary(folder: Path) -> None:
    """Remove the unfinished files of a killed run; for folders that only one run writes at a time."""
    for left in folder.rglob(".*.tmp"):
        if left.is_symlink() or not left.is_dir():
            left.unlink(missing_ok=True)


def _local_file(name: str, path: str, facts: os.stat_result) -> InboxFile:
    look = [facts.st_size, facts.st_mtime_ns]
    stamp = json.dumps([*look, facts.st_ctime_ns, facts.st_ino])
    return InboxFile(name, path, stamp, json.dumps(look), facts.st_mtime)


def _changed(facts: dict[str, Any]) -> float | None:
    """The first time that a URL's file has, in seconds since 1970; None where none can be read."""
    changed = next((facts[key] for key in _TIMES if facts.get(key)), None)
    try:
        if isinstance(changed, str):
            changed = datetime.datetime.fromisoformat(changed)
        if isinstance(changed, datetime.datetime):
            # Times without a zone are in UTC, as object stores give them.
            changed = (changed if changed.tzinfo else changed.replace(tzinfo=datetime.UTC)).timestamp()
        return None if changed is None else float(changed)
    except (ValueError, TypeError, OverflowError):
        return None


def _open_url(location: str) -> Any:
    """The file system, as fsspec has it, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"inbox.location {location!r} cannot be opened: {first_line(error)}; install what it needs, or "
            "give a folder"
        ) from None
