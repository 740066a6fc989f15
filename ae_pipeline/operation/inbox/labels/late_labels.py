"""Labels that come when the rows of their images are in a store already."""

from pathlib import Path

import numpy as np

from ae_pipeline.operation.inbox.batches import stored_labels
from ae_pipeline.operation.inbox.images.converting import read_labels


def why_late(labels: Path, images: str, growing: Path, keys: list[str], unpacked: Path) -> str | None:
    """Why a file of labels cannot be used any more; None if the rows of its images, with these keys, have these labels.

    `unpacked`: where the file may be unpacked. Raises DataError if it is not readable, StoreError.
    """
    stored = stored_labels(growing, keys)
    advice = 'rows in a store never change: deliver both again for another one (docs/operations.md, "Another store")'
    if stored is None:
        return f"came after its images, {images}, whose rows are in a store without labels; {advice}"
    if np.array_equal(read_labels(labels, unpacked, len(stored)), np.array(stored)):
        return None
    return f"has other labels than the rows that its images, {images}, have in a store; {advice}"
