"""Where the unfinished parts of a store are kept, so that a run that was cut off is taken up again."""

import glob
from pathlib import Path


def partial_folder(store: Path, work: Path | None, key: str) -> Path:
    """Where unfinished parts of a store are kept; `key` is a digest of what is being made."""
    return (work or store.parent) / f".{store.name}.{key[:16]}.partial"


def unfinished_work(store: Path) -> list[Path]:
    """Work folders beside a store that interrupted runs have left: of other data, another codec or another layout."""
    return sorted(store.parent.glob(f".{glob.escape(store.name)}.{'[0-9a-f]' * 16}.partial"))
