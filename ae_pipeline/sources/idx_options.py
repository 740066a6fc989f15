"""Options of the source `idx`."""

import os
import re
from collections.abc import Sequence
from typing import Any

from ae_pipeline.params.base import SourceOptions

# Each name that data/idx.py takes for one of an IDX file has one of these words.
_WORDS = re.compile(r"image|label|idx", re.IGNORECASE)


class Options(SourceOptions):
    """The folder with the files."""

    folder: str = "data/idx"
    """Folder with train-images*, t10k-images* (or test-images*) and optional labels, gzipped or not."""

    def state_of_files(self) -> Sequence[Any]:
        from ae_pipeline.files import recorded_name
        from ae_pipeline.sources.own_files.places.states import state_of

        with os.scandir(self.folder) as entries:
            found = [(recorded_name(entry.name), entry.stat()) for entry in entries if _WORDS.search(entry.name)]
        return sorted(state_of(name, status) for name, status in found)
