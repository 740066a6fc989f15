"""Which IDX files of an inbox belong together: images and their labels.

    pairs = pair(listing)
    pairs.labels_of["x-images-idx3-ubyte"]    # an InboxFile
    pairs.held["y-images-idx3-ubyte"]         # why it has to wait

Rows never change once they are in a store. So nothing is encoded without labels while it may have some: labels wait for
their images, and images for labels that have not got any.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from ae_pipeline.data.idx import IdxName, idx_name
from ae_pipeline.operation.inbox.files.listing import InboxFile, Listing
from ae_pipeline.operation.inbox.files.names import finished_name, shown


@dataclass
class Pairs:
    """`labels_of`: by the name of the images; `images_of`: the other way round; `held`: why a file has to wait."""

    labels_of: dict[str, InboxFile] = field(default_factory=dict)
    images_of: dict[str, InboxFile] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Named:
    file: InboxFile
    folder: str
    idx: IdxName


def pair(listing: Listing, is_used: Callable[[InboxFile], bool]) -> Pairs:
    """Pair what lies in one folder and is called alike (`idx.idx_name`).

    `is_used`: whether the rows of these labels are in a store. Such labels wait for nothing if their images are gone.
    """
    named = [_Named(file, *found) for file in listing.files if (found := _parse(file.name))]
    labels: defaultdict[tuple[str, str], list[_Named]] = defaultdict(list)
    for item in named:
        if item.idx.role == "labels":
            labels[item.folder, item.idx.key].append(item)
    unfinished = _unfinished_labels(listing)
    pairs = Pairs()
    for item in named:
        if item.idx.role != "images":
            continue
        closest = _closest(item, labels.get((item.folder, item.idx.key), []))
        if len(closest) > 1:
            names = ", ".join(shown(other.file.name) for other in closest)
            pairs.held[item.file.name] = f"it has several files of labels: {names}; keep one of them"
        elif closest:
            pairs.labels_of[item.file.name] = closest[0].file
            pairs.images_of.setdefault(closest[0].file.name, item.file)
        elif (item.folder, item.idx.key) in unfinished:
            pairs.held[item.file.name] = f"its labels are not whole yet: {unfinished[item.folder, item.idx.key]}"
    _hold_single(named, pairs, is_used)
    return pairs


def _hold_single(named: list[_Named], pairs: Pairs, is_used: Callable[[InboxFile], bool]) -> None:
    """Labels without images wait, and so do all images without labels in their folder."""
    images = {(item.folder, item.idx.key) for item in named if item.idx.role == "images"}
    single: dict[str, str] = {}
    for item in named:
        if item.idx.role == "labels" and item.file.name not in pairs.images_of and not is_used(item.file):
            others = (item.folder, item.idx.key) in images
            why = "its images have other labels; take one of the files away" if others else "it waits for its images"
            pairs.held[item.file.name] = why
            if not others:
                single[item.folder] = shown(item.file.name)
    for item in named:
        alone = item.idx.role == "images" and item.file.name not in (*pairs.labels_of, *pairs.held)
        if alone and item.folder in single:
            pairs.held[item.file.name] = (
                f"beside it are labels without images, {single[item.folder]}, which may be its own; rename both alike "
                "(x-images-idx3-ubyte, x-labels-idx1-ubyte), or take the labels away"
            )


def _closest(images: _Named, labels: list[_Named]) -> list[_Named]:
    """The labels with the key of these images that are spelt most alike."""

    def rank(item: _Named) -> int:
        one, other = images.idx.spelling, item.idx.spelling
        alike = [one == other, one.lower() == other.lower(), _unpacked(one) == _unpacked(other), True]
        return alike.index(True)

    best = min(map(rank, labels), default=0)
    return [item for item in labels if rank(item) == best]


def _unpacked(spelling: str) -> str:
    return spelling.lower().removesuffix(".gz")


def _parse(name: str) -> tuple[str, IdxName] | None:
    folder, _, base = name.rpartition("/")
    found = idx_name(base)
    return (folder, found) if found else None


def _unfinished_labels(listing: Listing) -> dict[tuple[str, str], str]:
    """Labels that are still being copied under a name for that, by folder and key."""
    found = {}
    for name in listing.left_alone:
        whole = finished_name(name)
        if whole and (parsed := _parse(whole)) and parsed[1].role == "labels":
            found[parsed[0], parsed[1].key] = shown(name)
    return found
