"""What is new in an inbox: files found, read to their end, and made into sample sets, or put into quarantine.

A file is known by its content, under whatever name. Files are read in name order; the first good one gives a new store
its columns (`columns.py`), and all images of one run make one set. Whatever a file does, the others are taken
(`faults.py`), and nothing is passed over without a word: `InboxRun` names every file that is not in a store.
"""

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.data.idx import idx_name
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.sample_files import PARQUET_SUFFIXES, is_parquet, lost_key
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError, TargetError
from ae_pipeline.evaluation.measures.records.errors import several_kind
from ae_pipeline.files import is_utf8, make_folder, sha256_file
from ae_pipeline.kinds.image_files import IMAGE_SUFFIXES
from ae_pipeline.operation.inbox.batches import InboxRun, known_contents
from ae_pipeline.operation.inbox.columns import FittedFile, columns_for_image
from ae_pipeline.operation.inbox.files.faults import Fault, fault_of, reason_of
from ae_pipeline.operation.inbox.files.ledger import Ledger
from ae_pipeline.operation.inbox.files.listing import FileChangedError, Inbox, InboxFile, why_unsettled
from ae_pipeline.operation.inbox.files.names import IMAGES_NAME, shown
from ae_pipeline.operation.inbox.files.quarantine import Quarantine
from ae_pipeline.operation.inbox.idx import convert_idx, pair, why_late
from ae_pipeline.operation.inbox.images import ImageWriter, read_image
from ae_pipeline.params.operation import InboxParams
from ae_pipeline.sources.own_files.listing import ARRAY_SUFFIXES
from ae_pipeline.sources.own_files.opening import open_data
from ae_pipeline.store.latent_store import LatentStore

_CHANGING = "somebody changed it, or took it away, while it was read"
_READ_KINDS = (
    f"Parquet (*{', *'.join(PARQUET_SUFFIXES)}), IDX (x-images-idx3-ubyte, x-labels.idx1 and the like, also .gz), or "
    f"images (*{', *'.join(IMAGE_SUFFIXES)})"
)


# Commands leave bad records out if they are asked to; an inbox puts the whole file aside.
_SKIPPING = ", or leave it out: --skip-unreadable"


@dataclass(frozen=True)
class _Found:
    """A file that can be read. `local`: the file itself or a copy of it; `digest`: SHA-256 (hex), "" if not known."""

    file: InboxFile
    local: Path
    digest: str = ""
    labels: InboxFile | None = None


