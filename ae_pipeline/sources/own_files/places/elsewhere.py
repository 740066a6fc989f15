"""Files at a URL for a machine that does not see the copies of whoever started a run: it fetches what a shard needs.

samples.elsewhere = Elsewhere(url, root, folder, files)
with samples.elsewhere.here(digests): ...                # files are at the same paths here, and go after that

Copies lie in a folder whose parent is locked by the run that made it (`at_hand.work_folder`). Where that lock cannot be
had, this is its machine.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from ae_pipeline.errors import UnreachableError, name_in_messages
from ae_pipeline.files import finished_file, sha256_file
from ae_pipeline.sources.own_files.places.remote import Place, RemoteFile, open_place
from ae_pipeline.sources.own_files.places.side_by_side import side_by_side

_TRIES = 20


@dataclass(frozen=True)
class Elsewhere:
    """Which files at a URL copies in a folder are; can be pickled."""

    url: str
    root: str
    folder: Path
    files: Mapping[str, RemoteFile]

    def only(self, files: Iterable[Path]) -> "Elsewhere":
        """Keep some of the copies alone."""
        names = (file.relative_to(self.folder).as_posix() for file in files)
        return replace(self, files={name: self.files[name] for name in names})

    @contextmanager
    def here(self, digests: Mapping[Path, str]) -> Iterator[bool]:
        """In the block, the files are on this machine at the paths of their copies; yields whether they came for it.

        `digests` are the SHA-256 (hex) that are known of them. Raises DataError for a file that changed since, and
        UnreachableError.
        """
        lock = _lock(self.folder.parent)
        if lock is None:
            yield False
            return
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            name_in_messages(self.folder, self.root)
            with self._held(self._place(), digests):
                yield True
        finally:
            name_in_messages(self.folder, None)
            _unlock(lock, self.folder.parent)

    def _place(self) -> Place:
        place = open_place(self.url)
        place.root = self.root
        return place

    @contextmanager
    def _held(self, place: Place, digests: Mapping[Path, str]) -> Iterator[None]:
        paths = {self.folder / name: file for name, file in self.files.items()}
        # Several shards may be of one large file; small ones are of one shard.
        locks = [] if len(paths) > 1 else [self._hold(place, path, file, digests) for path, file in paths.items()]
        if not locks:
            side_by_side(lambda item, ended: self._fetch(place, *item, digests, ended), list(paths.items()))
        try:
            yield
        finally:
            for path, lock in zip(paths, locks, strict=True) if locks else ():
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
                os.close(lock)
            for path in () if locks else paths:
                path.unlink(missing_ok=True)

    def _hold(self, place: Place, path: Path, file: RemoteFile, digests: Mapping[Path, str]) -> int:
        """Fetch a file unless another job on this machine has it, and keep that from removing it."""
        for _ in range(_TRIES):
            if not path.exists():
                self._fetch(place, path, file, digests, Event())
            with suppress(FileNotFoundError):
                lock = os.open(path, os.O_RDONLY)
                fcntl.flock(lock, fcntl.LOCK_SH)
                with suppress(FileNotFoundError):
                    if os.fstat(lock).st_ino == path.stat().st_ino:
                        return lock
                os.close(lock)
        raise UnreachableError(f"{place.url_of(file.name)} cannot be kept on this machine; run the same command again")

    def _fetch(self, place: Place, path: Path, file: RemoteFile, digests: Mapping[Path, str], ended: Event) -> None:
        def on_bytes(count: int) -> None:  # noqa: ARG001
            if ended.is_set():
                raise InterruptedError

        with finished_file(path) as temporary:
            place.fetch(file, temporary, on_bytes)
            if digests.get(path) not in (None, sha256_file(temporary)):
                raise place.changed(file.name)


def _lock(folder: Path) -> int | None:
    """Have a folder for oneself and others who fetch; None on the machine of the run whose it is."""
    for _ in range(_TRIES):
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == folder.stat().st_ino:
                    return lock
            except BlockingIOError:
                os.close(lock)
                return None
            except FileNotFoundError:  # another job ended, and removed it
                pass
            os.close(lock)
    raise UnreachableError(f"{folder} cannot be kept on this machine; run the same command again")


def _unlock(lock: int, folder: Path) -> None:
    """Leave the folder, and remove it if nobody else is there."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
