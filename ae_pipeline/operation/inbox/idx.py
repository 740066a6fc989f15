"""The IDX files of an inbox: which images and labels belong together, and their rows as samples.

Rows never change once they are in a store. So nothing is encoded without labels while it may have some: labels wait for
their images, and images for labels that have not got any. Labels that came after their images cannot be used any more.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ae_pipeline.data.idx import copy_uncompressed, idx_name, open_idx
from ae_pipeline.data.pixels import RawSplit, SampleSpec
from ae_pipeline.data.splits import write_shard
from ae_pipeline.errors import DataError
from ae_pipeline.operation.inbox.batches import stored_labels
from ae_pipeline.operation.inbox.columns import LABEL
from ae_pipeline.operation.inbox.files.listing import InboxFile, Listing
from ae_pipeline.operation.inbox.files.names import finished_name, shown


@dataclass
class Pairs:
    """`labels`: names of all files of labels; `with_images`: of those that go with their images.

    `labels_of`: by the name of the images; `held`: why a file has to wait.
    """

    labels: set[str]
    with_images: set[str] = field(default_factory=set)
    labels_of: dict[str, InboxFile] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Named:
    """A file that may be IDX by its name. `place`, its folder and key, is the same for what may belong together."""

    name: str
    role: str
    place: tuple[str, str]
    spelling: str


def pair(listing: Listing, is_used: Callable[[InboxFile], bool]) -> Pairs:
    """Pair what lies in one folder and is called alike (`idx.idx_name`).

    `is_used`: whether the rows of these labels are in a store. Such labels wait for nothing if their images are gone.
    """
    files = {file.name: file for file in listing.files}
    named = [found for found in map(_parse, files) if found]
    images = [item for item in named if item.role == "images"]
    labels = [item for item in named if item.role == "labels"]
    labels_at: defaultdict[tuple[str, str], list[_Named]] = defaultdict(list)
    for item in labels:
        labels_at[item.place].append(item)
    # What is still being copied has a name for that.
    copied = ((name, _parse(finished_name(name) or "")) for name in listing.left_alone)
    unfinished = {whole.place: shown(name) for name, whole in copied if whole and whole.role == "labels"}
    pairs = Pairs({item.name for item in labels})
    for item in images:
        closest = _closest(item, labels_at[item.place])
        if len(closest) > 1:
            names = ", ".join(shown(other.name) for other in closest)
            pairs.held[item.name] = f"it has several files of labels: {names}; keep one of them"
        elif closest:
            pairs.labels_of[item.name] = files[closest[0].name]
            pairs.with_images.add(closest[0].name)
        elif item.place in unfinished:
            pairs.held[item.name] = f"its labels are not whole yet: {unfinished[item.place]}"
    single = [item for item in labels if item.name not in pairs.with_images and not is_used(files[item.name])]
    _hold_single(images, single, pairs)
    return pairs


def _parse(name: str) -> _Named | None:
    folder, _, base = name.rpartition("/")
    found = idx_name(base)
    return _Named(name, found.role, (folder, found.key), found.spelling) if found else None


def _hold_single(images: list[_Named], single: list[_Named], pairs: Pairs) -> None:
    """Labels without images wait, and so do all images without labels in their folder."""
    with_images = {item.place for item in images}
    waiting: dict[str, str] = {}
    for item in single:
        if item.place in with_images:
            pairs.held[item.name] = "its images have other labels; take one of the files away"
        else:
            pairs.held[item.name] = "it waits for its images"
            waiting[item.place[0]] = shown(item.name)
    for item in images:
        folder = item.place[0]
        if folder in waiting and item.name not in pairs.labels_of and item.name not in pairs.held:
            pairs.held[item.name] = (
                f"beside it are labels without images, {waiting[folder]}, which may be its own; rename both alike "
                "(x-images-idx3-ubyte, x-labels-idx1-ubyte), or take the labels away"
            )


def _closest(images: _Named, labels: list[_Named]) -> list[_Named]:
    """The labels with the key of these images that are spelt most alike."""

    def likeness(item: _Named) -> list[bool]:
        one, other = images.spelling, item.spelling
        unpacked = [spelling.lower().removesuffix(".gz") for spelling in (one, other)]
        return [one == other, one.lower() == other.lower(), unpacked[0] == unpacked[1]]

    best = max(map(likeness, labels), default=[])
    return [item for item in labels if likeness(item) == best]


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


def convert_idx(source: Path, labels: Path | None, target: Path, spec: SampleSpec) -> None:
    """Write the rows of an IDX file as a canonical shard: ids are row numbers, labels the attribute `label`.

    Raises DataError if it or its labels do not fit.
    """
    unpacked = target.with_name("unpacked")
    values = _open(source, unpacked)
    if values.ndim == 1:
        raise DataError(
            f"{source} has one dimension, as labels have, but there is no file of images that it belongs to"
        )
    found = f"{values.dtype.newbyteorder('=').name} {'x'.join(map(str, values.shape[1:]))}"
    if found != spec.describe():
        raise DataError(f"{source} holds samples of {found}, expected {spec.describe()} as the codec has")
    attributes = {LABEL: read_labels(labels, target.with_name("labels"), len(values))} if labels else {}
    # Its final name may be as long as names can be, and has no room for what an unfinished file is called.
    short = target.with_name("converted.parquet")
    write_shard(short, RawSplit(values, attributes, 0), np.arange(len(values)))
    short.rename(target)


def read_labels(source: Path, unpacked: Path, rows: int) -> np.ndarray:
    """The labels (rows,) of an IDX file, which is unpacked there. Raises DataError unless they are so many."""
    labels = _open(source, unpacked)
    if labels.shape != (rows,):
        raise DataError(f"{source} has shape {list(labels.shape)}; expected one label for each of {rows} images")
    return np.array(labels, labels.dtype.newbyteorder("="))


def _open(source: Path, unpacked: Path) -> np.ndarray:
    try:
        copy_uncompressed(source, unpacked)
        return open_idx(unpacked)
    except DataError as error:
        raise error.with_fields(place=source) from None
