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


class IdxSource(Source):
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
        found: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        for split, name in IMAGES.items():
            dtype, shape = describe_idx(originals[name])
            _check_images(originals[name], dtype, shape)
            found[split] = dtype, shape
            if (labels := originals.get(LABELS[split])) is not None:
                _check_labels(labels, describe_idx(labels)[1], shape[0])
        _check_alike(self._folder, found)
        dtype, (train_rows, *sample_shape) = found["train"]
        spec = SampleSpec(tuple(sample_shape), dtype.newbyteorder("=").name)
        return Announced(spec, train_rows, found["test"][1][0])

    def read(self, raw: Path) -> dict[str, RawSplit]:
        """Memory maps of the files."""
        return read_idx_splits(raw)

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


def read_idx_splits(raw: Path) -> dict[str, RawSplit]:
    """Both splits from IDX files under MNIST's names; test ids follow the train ids."""
    splits: dict[str, RawSplit] = {}
    first_id = 0
    for split in ("train", "test"):
        images = open_idx(raw / IMAGES[split])
        _check_images(raw / IMAGES[split], images.dtype, images.shape)
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            advice = "remove or repair those rows first"
            raise DataError("has NaN or infinite pixels", place=raw / IMAGES[split], advice=advice)
        attributes = {}
        if (raw / LABELS[split]).exists():
            labels = open_idx(raw / LABELS[split])
            _check_labels(raw / LABELS[split], labels.shape, len(images))
            attributes["label"] = labels
        splits[split] = RawSplit(images, attributes, first_id)
        first_id += len(images)
    _check_alike(raw, {name: (split.pixels.dtype, split.pixels.shape) for name, split in splits.items()})
    return splits


def _check_images(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.newbyteorder("=").name not in DTYPES or len(shape) < 2:
        found = f"holds {dtype.newbyteorder('=').name} of shape {list(shape)}"
        raise DataError(found, place=path, advice=f"expected at least two dimensions of {', '.join(DTYPES)}")


def _check_labels(path: Path, shape: tuple[int, ...], rows: int) -> None:
    if shape != (rows,):
        advice = f"expected one label for each of {rows} images"
        raise DataError(f"has shape {list(shape)}", place=path, advice=advice)


def _check_alike(folder: Path, found: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
    """Both splits have one shape and one type: a codec that is trained on one is measured on the other."""
    shapes = {name: list(shape[1:]) for name, (_, shape) in found.items()}
    if shapes["train"] != shapes["test"]:
        differ = f"has train and test images that differ in shape: {shapes}"
        raise DataError(differ, place=folder, advice="expected one shape")
    types = {name: dtype.newbyteorder("=").name for name, (dtype, _) in found.items()}
    if types["train"] != types["test"]:
        differ = f"has train and test images that differ in type: {types}"
        raise DataError(differ, place=folder, advice="expected one type")


SOURCE = IdxSource
