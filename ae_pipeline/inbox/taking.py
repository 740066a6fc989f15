"""What is new in an inbox: files found, read to their end, and made into sample sets, or put into quarantine.

    taken = take_new(params.inbox, root, codec.spec, known_contents(growing), work, columns=None, store=store)
    taken.sets, taken.files, taken.quarantined

A file is known by its content, under whatever name. Files are read in name order; the first good one gives a new store
its columns (`columns.py`), and all images of one run make one set.
"""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ae_pipeline.errors import DataError, first_line
from ae_pipeline.files import make_folder, sha256_file
from ae_pipeline.inbox.columns import FittedFile, check_image_fits, new_columns
from ae_pipeline.inbox.converting import (
    IMAGES_NAME,
    ImageBatch,
    convert_idx,
    is_idx,
    labels_names,
)
from ae_pipeline.inbox.files import Inbox, InboxFile, Ledger
from ae_pipeline.inbox.images import IMAGE_SUFFIXES, read_image
from ae_pipeline.params_operation import InboxParams
from ae_pipeline.pixels import SampleSpec
from ae_pipeline.samples import SampleSet


@dataclass
class Taken:
    """What is new: `sets` are ready to be appended. Files go by their path in the inbox."""

    sets: list[SampleSet] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    known: int = 0
    colour_to_grey: int = 0
    transparency_dropped: int = 0


def take_new(
    params: InboxParams,
    root: Path,
    spec: SampleSpec,
    known: set[str],
    work: Path,
    *,
    columns: pa.Schema | None,
    store: Path,
) -> Taken:
    """Find the files that are new, put the bad ones into quarantine, and make sample sets of the rest below `work`.

    `known` is what `known_contents` gives; `columns` the attributes of `store` (named in messages), None if it is
    not there yet. The sets live in `work`, or in the inbox itself, until they are appended. All images make one set.
    """
    inbox = Inbox(params, root)
    inbox.sweep()
    found = inbox.files()
    ledger = Ledger(work / "ledger.json", params.location)
    shutil.rmtree(work / "files", ignore_errors=True)
    with ExitStack() as stack:
        taking = _Taking(inbox, found, ledger, spec, set(known), work / "files", columns, store, stack)
        for file in found:
            taking.take(file)
    if taking.images:
        taking.taken.sets.append(SampleSet.open(taking.images_path, spec))
    ledger.save()
    return taking.taken


