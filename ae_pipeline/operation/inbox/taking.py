"""What is new in an inbox: files found, read to their end, and made into sample sets, or put into quarantine.

    taken = take_new(params.inbox, root, codec.spec, known_contents(growing), work, columns=None, store=store)
    taken.sets, taken.files, taken.quarantined

A file is known by its content, under whatever name. Files are read in name order; the first good one gives a new store
its columns (`columns.py`), and all images of one run make one set. Whatever a file does, the others are taken
(`faults.py`), and nothing is passed over without a word: `Taken` names every file that is not in a store.
"""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pyarrow as pa

from ae_pipeline.data.idx import idx_name
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.sample_files import PARQUET_SUFFIXES, is_parquet, lost_key
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError, TargetError
from ae_pipeline.files import is_utf8, make_folder, sha256_file
from ae_pipeline.operation.inbox.columns import FittedFile, check_image_fits, new_columns
from ae_pipeline.operation.inbox.files.faults import Fault, fault_of, reason_of
from ae_pipeline.operation.inbox.files.ledger import Ledger
from ae_pipeline.operation.inbox.files.listing import Inbox, InboxFile, why_unsettled
from ae_pipeline.operation.inbox.files.names import shown
from ae_pipeline.operation.inbox.files.quarantine import FileChangedError, Quarantine
from ae_pipeline.operation.inbox.files.read_again import check_readable_again
from ae_pipeline.operation.inbox.images.converting import IMAGES_NAME, ImageBatch, convert_idx
from ae_pipeline.operation.inbox.images.reading import IMAGE_SUFFIXES, read_image
from ae_pipeline.operation.inbox.labels.late_labels import why_late
from ae_pipeline.operation.inbox.labels.pairing import pair
from ae_pipeline.operation.inbox.taken import Taken
from ae_pipeline.params.operation import InboxParams

_CHANGING = "somebody changed it, or took it away, while it was read"
_READ_KINDS = (
    f"Parquet (*{', *'.join(PARQUET_SUFFIXES)}), IDX (x-images-idx3-ubyte, x-labels.idx1 and the like, also .gz), or "
    f"images (*{', *'.join(IMAGE_SUFFIXES)})"
)


class _HeldError(Exception):
    """The file is good, but has to wait."""


def take_new(
    params: InboxParams,
    root: Path,
    spec: SampleSpec,
    known: set[str],
    work: Path,
    *,
    columns: pa.Schema | None,
    store: Path,
    failed: dict[str, str] | None = None,
) -> Taken:
    """Find the files that are new, put the bad ones into quarantine, and make sample sets of the rest below `work`.

    `known` is what `known_contents` gives; `columns` the attributes of `store` (named in messages), None if it is
    not there yet. The sets live in `work`, or in the inbox itself, until they are appended. All images make one set.
    `failed`: files that this run could not encode, and why; they are not tried again. Raises what is no file's fault.
    """
    inbox = Inbox(params, root)
    ledger = Ledger(work / "ledger.json", params.location)
    shutil.rmtree(work / "files", ignore_errors=True)
    with ExitStack() as stack:
        taking = _Taking(inbox, ledger, params, root, spec, set(known), work / "files", columns, store, stack)
        taking.take_all(failed or {})
    if taking.images:
        taking.taken.sets.append(SampleSet.open(taking.images_path, spec))
    ledger.save()
    return taking.taken


