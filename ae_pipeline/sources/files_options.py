"""Options of the source `files`."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ae_pipeline.params.base import Seed, SourceOptions


def _checked(found: Any) -> Any:
    """A name, a list of names, or None, with one message for all else."""
    names = found if isinstance(found, list) else [found]
    if found is not None and not (names and all(isinstance(name, str) and name for name in names)):
        raise ValueError("expected a name, a list of names, or null")
    return found


class Options(SourceOptions):
    """Which files, what is in them, and which records are held out for the test."""

    path: str = "data/mine"
    """A file, a folder (with all that is below it), or a glob such as photos/**/*.png; or a URL of one of these at s3://,
    or of a file at https://."""
    kind: str = "image"
    """What a record is: image, vector, audio, table, or a kind of another package (ae_pipeline/kinds/__init__.py)."""
    column: Annotated[str | list[str] | None, BeforeValidator(_checked)] = None
    """The column (Parquet) or array (.npz) with the records; null: the only one that can be. A list of columns of
    numbers (Parquet): each row's numbers in these are a vector, for the kind vector."""
    label: str | None = None
    """folder: the sub-folder that a file lies in; or the name of a column; null: none."""
    group: str | None = None
    """Records that stay together, in one split, such as one speaker's clips: `folder`, those of a sub-folder;
    `source_file`, those of a file; or the name of a column, those of one value. null: each is drawn by itself."""
    settings: dict[str, Any] = {}
    """What the kind can be told, by name: `tile`, `resize`, `colour` for image (kinds/image.py); `block`, `blocks`,
    `rate` for audio (kinds/audio.py); `max_error`, `shares`, `absolute`, `unchanged` for table (kinds/table.py)."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the records held out for the test split. Each is drawn by its own name: more files change none. With
    `group`, groups are drawn that come near to it."""
    seed: Seed = 0
    """Draws the test split."""
    skip_unreadable: bool = False
    """Whether records that cannot be read are left out, counted and listed; else they are refused."""

    def state_of_files(self) -> Sequence[Any]:
        from ae_pipeline.sources.own_files.places.states import states_of

        return states_of(self.path)