class _Taking:
    """Looks at one file after the other."""

    def __init__(
        self,
        inbox: Inbox,
        found: list[InboxFile],
        ledger: Ledger,
        spec: SampleSpec,
        known: set[str],
        work: Path,
        columns: pa.Schema | None,
        store: Path,
        stack: ExitStack,
    ):
        self.taken = Taken()
        self.images: ImageBatch | None = None
        self.images_path = work / IMAGES_NAME
        self._inbox, self._ledger, self._spec, self._work, self._stack = inbox, ledger, spec, work, stack
        self._columns, self._store = columns, store
        self._known = known
        self._names: dict[str, str] = {}  # of local copies, for messages
        self._rejected = inbox.put_aside_before()
        self._by_name = {file.name: file for file in found}
        self._labels_of = {
            labels: file for file in found for labels in labels_names(file.name) if labels in self._by_name
        }

    def take(self, file: InboxFile) -> None:
        """Accept a file, put it into quarantine, or leave it alone."""
        if file.name in self._labels_of:
            return  # goes with its images
        labels = next((self._by_name[name] for name in labels_names(file.name) if name in self._by_name), None)
        if not file.settled or (labels and not labels.settled):
            self.taken.waiting += 1
            return
        remembered = self._ledger.look_up(file)
        if remembered and self._is_done(*remembered):
            return
        try:
            self._look_at(file, labels)
        except FileNotFoundError:
            self.taken.waiting += 1  # somebody took it away, or is replacing it, while we looked
        except PermissionError as error:
            reason = f"{file.name} cannot be read ({error.strerror}); give permission, and put it into the inbox again"
            self._put_aside(file, Path(file.path), "", reason, None)

    def _look_at(self, file: InboxFile, labels: InboxFile | None) -> None:
        local = self._fetch(file)
        try:
            self._decide(file, local, labels)
        finally:
            used = any(local in samples.files for samples in self.taken.sets[-1:])
            if not self._inbox.is_local and not used:
                local.unlink(missing_ok=True)  # copies of what was converted or known would fill the disk

    def _decide(self, file: InboxFile, local: Path, labels: InboxFile | None) -> None:
        digest = sha256_file(local)
        if self._is_done(digest, [digest]):
            self._ledger.note(file, digest, [digest])
            return
        try:
            keys = self._accept(file, local, labels, digest)
        except MemoryError:  # Arrow's is one of its exceptions, and not the file's fault
            raise
        except (DataError, pa.ArrowException) as error:
            reason = first_line(error)
            for path, name in self._names.items():
                reason = reason.replace(path, name)
            self._put_aside(file, local, digest, reason, labels)
        else:
            self._ledger.note(file, digest, keys)

    def _fetch(self, file: InboxFile) -> Path:
        local = self._inbox.fetch(file, self._work / "fetched")
        self._names[str(local)] = file.name
        return local

    def _is_done(self, digest: str, keys: list[str]) -> bool:
        """Whether the file is in a store or taken already (counted), or in quarantine and still in a URL's inbox."""
        done = bool(keys) and set(keys) <= self._known
        self.taken.known += done
        return done or digest in self._rejected

    def _accept(self, file: InboxFile, local: Path, labels: InboxFile | None, digest: str) -> list[str]:
        """Keys of a good file, which is new unless they are known. Raises DataError for a bad one."""
        if Path(file.name).suffix.lower() in IMAGE_SUFFIXES:
            self._add_image(file, local, digest)
            keys = [digest]
        else:
            samples = self._open(file, local, labels, digest)
            keys = [samples.shard_digest(shard) for shard in samples.shards]
            if self._is_done("", keys):
                return keys
            samples.check()
            self._columns = samples.columns
            self.taken.sets.append(samples)
        self._known.update(keys)
        self.taken.files.append(file.name)
        return keys

    def _add_image(self, file: InboxFile, local: Path, digest: str) -> None:
        image = read_image(local, self._spec)
        columns = new_columns(pa.schema([]), converted=True) if self._columns is None else self._columns
        check_image_fits(local, columns, self._store)
        if self.images is None:
            make_folder(self._work)
            self.images = self._stack.enter_context(ImageBatch(self.images_path, columns, self._spec))
        self.images.add(file.name, digest, image.pixels)
        self._columns = columns
        self.taken.colour_to_grey += image.lost_colour
        self.taken.transparency_dropped += image.lost_transparency

    def _open(self, file: InboxFile, local: Path, labels: InboxFile | None, digest: str) -> FittedFile:
        path, converted = local, is_idx(file.name)
        if converted:
            path = self._work / f"idx-{digest[:16]}" / Path(file.name).name
            make_folder(path.parent)
            self._names[str(path)] = file.name
            convert_idx(local, self._fetch(labels) if labels else None, path, self._spec)
        elif not file.name.lower().endswith(".parquet"):
            kinds = f"*.parquet, *idx*-ubyte, *idx*-ubyte.gz, *{', *'.join(IMAGE_SUFFIXES)}"
            raise DataError(f"{local} is of no kind that is read; expected {kinds}")
        samples = SampleSet.open(path, self._spec)
        return FittedFile(samples, file.name, digest, self._columns, self._store, converted=converted)

    def _put_aside(self, file: InboxFile, local: Path, digest: str, reason: str, labels: InboxFile | None) -> None:
        self._inbox.put_aside(file, local, digest, reason)
        self.taken.quarantined[file.name] = reason
        self._ledger.note(file, digest, [])
        if labels:
            path = self._fetch(labels)
            self._put_aside(labels, path, sha256_file(path), f"{file.name}, which it belongs to: {reason}", None)
