"""What a row means: how a person's records become rows of one shape, and records again.

base             the contract of a kind, and what kinds share
state            what a kind keeps of the user's records, in codec.json
image            a record is a picture: its row is the pixels as they are, or its rows are tiles of it
vector           a record is a list of numbers, or columns of numbers together, and its row these numbers
table            a record is a row of a table, and its row the places of its values in lists and on grids
audio            a record is a clip of sound, and its rows are its frames
encoded          records that are the bytes of files in a column
sound/           clips and files of sound, and their frames
image_files      image files opened with care; the inbox reads its pictures with it, too
image_pixels     the pixels of a picture, and a file of them again
image_tiles      pictures as tiles, and put together again
image_headers    what an image file says of its own values

To add a kind: a file here with `KIND = <Class>` as its last line and its name in KINDS, or, in a package of somebody
else, an entry point of the group `ae_pipeline.kinds` that names such a class. tests/house/test_kinds.py runs on each.
"""

import sys
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ae_pipeline.errors import ConfigError, DataError, first_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ae_pipeline.data.json_types import KindEntry
    from ae_pipeline.kinds.base import Kind
    from ae_pipeline.kinds.state import KindState

KINDS = ("image", "vector", "audio", "table")
"""The kinds of this package, each named as its file."""
GROUP = "ae_pipeline.kinds"
"""Entry points of other packages: `name = "module:Class"`."""


def kind_names() -> list[str]:
    """All kinds that there are here, those of this package first."""
    return [*KINDS, *sorted({point.name for point in _others(tuple(sys.path))} - set(KINDS))]


def build_kind(name: str) -> "Kind":
    """The kind of this name. Raises ConfigError for one that there is not, or that cannot be had."""
    if name in KINDS:
        return import_module(f"ae_pipeline.kinds.{name}").KIND()
    found = [point for point in _others(tuple(sys.path)) if point.name == name]
    if not found:
        raise ConfigError(f"there is no kind {name!r}; expected one of {', '.join(kind_names())}")
    if len(found) > 1:
        places = ", ".join(point.value for point in found)
        raise ConfigError(f"the kind {name!r} is in several packages ({places}); uninstall all but one")
    return _checked(found[0])


@lru_cache(maxsize=1)
def _others(path: tuple[str, ...]) -> "tuple[EntryPoint, ...]":  # noqa: ARG001 (where they are looked for)
    """The kinds of other packages: to look for them opens a file of each package that is installed."""
    return tuple(entry_points(group=GROUP))


def open_kind(entry: "KindEntry", place: str) -> "tuple[Kind, KindState]":
    """The kind of a codec, and its state as that kind checks it. `place` names the codec, or the file, in errors.

    Raises ConfigError for a kind that is not installed here, DataError for a state that is none of its own.
    """
    from pydantic import ValidationError

    from ae_pipeline.params.base import problems

    if entry.name not in kind_names():
        raise ConfigError(
            f"{place} is of the kind {entry.name!r}, which is not installed here; install its package, or use "
            "prepared Parquet files with a column `pixels`, and `decode --format rows`"
        )
    kind = build_kind(entry.name)
    try:
        return kind, kind.State.model_validate(entry.state)
    except ValidationError as error:
        what = f"has a state that the kind {entry.name!r} cannot have made: {problems(error)[0]}"
        raise DataError(what, place=place, advice="use the version of its package that made it") from None


def _checked(point: Any) -> "Kind":
    from ae_pipeline.kinds.base import Kind

    try:
        made = point.load()()
    except Exception as error:  # other people's code
        reason = f"the kind {point.name!r} of {point.value} cannot be loaded: {first_line(error)}"
        raise ConfigError(f"{reason}; mend or uninstall its package") from None
    if not isinstance(made, Kind):
        raise ConfigError(f"the kind {point.name!r} of {point.value} is no {Kind.__module__}.Kind; mend its package")
    return made
