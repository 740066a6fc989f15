"""Source `idx`: a local folder of IDX files, gzipped or not, such as one's own data in MNIST's format.

    source: {name: idx, idx: {folder: /data/mine}}

Expects files called as MNIST's, in any of the spellings that `idx.idx_name` knows: images of `train` and of `t10k` or
`test`. Their labels are optional.
"""

from pathlib import Path

import numpy as np

from ae_pipeline.data.idx import copy_uncompressed, describe_idx, idx_name, open_idx
from ae_pipeline.data.pixels import DTYPES, RawSplit, SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.sources.base import Announced, Source

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
FILES = (IMAGES["train"], LABELS["train"], IMAGES["test"], LABELS["test"])
_WORDS = {"train": ("train",), "test": ("t10k", "test")}


class IdxFiles(Source):
    """A source that leaves IDX files under MNIST's names."""

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps of the files; test ids follow the train ids."""
        images = {split: open_idx(raw / name) for split, name in IMAGES.items()}
        for split, values in images.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                advice = "remove or repair those rows first"
                raise DataError("has NaN or infinite pixels", place=raw / IMAGES[split], advice=advice)
        labelled = [name for name in LABELS.values() if (raw / name).exists()]
        _checked({name: raw / name for name in (*IMAGES.values(), *labelled)}, raw)
        splits: dict[str, RawSplit] = {}
        first_id = 0
        for split, pixels in images.items():
            attributes = {"label": open_idx(raw / LABELS[split])} if LABELS[split] in labelled else {}
            splits[split] = RawSplit(pixels, attributes, first_id)
            first_id += len(pixels)
        return splits


class IdxSource(IdxFiles):
    """IDX files of the user's."""

    def __init__(self, *, folder: str):
        self._folder = Path(folder)

    def fetch(self, raw: Path) -> None:
        """Copy the files into `raw`, uncompressed, under the names of MNIST."""
        originals = {raw / name: path for name, path in self._originals().items()}
        for copy, original in originals.items():
            copy_uncompressed(original, copy)
        try:
            self.read(raw)
        except DataError as error:  # about the copies
            original = originals.get(Path(error.place or raw), self._folder)
            raise error.with_fields(place=original) from None

    def announce(self) -> Announced:
        """What the headers of the user's files say."""
        originals = self._originals()
        found = _checked(originals, self._folder)
        dtype, (train_rows, *sample_shape) = found["train"]
        return Announced(SampleSpec(tuple(sample_shape), dtype), train_rows, found["test"][1][0])

    def _originals(self) -> dict[str, Path]:
        """The user's files by their names in MNIST. Raises DataError where images are missing."""
        if not self._folder.is_dir():
            raise DataError(f"no folder {self._folder}; set source.idx.folder to the one with the IDX files")
        originals: dict[str, Path] = {}
        for split, words in _WORDS.items():
            images = self._find(split, "images")
            if images is None:
                wanted = " or ".join(f"{word}-images*" for word in words)
                raise DataError(
                    f"no {split} images in {self._folder}; expected a file named {wanted}, such as "
                    f"{words[0]}-images-idx3-ubyte or {words[0]}-images.idx3-ubyte.gz"
                )
            originals[IMAGES[split]] = images
            if labels := self._find(split, "labels"):
                originals[LABELS[split]] = labels
        return originals

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


def _checked(files: dict[str, Path], folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each split's images, from the headers of `files`, which stand under their names in MNIST.

    Raises DataError unless they are images, with one label each, and both splits have one shape and one type: a codec
    that is trained on one is measured on the other.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for split, name in IMAGES.items():
        stored, shape = describe_idx(files[name])
        dtype = stored.newbyteorder("=").name
        if dtype not in DTYPES or len(shape) < 2:
            what = f"holds {dtype} of shape {list(shape)}"
            raise DataError(what, place=files[name], advice=f"expected at least two dimensions of {', '.join(DTYPES)}")
        if labels := files.get(LABELS[split]):
            _, labelled = describe_idx(labels)
            if labelled != shape[:1]:
                advice = f"expected one label for each of {shape[0]} images"
                raise DataError(f"has shape {list(labelled)}", place=labels, advice=advice)
        found[split] = dtype, shape
    shapes = {split: list(shape[1:]) for split, (_, shape) in found.items()}
    types = {split: dtype for split, (dtype, _) in found.items()}
    for what, of_split in (("shape", shapes), ("type", types)):
        if of_split["train"] != of_split["test"]:
            differ = f"has train and test images that differ in {what}: {of_split}"
            raise DataError(differ, place=folder, advice=f"expected one {what}")
    return found


SOURCE = IdxSource
