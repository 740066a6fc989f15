"""The quarantine: files of the inbox that cannot be used, each with its reason beside it; and back, when they change.

From a folder a file is moved, so that somebody who still writes it goes on writing the same file: the next run finds
that it is not what its reason says, and puts it into the inbox again. From a URL it is copied.
"""

import datetime
import errno
import json
import os
import re
import shutil
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

from ae_pipeline.errors import TargetError
from ae_pipeline.files import finished_file, make_folder, sha256_file
from ae_pipeline.operation.inbox.files.ledger import Ledger
from ae_pipeline.operation.inbox.files.listing import FileChangedError, Inbox, InboxFile, remove_temporary
from ae_pipeline.operation.inbox.files.names import REASON_SUFFIX, put_name, shown


class Quarantine:
    """The quarantine of one inbox; `folder` need not exist."""

    def __init__(self, folder: Path, inbox: Inbox, ledger: Ledger):
        self._folder, self._inbox, self._ledger = folder, inbox, ledger

    def put(self, file: InboxFile, local: Path, digest: str, reason: str) -> None:
        """Put the file into the quarantine, with its reason beside it. `digest`: "" where the file cannot be read.

        The reason is written first: a crash in between leaves the file in the inbox, and the next run does this again.
        Raises FileChangedError, and OSError or TargetError if the file cannot be put there: then it stays where it is.
        """
        self._inbox.check_unchanged(file)
        make_folder(self._folder)
        target = self._place(file.name, digest)
        make_folder(target.parent)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        reason_file = _reason_of(target)
        with finished_file(reason_file) as temporary:
            temporary.write_text(f"{reason}\ntime: {now}\nsha256: {digest}\n", encoding="utf-8")
        try:
            stamp = self._transfer(file, local, target)
        except (OSError, FileChangedError):
            with suppress(OSError):
                reason_file.unlink()
            raise
        self._ledger.note_quarantined(self._name(target), stamp)

    def rejected(self) -> set[str]:
        """Digests of a URL's files that were copied to the quarantine: they are still there, and not tried again.

        To have one tried again, delete its reason. What is put into a folder again is always tried.
        """
        if self._inbox.is_local:
            return set()
        return {digest for reason in self._reasons() if (digest := _stated_digest(reason))}

    def take_back(self, now: float, settle_seconds: float) -> dict[str, str]:
        """Put what is not any more what its reason says into the inbox again; only for folders.

        Returns what has to wait, and why: files that are still being changed, or whose place in the inbox is taken.
        """
        with suppress(OSError):  # what a killed run left; if it cannot be removed, it disturbs nobody
            remove_temporary(self._folder)
        waiting: dict[str, str] = {}
        for reason in self._reasons() if self._inbox.is_local else ():
            target = reason.with_name(reason.name.removesuffix(REASON_SUFFIX))
            digest = _stated_digest(reason)
            try:
                if os.path.lexists(target) or not digest:
                    why = self._look_again(target, reason, digest, now, settle_seconds)
                elif renamed := _renamed(target, digest):
                    target = renamed
                    why = self._give_back(target, reason, self._name(target), "its name was corrected")
                else:  # somebody took the file away
                    reason.unlink()
                    continue
            except FileNotFoundError:
                continue
            except OSError as error:
                why = f"it cannot be read ({error.strerror})"
            if why:
                waiting[f"{shown(self._name(target))} (in quarantine)"] = why
        return waiting

    def _look_again(self, target: Path, reason: Path, digest: str, now: float, settle_seconds: float) -> str | None:
        if target.is_symlink() or not target.is_file():
            return None
        name, stamp = self._name(target), _stamp(target)
        is_known = not digest or self._ledger.quarantined(name) == stamp
        if not is_known and 0 <= now - target.stat().st_mtime < settle_seconds:
            return f"it was changed less than inbox.settle_seconds ({settle_seconds:g}) ago"
        if is_known or sha256_file(target) == digest:
            self._ledger.note_quarantined(name, stamp)
            return None
        name = re.sub(f"(^|/){digest[:12]}-(?=[^/]*$)", r"\1", name)
        return self._give_back(target, reason, name, "it is not what its reason says")

    def _give_back(self, target: Path, reason: Path, name: str, why: str) -> str | None:
        """Put the file into the inbox, under this name. Returns what hinders it."""
        if not _move_back(target, self._inbox.folder / name):
            return f"{why}, and the inbox has another file of its name; put it there yourself"
        with suppress(OSError):
            reason.unlink()
        return None

    def _reasons(self) -> list[Path]:
        return sorted(self._folder.rglob(f"*{REASON_SUFFIX}"))

    def _name(self, target: Path) -> str:
        return target.relative_to(self._folder).as_posix()

    def _place(self, name: str, digest: str) -> Path:
        """A place where nothing is yet, or this very content."""
        target = self._folder / put_name(name)
        # A file may have the name of the folder.
        parent = target.parent if _can_be_folder(target.parent, self._folder) else self._folder
        start = digest[:12] or "unreadable"
        numbered = (f"{start}-{number}-{target.name}" for number in count(2))
        names = chain((target.name, f"{start}-{target.name}"), numbered)
        return next(place for place in map(parent.joinpath, names) if _is_free_for(place, digest))

    def _transfer(self, file: InboxFile, local: Path, target: Path) -> str:
        """Returns the stamp that the file has in the quarantine while it is what was judged."""
        if self._inbox.is_local:
            before = _stamp(local)
            self._inbox.check_unchanged(file)
            try:
                os.replace(local, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                return before
        # The quarantine is on another file system, or this is a copy: the original goes when it is surely the same.
        with finished_file(target) as temporary:
            shutil.copyfile(local, temporary)
            self._inbox.check_unchanged(file)
        if self._inbox.is_local:
            try:
                self._inbox.check_unchanged(file)
            except FileChangedError:
                target.unlink()
                raise
            local.unlink()
        return _stamp(target)


def _is_free_for(target: Path, digest: str) -> bool:
    """Whether there is nothing, or this very content. Raises OSError where that cannot be seen."""
    if not os.path.lexists(target):
        return not _reason_of(target).is_dir()
    if not digest or target.is_symlink() or not target.is_file():
        return False
    try:
        return sha256_file(target) == digest
    except OSError:  # another file, for all we know
        return False


def _can_be_folder(folder: Path, top: Path) -> bool:
    """Whether there is a folder below `top`, or can be one."""
    while folder != top and not os.path.lexists(folder):
        folder = folder.parent
    return folder.is_dir()


def _move_back(target: Path, home: Path) -> bool:
    """Whether the file is in the inbox now: never in place of another one."""
    try:
        make_folder(home.parent)
        os.link(target, home)
    except FileExistsError:
        if not target.samefile(home):  # else a run was killed between this link and the next step
            return False
    except (OSError, TargetError):  # no links there, or another file system
        if os.path.lexists(home):
            return False
        try:
            target.rename(home)
        except OSError:
            return False
        return True
    target.unlink()
    return True


def _renamed(target: Path, digest: str) -> Path | None:
    """The file of this content beside a reason whose own file is gone: somebody renamed it, as some reasons ask for."""
    others = (other for other in sorted(target.parent.iterdir()) if not other.name.endswith(REASON_SUFFIX))
    files = (other for other in others if other.is_file() and not other.is_symlink())
    return next((file for file in files if not _reason_of(file).exists() and sha256_file(file) == digest), None)


def _reason_of(target: Path) -> Path:
    return target.with_name(target.name + REASON_SUFFIX)


def _stated_digest(reason: Path) -> str:
    """The digest that a reason names; "" where it names none, as people may edit reasons."""
    try:
        lines = reason.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("sha256: ").strip() for line in lines if line.startswith("sha256: ")), "")


def _stamp(path: Path) -> str:
    facts = path.stat()
    return json.dumps([facts.st_size, facts.st_mtime_ns, facts.st_ino])
