"""Options of the source `files`."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from ae_pipeline.params.base import Seed, SourceOptions


class Options(SourceOptions):
    """Which files, what is in them, and which records are held out for the test."""

    path: str = "data/mine"
    """A file, a folder (with all that is below it), or a glob such as photos/**/*.png; or a URL of one of these at s3://,
    or of a file at https://."""
    kind: str = "image"
    """What a record is: image, vector, audio, or a kind of another package (ae_pipeline/kinds/__init__.py)."""
    column: str | None = None
    """The column (Parquet) or array (.npz) with the records; null: the only one that can be."""
    label: str | None = None
    """folder: the sub-folder that a file lies in; or the name of a column; null: none."""
    settings: dict[str, Any] = {}
    """What the kind can be told, by name: `tile`, `resize`, `colour` for image (kinds/image.py); `block`, `blocks`,
    `rate` for audio (kinds/audio.py); nothing for vector."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the records held out for the test split. Each is drawn by its own name: more files change none."""
    seed: Seed = 0
    """Draws the test split."""
    skip_unreadable: bool = False
    """Whether records that cannot be read are left out, counted and listed; else they are refused."""

    def state_of_files(self) -> Sequence[Any]:
        from ae_pipeline.sources.own_files.places.states import states_of

        return states_of(self.path)
