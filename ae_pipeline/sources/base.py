"""The contract of a source."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ae_pipeline.data.pixels import RawSplit, SampleSpec


@dataclass(frozen=True)
class Announced:
    """What a source will bring."""

    spec: SampleSpec
    train_rows: int
    test_rows: int


class Source(ABC):
    """A data set with a train and a test split."""

    @abstractmethod
    def fetch(self, raw: Path) -> None:
        """Put the source's files into the empty folder `raw`, verified.

        Raises DownloadError or DataError that names every place tried and how to supply the files by hand.
        """

    def announce(self) -> Announced | None:
        """What `fetch` would bring, as far as it can be told at once: no network, no values. None: it cannot.

        `ae-pipeline check` asks. Raises DataError where `fetch` would for what is not there.
        """
        return None

    def look_at_first(self) -> SampleSpec | None:
        """Shape and dtype of the row of a first record, where `announce` cannot tell, and reading one record can.

        None where that takes more, and for a record that cannot be read: `fetch` will say so.
        """
        return None

    @abstractmethod
    def read(self, raw: Path) -> dict[str, RawSplit]:
        """`train` and `test` from the files that `fetch` left. Never touches the network."""
