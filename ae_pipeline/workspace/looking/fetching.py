"""Which files at a URL are fetched for a look: some, however many there are. Their names and sizes are known of all."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ae_pipeline.errors import DataError
from ae_pipeline.kinds import build_kind
from ae_pipeline.sources.own_files.listing import SINGLE, FoundFile, sort_of
from ae_pipeline.sources.own_files.places.at_hand import AtHand
from ae_pipeline.workspace.looking.found import Found
from ae_pipeline.workspace.looking.guess import checked_kind

MOST_BYTES = 256 << 20
"""Bytes that are fetched, unless every single file has more."""
MOST_FILES = 5_000
LARGEST_FILE = 2 << 30
"""Bytes of a file that is fetched alone, where all have more than MOST_BYTES."""
_GB = 1e9


@dataclass(frozen=True)
class Sample:
    """The files that were fetched, among all that a kind would read."""

    files: int
    nbytes: int
    of_files: tuple[FoundFile, ...]
    of_bytes: int

    @property
    def is_all(self) -> bool:
        """Whether none is left."""
        return self.files == len(self.of_files)

    def records(self, found: int, sort: str) -> int:
        """How many records all files have, where those that were fetched have `found`: by their bytes."""
        if self.is_all:
            return found
        return len(self.of_files) if sort == SINGLE else round(found * self.of_bytes / max(1, self.nbytes))


def fetch_some(data: AtHand, found: Found, kind: str | None) -> tuple[Found, Sample | None]:
    """Fetch some of the files that are looked into, and leave the others of their sort out of what was found.

    None for files on this machine. Raises DataError where each is too large to be fetched for a look.
    """
    if not data.is_remote:
        return found, None
    wanted = _looked_into(found, kind)
    chosen = _choose(data, wanted)
    data.fetch(chosen, LARGEST_FILE)
    dropped = {file.name for file in wanted} - {file.name for file in chosen}
    files = {sort: [file for file in files if file.name not in dropped] for sort, files in found.files.items()}
    sizes = [sum(map(data.size, some)) for some in (chosen, wanted)]
    return replace(found, files=files), Sample(len(chosen), sizes[0], tuple(wanted), sizes[1])


def _looked_into(found: Found, kind: str | None) -> list[FoundFile]:
    """The files that would be read; none where it is not clear, or where none is opened."""
    if kind is not None:
        suffixes = build_kind(checked_kind(kind)).suffixes
        return [file for files in found.files.values() for file in files if sort_of(file.path, suffixes)]
    return found.files[found.readable[0]] if len(found.readable) == 1 else []


def _choose(data: AtHand, files: Sequence[FoundFile]) -> list[FoundFile]:
    """Files from all places of the list, as many as are within the limits; else the smallest one."""
    chosen: list[FoundFile] = []
    nbytes = 0
    for file in random.Random(0).sample(files, len(files)):  # noqa: S311 (no secret)
        if len(chosen) < MOST_FILES and nbytes + data.size(file) <= MOST_BYTES:
            chosen.append(file)
            nbytes += data.size(file)
    if files and not chosen:
        chosen = [min(files, key=data.size)]
        if (least := data.size(chosen[0])) > LARGEST_FILE:
            raise DataError(
                f"has files of {least / _GB:,.1f} GB and more, and none of more than {LARGEST_FILE / _GB:,.1f} GB is "
                "fetched for a look",
                place=data.shown,
                advice="copy one to this machine, look at it and make the workspace with it, and then put this URL in "
                "its place in params.yaml",
            )
    return sorted(chosen, key=lambda file: file.name)