class _Taking:
    """Looks at one file after the other."""

    def __init__(
        self,
        inbox: Inbox,
        ledger: Ledger,
        params: InboxParams,
        root: Path,
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
        self._settle_seconds = params.settle_seconds
        self._quarantine = Quarantine(root / params.quarantine, inbox, ledger)

    def take_all(self, failed: dict[str, str]) -> None:
        """Accept every file, put it into quarantine, leave it alone, or say why not."""
        self._quarantine.sweep()
        self.taken.why_waiting |= self._quarantine.take_back(time.time(), self._settle_seconds)
        self._rejected = self._quarantine.rejected()
        listing = self._inbox.list()
        self.taken.left_alone = {shown(name): why for name, why in listing.left_alone.items()}
        self.taken.failed = {shown(name): why for name, why in (listing.unreadable | failed).items()}
        self._pairs = pair(listing, self._is_used)
        for file in listing.files:
            if file.name not in failed and file.name not in self._pairs.images_of:  # labels go with their images
                self._take(file)

    def _take(self, file: InboxFile) -> None:
        labels = self._pairs.labels_of.get(file.name)
        held = self._pairs.held.get(file.name)
        if why := self._why_unsettled(file, labels):
            self._wait(file, why)
            return
        try:
            remembered = self._ledger.look_up(file)
            if remembered and self._is_done(*remembered):
                self._refuse_late(labels, file, remembered[1])
            elif self._is_labels(file) and self._is_used(file):
                self.taken.known += 1  # its images are gone
            elif held and (remembered or self._is_labels(file)):
                self._wait(file, held)
            else:
                self._look_at(file, labels)
        except Exception as error:  # other people's bytes in other people's libraries
            self._give_up(file, Path(file.path) if self._inbox.is_local else None, "", error, None)

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
        except _HeldError:
            self._wait(file, self._pairs.held[file.name])
        except Exception as error:
            self._give_up(file, local, digest, error, labels)
        else:
            self._ledger.note(file, digest, keys)

    def _accept(self, file: InboxFile, local: Path, labels: InboxFile | None, digest: str) -> list[str]:
        """Keys of a good file, which is new unless they are known. Raises DataError for a bad one."""
        if not is_utf8(file.name):
            raise DataError(f"{local} has a name that is not UTF-8, as names in a store are; rename it")
        if Path(file.name).suffix.lower() in IMAGE_SUFFIXES:
            self._add_image(file, local, digest)
            keys = [digest]
        else:
            samples = self._open(file, local, labels, digest)
            keys = [samples.shard_digest(shard) for shard in samples.shards]
            if self._is_done("", keys):
                self._refuse_late(labels, file, keys)
                return keys
            samples.check()
            check_readable_again(samples, self._store)
            if file.name in self._pairs.held:
                self._ledger.note(file, digest, keys)
                raise _HeldError
            if not self._inbox.is_unchanged(file):
                raise FileChangedError
            self._columns = samples.columns
            self.taken.sets.append(samples)
            if labels:
                self._ledger.note(labels, self._digest(labels), keys)
        self._known.update(keys)
        self.taken.files.append(file.name)
        return keys

    def _add_image(self, file: InboxFile, local: Path, digest: str) -> None:
        image = read_image(local, self._spec)
        columns = new_columns(pa.schema([]), converted=True) if self._columns is None else self._columns
        check_image_fits(local, columns, self._store)
        if not self._inbox.is_unchanged(file):
            raise FileChangedError
        if self.images is None:
            make_folder(self._work)
            self.images = self._stack.enter_context(ImageBatch(self.images_path, columns, self._spec))
        self.images.add(file.name, digest, image.pixels)
        self._columns = columns
        self.taken.colour_to_grey += image.lost_colour
        self.taken.transparency_dropped += image.lost_transparency

    def _open(self, file: InboxFile, local: Path, labels: InboxFile | None, digest: str) -> FittedFile:
        name = file.name.rsplit("/", 1)[-1]
        path, converted = local, idx_name(name) is not None
        if converted:
            path = self._work / f"idx-{digest[:16]}" / name
            make_folder(path.parent)
            self._names[str(path)] = file.name
            convert_idx(local, self._fetch(labels) if labels else None, path, self._spec)
        elif not is_parquet(local):
            raise DataError(f"{local} is of no kind that is read; expected {_READ_KINDS}")
        samples = SampleSet.open(path, self._spec)
        if not converted and (lost := lost_key(PurePosixPath(file.name), samples.attributes_schema.names)):
            raise DataError(
                f"{local} lies in the folder `{lost}`, whose key would be lost: an inbox makes no columns of folders; "
                "add it to the file as a column, or rename the folder"
            )
        return FittedFile(samples, file.name, digest, self._columns, self._store, converted=converted)

    def _fetch(self, file: InboxFile) -> Path:
        local = self._inbox.fetch(file, self._work / "fetched")
        self._names[str(local)] = file.name
        return local

    def _is_done(self, digest: str, keys: list[str]) -> bool:
        """Whether the file is in a store or taken already (counted), or in quarantine and still in a URL's inbox."""
        done = bool(keys) and set(keys) <= self._known
        self.taken.known += done
        return done or digest in self._rejected

    def _is_used(self, labels: InboxFile) -> bool:
        """Whether these labels are known to be in a store, with their images."""
        remembered = self._ledger.look_up(labels)
        if remembered is None and (before := self._ledger.before(labels)):
            if before[0] != self._digest(labels):
                return False
            remembered = before
            self._ledger.note(labels, *before)
        return remembered is not None and bool(remembered[1]) and set(remembered[1]) <= self._known

    def _digest(self, file: InboxFile) -> str:
        """SHA-256 (hex) of a file; "" if it cannot be read: then it goes to the quarantine unread, or waits."""
        try:
            return sha256_file(self._fetch(file))
        except Exception as error:
            if fault_of(error) is Fault.RUN:
                raise
            return ""

    def _is_labels(self, file: InboxFile) -> bool:
        name = idx_name(file.name.rsplit("/", 1)[-1])
        return name is not None and name.role == "labels"

    def _refuse_late(self, labels: InboxFile | None, images: InboxFile, keys: list[str]) -> None:
        """Put labels into quarantine that came, or changed, after their images were encoded: rows stay as they are."""
        if labels is None or not keys or not set(keys) <= self._known or self._is_used(labels):
            return
        local = self._fetch(labels)
        make_folder(self._work)
        try:
            why = why_late(local, shown(images.name), self._store.parent, keys, self._work / "labels")
        except DataError as error:
            self._give_up(labels, local, self._digest(labels), error, None)
            return
        if why is None:
            self._ledger.note(labels, self._digest(labels), keys)
        else:
            self._put_aside(labels, local, self._digest(labels), f"{shown(labels.name)} {why}", None)

    def _why_unsettled(self, file: InboxFile, labels: InboxFile | None) -> str | None:
        """Why the file, or its labels, may still be written."""
        for one in (file, labels) if labels else (file,):
            now = time.time()
            if why_unsettled(one, 0, self._settle_seconds, now):
                unchanged = self._ledger.unchanged_for(one, now)
                if why := why_unsettled(one, unchanged, self._settle_seconds, now):
                    return why if one is file else f"its labels, {shown(one.name)}: {why}"
        return None

    def _wait(self, file: InboxFile, why: str) -> None:
        self.taken.why_waiting[shown(file.name)] = why

    def _give_up(
        self, file: InboxFile, local: Path | None, digest: str, error: Exception, labels: InboxFile | None
    ) -> None:
        """What becomes of a file that raised this; `local` is None where it could not be had. Raises what is no file's
        fault.
        """
        fault = fault_of(error)
        if fault is Fault.RUN:
            raise error
        reason = reason_of(error, {str(local): file.name, **self._names})
        if fault is Fault.CHANGING:
            self._wait(file, _CHANGING)
        elif local is not None and isinstance(error, PermissionError):
            self._put_aside(file, local, digest, f"{reason}; give permission, and put it into the inbox again", labels)
        elif local is None or fault is Fault.STORAGE:
            self.taken.failed[shown(file.name)] = reason
        else:
            self._put_aside(file, local, digest, reason, labels)

    def _put_aside(self, file: InboxFile, local: Path, digest: str, reason: str, labels: InboxFile | None) -> None:
        try:
            self._quarantine.put(file, local, digest, reason)
        except (OSError, TargetError, FileChangedError) as error:
            if isinstance(error, OSError) and fault_of(error) is Fault.RUN:
                raise
            if fault_of(error) is Fault.CHANGING:
                self._wait(file, _CHANGING)
                return
            self.taken.failed[shown(file.name)] = f"{reason}; and it cannot be put into quarantine: {_said(error)}"
            return
        self.taken.quarantined[shown(file.name)] = reason
        self._ledger.note(file, digest, [])
        if labels and list(self._pairs.labels_of.values()).count(labels) == 1:
            belongs = f"{shown(file.name)}, which it belongs to: {reason}"
            self._put_aside(labels, self._fetch(labels), self._digest(labels), belongs, None)


def _said(error: Exception) -> str:
    return shown(str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error))
