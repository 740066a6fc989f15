"""Source `idx`: a local folder of IDX files, gzipped or not, such as one's own data in MNIST's format.

    source: {name: idx, idx: {folder: /data/mine}}

Expects train-images* and t10k-images* (or test-images*); train-labels* and t10k-labels* (or test-labels*) are optional.
"""

from pathlib import Path

import numpy as np

from ae_pipeline.errors import DataError
from ae_pipeline.idx import copy_uncompressed, open_idx
from ae_pipeline.pixels import DTYPES
from ae_pipeline.sources.base import RawSplit, Source

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
FILES = (IMAGES["train"], LABELS["train"], IMAGES["test"], LABELS["test"])
_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}


class IdxSource(Source):
    """IDX files of the user's."""

    def __init__(self, *, folder: str):
        self._folder = Path(folder)

    def fetch(self, raw: Path) -> None:
        """Copy the files into `raw`, uncompressed, under the names of MNIST."""
        if not self._folder.is_dir():
            raise DataError(f"no folder {self._folder}; set source.idx.folder to the one with the IDX files")
        originals: dict[Path, Path] = {}
        for split, prefixes in _PREFIXES.items():
            images = self._find(prefixes, "images")
            if images is None:
                wanted = " or ".join(f"{prefix}-images*" for prefix in prefixes)
                raise DataError(f"no {split} images in {self._folder}; expected a file named {wanted}")
            originals[raw / IMAGES[split]] = images
            if labels := self._find(prefixes, "labels"):
                originals[raw / LABELS[split]] = labels
        for copy, original in originals.items():
            copy_uncompressed(original, copy)
        try:
            self.read(raw)
        except DataError as error:
            message = str(error)
            for copy, original in (*originals.items(), (raw, self._folder)):  # the user's files, not the copies
                message = message.replace(str(copy), str(original))
            raise DataError(message) from None

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps of the files."""
        return read_idx_splits(raw)

    def _find(self, prefixes: tuple[str, ...], what: str) -> Path | None:
        named = [path for prefix in prefixes for path in sorted(self._folder.glob(f"{prefix}-{what}*"))]
        found = [path for path in named if path.is_file()]
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise DataError(f"{self._folder} holds several files for the same {what}: {names}; keep one of them")
        return found[0] if found else None


def read_idx_splits(raw: Path) -> dict[str, RawSplit]:
    """Both splits from IDX files under MNIST's names; test ids follow the train ids."""
    splits: dict[str, RawSplit] = {}
    first_id = 0
    for split in ("train", "test"):
        images = open_idx(raw / IMAGES[split])
        if images.dtype.newbyteorder("=").name not in DTYPES or images.ndim < 2:
            raise DataError(
                f"{raw / IMAGES[split]} holds {images.dtype.newbyteorder('=').name} of shape {list(images.shape)}; "
                f"expected at least two dimensions of {', '.join(DTYPES)}"
            )
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise DataError(f"{raw / IMAGES[split]} has NaN or infinite pixels; remove or repair those rows first")
        attributes = {}
        if (raw / LABELS[split]).exists():
            labels = open_idx(raw / LABELS[split])
            if labels.shape != images.shape[:1]:
                raise DataError(
                    f"{raw / LABELS[split]} has shape {list(labels.shape)}; expected one label for each of "
                    f"{len(images)} images"
                )
            attributes["label"] = labels
        splits[split] = RawSplit(images, attributes, first_id)
        first_id += len(images)
    if splits["train"].pixels.shape[1:] != splits["test"].pixels.shape[1:]:
        shapes = {name: list(split.pixels.shape[1:]) for name, split in splits.items()}
        raise DataError(f"train and test images in {raw} differ in shape: {shapes}; expected one shape")
    return splits


SOURCE = IdxSource
