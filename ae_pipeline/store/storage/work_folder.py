"""Where the unfinished parts of a store are kept, so that a run that was cut off is taken up again."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ae_pipeline.files import (
    locked_folder,
    make_folder,
    require_one_file_system,
)


def partial_folder(store: Path, work: Path | None, key: str) -> Path:
    """Where unfinished parts of a store are kept; `key` is a digest of what is being made."""
    return (work or store.parent) / f".{store.name}.{key[:16]}.partial"


def unfinished_work(store: Path) -> list[Path]:
    """Work folders beside a store that interrupted runs have left: of other data, another codec or another layout."""
    return sorted(store.parent.glob(f".{glob.escape(store.name)}.{'[0-9a-f]' * 16}.partial"))


@contextmanager
def work_folder(store: Path, work: Path | None, key: str) -> Iterator[Path]:
    """`partial_folder`, made and locked.

    Raises TargetError if another run has it, and before any work if it is not on the store's file system.
    """
    make_folder(store.parent)
    with locked_folder(partial_folder(store, work, key)) as folder:
        try:
            require_one_file_system(folder, store.parent)
            yield folder
        finally:
            with suppress(OSError):  # it has become the store, or holds work that the next run takes up
                folder.rmdir()