class Taking:
    """Finds the files that are new, puts the bad ones into quarantine, and makes sample sets of the rest below `work`.

    The sets live in `work`, or in the inbox itself, until they are appended. `old` is what stands at `store`, if any.
    """

    def __init__(
        self, params: InboxParams, root: Path, header: CodecHeader, work: Path, store: Path, old: LatentStore | None
    ):
        self._inbox = Inbox(params, root)
        self._ledger = Ledger(work / "ledger.json", params.location)
        self._quarantine = Quarantine(root / params.quarantine, self._inbox, self._ledger)
        self._settle_seconds = params.settle_seconds
        self._work = work / "files"
        self._spec, self._kind, self._store = header.spec, header.kind, store
        self._record_suffixes = _record_suffixes(header.kind)
        self._columns = old.attributes_schema() if old else None
        self._known = known_contents(store.parent)
        self._names: dict[str, str] = {}  # of fetched files, for messages
        self._images: ImageWriter | None = None
        self._run = InboxRun()
        self._sets: list[SampleSet] = []

    def take_all(self, failed: dict[str, str]) -> tuple[InboxRun, list[SampleSet]]:
        """Accept every file, put it into quarantine, leave it alone, or say why not. Raises what is no file's fault.

        `failed`: files that this run could not encode, and why; they are not tried again.
        """
        shutil.rmtree(self._work, ignore_errors=True)
        self._run.why_waiting |= self._quarantine.take_back(time.time(), self._settle_seconds)
        self._rejected = self._quarantine.rejected()
        listing = self._inbox.list()
        self._run.left_alone = {shown(name): why for name, why in listing.left_alone.items()}
        self._run.failed = {shown(name): why for name, why in (listing.unreadable | failed).items()}
        self._pairs = pair(listing, self._is_used)
        with ExitStack() as self._stack:
            for file in listing.files:
                if file.name not in failed and file.name not in self._pairs.with_images:  # labels go with their images
                    self._take(file, self._pairs.labels_of.get(file.name), self._pairs.held.get(file.name))
        if self._images:
            self._sets.append(SampleSet.open(self._work / IMAGES_NAME, self._spec))
        self._ledger.save()
        self._run.waiting = len(self._run.why_waiting)
        return self._run, self._sets

    def _take(self, file: InboxFile, labels: InboxFile | None, held: str | None) -> None:
        if why := self._why_unsettled(file, labels):
            self._wait(file, why)
            return
        is_labels = file.name in self._pairs.labels
        try:
            remembered = self._ledger.look_up(file)
            if remembered and self._is_done(*remembered):
                self._refuse_late(labels, file, remembered[1])
            elif is_labels and self._is_used(file):
                self._run.known += 1  # its images are gone
            elif held and (remembered or is_labels):
                self._wait(file, held)
            else:
                self._look_at(file, labels)
        except Exception as error:  # other people's bytes in other people's libraries
            self._give_up(file, _Found(file, Path(file.path)) if self._inbox.is_local else None, error)

    def _look_at(self, file: InboxFile, labels: InboxFile | None) -> None:
        local = self._fetch(file)
        found = _Found(file, local, sha256_file(local), labels)
        keys = [found.digest]
        try:
            if not self._is_done(found.digest, keys):
                keys = self._accept(found)
            self._ledger.note(file, found.digest, keys)
        except Exception as error:
            self._give_up(file, found, error)
        finally:
            used = any(local in samples.files for samples in self._sets[-1:])
            if not self._inbox.is_local and not used:
                local.unlink(missing_ok=True)  # copies of what was converted or known would fill the disk

    def _accept(self, found: _Found) -> list[str]:
        """Keys of a good file, which is taken unless it is known or has to wait. Raises DataError for a bad one."""
        file = found.file
        if not is_utf8(file.name):
            raise DataError(f"{found.local} has a name that is not UTF-8, as names in a store are; rename it")
        suffix = Path(file.name).suffix.lower()
        if suffix in IMAGE_SUFFIXES and suffix not in self._record_suffixes:
            self._add_image(found)
            keys = [found.digest]
        else:
            samples = self._open(found)
            keys = [samples.shard_digest(shard) for shard in samples.shards]
            if self._is_done("", keys):
                self._refuse_late(found.labels, file, keys)
                return keys
            samples.check()
            if file.name in self._pairs.held:
                self._wait(file, self._pairs.held[file.name])
                return keys
            self._inbox.check_unchanged(file)
            self._columns = samples.columns
            self._sets.append(samples)
            if found.labels:
                self._ledger.note(found.labels, self._digest(found.labels), keys)
        self._known.update(keys)
        self._run.files.append(file.name)
        return keys

    def _add_image(self, found: _Found) -> None:
        image = read_image(found.local, self._spec)
        columns = columns_for_image(found.local, self._columns, self._store)
        self._inbox.check_unchanged(found.file)
        if self._images is None:
            self._images = ImageWriter(self._work / IMAGES_NAME, columns, self._spec)
            self._stack.enter_context(self._images)
        self._images.add(found.file.name, found.digest, image.pixels)
        self._columns = columns
        self._run.colour_to_grey += image.lost_colour
        self._run.transparency_dropped += image.lost_transparency

    def _open(self, found: _Found) -> FittedFile:
        file, path = PurePosixPath(found.file.name), found.local
        converted = idx_name(file.name) is not None
        if converted:
            path = self._work / f"idx-{found.digest[:16]}" / file.name
            make_folder(path.parent)
            self._names[str(path)] = found.file.name
            convert_idx(found.local, self._fetch(found.labels) if found.labels else None, path, self._spec)
        elif not self._is_read(path):
            files = (
                f"; files of one record each (*{', *'.join(self._record_suffixes)})" if self._record_suffixes else ""
            )
            raise DataError(f"{path} is of no kind that is read; expected {_READ_KINDS}{files}")
        try:
            samples = open_data(path, None if converted else self._kind, self._spec)
        except DataError as error:
            raise error.renamed({_SKIPPING: ""}) from None
        if not converted and (lost := lost_key(file, samples.attributes_schema.names)):
            raise DataError(
                f"{path} lies in the folder `{lost}`, whose key would be lost: an inbox makes no columns of folders; "
                "add it to the file as a column, or rename the folder"
            )
        return FittedFile(samples, found.file.name, found.digest, self._columns, self._store, converted=converted)

    def _is_read(self, path: Path) -> bool:
        suffixes = (*self._record_suffixes, *(ARRAY_SUFFIXES if self._kind else ()))
        return path.suffix.lower() in suffixes or is_parquet(path)

    def _fetch(self, file: InboxFile) -> Path:
        local = self._inbox.fetch(file, self._work / "fetched")
        self._names[str(local)] = file.name
        return local

    def _is_done(self, digest: str, keys: list[str]) -> bool:
        """Whether the file is in a store or taken already (counted), or in quarantine and still in a URL's inbox."""
        done = self._has_all(keys)
        self._run.known += done
        return done or digest in self._rejected

    def _has_all(self, keys: list[str]) -> bool:
        return bool(keys) and self._known.issuperset(keys)

    def _is_used(self, labels: InboxFile) -> bool:
        """Whether these labels are known to be in a store, with their images."""
        remembered = self._ledger.look_up(labels)
        if remembered is None and (before := self._ledger.before(labels)):
            if before[0] != self._digest(labels):
                return False
            remembered = before
            self._ledger.note(labels, *before)
        return remembered is not None and self._has_all(remembered[1])

    def _digest(self, file: InboxFile) -> str:
        """SHA-256 (hex) of a file; "" if it cannot be read: then it goes to the quarantine unread, or waits."""
        try:
            return sha256_file(self._fetch(file))
        except Exception as error:
            if fault_of(error) is Fault.RUN:
                raise
            return ""

    def _refuse_late(self, labels: InboxFile | None, images: InboxFile, keys: list[str]) -> None:
        """Put labels into quarantine that came, or changed, after their images were encoded: rows stay as they are."""
        if labels is None or not self._has_all(keys) or self._is_used(labels):
            return
        found = _Found(labels, self._fetch(labels), self._digest(labels))
        make_folder(self._work)
        try:
            why = why_late(found.local, shown(images.name), self._store.parent, keys, self._work / "labels")
        except DataError as error:
            self._give_up(labels, found, error)
            return
        if why is None:
            self._ledger.note(labels, found.digest, keys)
        else:
            self._put_aside(found, f"{shown(labels.name)} {why}")

    def _why_unsettled(self, file: InboxFile, labels: InboxFile | None) -> str | None:
        for one in (file, labels) if labels else (file,):
            if why := why_unsettled(one, self._ledger.unchanged_for, self._settle_seconds, time.time()):
                return why if one is file else f"its labels, {shown(one.name)}: {why}"
        return None

    def _wait(self, file: InboxFile, why: str) -> None:
        self._run.why_waiting[shown(file.name)] = why

    def _give_up(self, file: InboxFile, found: _Found | None, error: Exception) -> None:
        """What becomes of a file that raised this; `found` is None where it could not be had.

        Raises what is no file's fault.
        """
        fault = fault_of(error)
        if fault is Fault.RUN:
            raise error
        reason = reason_of(error, self._names)
        if fault is Fault.CHANGING:
            self._wait(file, _CHANGING)
        elif found is not None and isinstance(error, PermissionError):
            self._put_aside(found, f"{reason}; give permission, and put it into the inbox again")
        elif found is None or fault is Fault.STORAGE:
            self._run.failed[shown(file.name)] = reason
        else:
            self._put_aside(found, reason)

    def _put_aside(self, found: _Found, reason: str) -> None:
        name, labels = shown(found.file.name), found.labels
        try:
            self._quarantine.put(found.file, found.local, found.digest, reason)
        except (OSError, TargetError, FileChangedError) as error:
            if isinstance(error, OSError) and fault_of(error) is Fault.RUN:
                raise
            if fault_of(error) is Fault.CHANGING:
                self._wait(found.file, _CHANGING)
                return
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._run.failed[name] = f"{reason}; and it cannot be put into quarantine: {shown(said)}"
            return
        self._run.quarantined[name] = reason
        self._ledger.note(found.file, found.digest, [])
        if labels and list(self._pairs.labels_of.values()).count(labels) == 1:
            beside = _Found(labels, self._fetch(labels), self._digest(labels))
            self._put_aside(beside, f"{name}, which it belongs to: {reason}")


def _record_suffixes(entry: KindEntry | None) -> tuple[str, ...]:
    """Endings of files that are one record of several rows each, as clips are; a part of the store is made of each."""
    known = several_kind(entry)
    return known[0].suffixes if known else ()
