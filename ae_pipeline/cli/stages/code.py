"""Write what the package's code and the source's files are, so that DVC sees which stages a change of them can change.

It starts every `dvc repro`, and must take no time: nothing heavy is imported here, and no file of the source is read.
"""

from pathlib import Path
from typing import NamedTuple

from ae_pipeline.errors import DataError, WorkspaceError, first_line, warn
from ae_pipeline.files import sha256_json, write_json
from ae_pipeline.params import Params
from ae_pipeline.params.base import SourceOptions
from ae_pipeline.provenance import CODE_FILE, code_digests

SOURCE_FILES = "source_files"
"""The name in code.json under which stage `download` finds what the source's files are."""
_NOT_THERE = "not there"


class Found(NamedTuple):
    """What code.json holds by name, and what a person should know."""

    digests: dict[str, str]
    warnings: list[str]


def run(params: Params, root: Path) -> None:
    """The installed package, names and times of the source's files -> code.json"""
    found = look(params, root)
    warn(found.warnings)
    write_json(root / CODE_FILE, found.digests)


def look(params: Params, root: Path) -> Found:
    """A digest of each part of the package, and one of the source's files: their names, sizes and times.

    Files that are not there, as on a disk that is away, cannot have changed what was made of them: then the digest
    stays the one with which `download` ran last, and a warning says so. Where it never ran, it says what is wrong.
    """
    warnings = []
    try:
        options = getattr(params.source, params.source.name)
        # A source without files of a person's may have a plain section of options.
        files = sha256_json(options.state_of_files() if isinstance(options, SourceOptions) else ())
    except (DataError, OSError, ValueError) as error:  # ValueError: a path that no system takes
        last = _last(root)
        files = last or _NOT_THERE
        if last:
            said = f"{error.strerror} ({error.filename})" if isinstance(error, OSError) else first_line(error)
            warnings.append(
                f"the source's files cannot be looked at: {said}; what was made of them before stays in use"
            )
    return Found({**code_digests(), SOURCE_FILES: files}, warnings)


def _last(root: Path) -> str | None:
    """The digest of the files with which `download` ran last; None if it never did."""
    from ae_pipeline.operation.tracking.dvc_lock import read_stages

    try:
        return str(read_stages(root)["download"]["params"][CODE_FILE][SOURCE_FILES])
    except (OSError, WorkspaceError, KeyError, TypeError):
        return None
