"""Source `idx`: a local folder of IDX files, gzipped or not, such as one's own data in MNIST's format.

    source: {name: idx, idx: {folder: /data/mine}}

Expects files called as MNIST's, in any of the spellings that `idx.idx_name` knows: images of `train` and of `t10k` or
`test`. Their labels are optional.
"""

from pathlib import Path

import numpy as np

from ae_pipeline.errors import DataError
from ae_pipeline.idx import copy_uncompressed, idx_name, open_idx
from ae_pipeline.pixels import DTYPES
from ae_pipeline.sources.base import RawSplit, Source

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
FILES = (IMAGES["train"], LABELS["train"], IMAGES["test"], LABELS["test"])
_WORDS = {"train": ("train",), "test": ("t10k", "test")}


class IdxSource(Source):
    """IDX files of the user's."""

    def __init__(self, *, folder: str):
        self._folder = Path(folder)

    def fetch(self, raw: Path) -> None:
        """Copy the files into `raw`, uncompressed, under the names of MNIST."""
        if not self._folder.is_dir():
            raise DataError(f"no folder {self._folder}; set source.idx.folder to the one with the IDX files")
        originals: dict[Path, Path] = {}
        for split, words in _WORDS.items():
            images = self._find(split, "images")
            if images is None:
                wanted = " or ".join(f"{word}-images*" for word in words)
                raise DataError(
                    f"no {split} images in {self._folder}; expected a file named {wanted}, such as "
                    f"{words[0]}-images-idx3-ubyte or {words[0]}-images.idx3-ubyte.gz"
                )
            originals[raw / IMAGES[split]] = images
            if labels := self._find(split, "labels"):
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

    def _find(self, split: str, role: str) -> Path | None:
        found = [path for path in sorted(self._folder.iterdir()) if _is(path.name, split, role) and path.is_file()]
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise DataError(f"{self._folder} holds several files for the same {role}: {names}; keep one of them")
        return found[0] if found else None


def _is(file: str, split: str, role: str) -> bool:
    """Whether a file is called so; it may have another ending of one's own, such as `.bin`."""
    name = idx_name(file) or idx_name(Path(file).stem)
    return name is not None and (name.key, name.role) == (split, role)


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
