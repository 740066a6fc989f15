"""What a person's files are, without reading one of them: names, sizes and times.

The stage `code` asks at every `dvc repro`, so nothing heavy is imported here, and a file costs some microseconds.
"""

import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

from ae_pipeline.data.sample_files import is_leftover
from ae_pipeline.errors import DataError
from ae_pipeline.files import recorded_name
from ae_pipeline.sources.own_files.listing import starts_of
from ae_pipeline.sources.own_files.places.remote import is_url


class FileState(NamedTuple):
    """What the file system says of a file. Whoever writes to it changes this, also where size and time stay.

    `changed` is POSIX's ctime, which no program can set. Times are in nanoseconds. Of a file or folder that cannot be
    looked at, `trouble` says why.
    """

    name: str
    size: int = 0
    modified: int = 0
    changed: int = 0
    trouble: str = ""


def states_of(path: str) -> list[FileState]:
    """The state of each file that `path` (a file, a folder or a glob) means for `list_files`, sorted by name.

    Nothing is said of files at a URL: asking would take the network at every `dvc repro`.
    Raises DataError where there is no file.
    """
    if is_url(path):
        return []
    root, starts = starts_of(path)
    by_glob = not Path(path).exists()
    found: list[FileState] = []
    for start in starts:
        if not (by_glob and is_leftover(start.name)):
            found += _below(start, os.fspath(root), frozenset())
    if not found:
        raise DataError(f"there are no files at {path}")
    return sorted(found)


def state_of(name: str, found: os.stat_result) -> FileState:
    """The state of one file."""
    return FileState(name, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _below(item: Path, root: str, above: Set[tuple[int, int]]) -> Iterator[FileState]:
    """Files at and below a path. A link that leads back to a folder above it is not followed: `download` refuses it."""
    name = recorded_name(os.path.relpath(item, root))
    try:
        status = item.stat()
        own = (status.st_dev, status.st_ino)
        if not item.is_dir() or own in above:
            yield state_of(name, status)
            return
        with os.scandir(item) as entries:
            inside = [entry for entry in entries if not is_leftover(entry.name)]
    except OSError as error:
        yield FileState(name, trouble=error.strerror or type(error).__name__)
        return
    for entry in inside:
        try:
            is_folder, status = entry.is_dir(), entry.stat()
        except OSError:  # a link to nothing, for which looking again finds the words
            is_folder = True
        if is_folder:
            yield from _below(Path(entry.path), root, above | {own})
        else:
            yield state_of(recorded_name(os.path.relpath(entry.path, root)), status)
