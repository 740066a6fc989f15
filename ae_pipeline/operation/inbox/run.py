"""What is new in an inbox, encoded with one codec into the store that grows with it.

    run = encode_inbox(load_params(Path("params.yaml")), root, codec)

**A file is never encoded twice**, under whatever name: it is known by content, and what is known stands in the
committed stores and nowhere else. A part made from a Parquet or IDX file has that file's own SHA-256 in its
`shard.digest` (also where an IDX file was converted first). Every row has its file's in `file_sha256`: that is how
images are known, many of which make one part.
So a run that is killed anywhere loses nothing and doubles nothing: the next one finds in the inbox what no store has.

**A bad file stops nothing**: every file is read to its end before it is accepted, and goes to the quarantine with the
reason if it is not good (`taking.py`), or if it does not fit the columns of the store (`columns.py`). What a file does
later, when it is encoded, keeps out that file alone.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.files import locked_folder
from ae_pipeline.operation.inbox.batches import (
    batch_facts,
    growing_stores,
    known_contents,
    write_missing,
    write_statistics,
)
from ae_pipeline.operation.inbox.columns import FittedFile
from ae_pipeline.operation.inbox.files.faults import Fault, fault_of, reason_of
from ae_pipeline.operation.inbox.files.listing import remove_temporary
from ae_pipeline.operation.inbox.taken import Taken
from ae_pipeline.operation.inbox.taking import take_new
from ae_pipeline.params import Params
from ae_pipeline.provenance import git_state
from ae_pipeline.store.format.manifest import PartEntry, read_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.writing.encoding import encode_samples

_NAMED = 3  # files of each kind that a summary names


@dataclass(frozen=True)
class InboxRun:
    """What one run did. Errors are the rows' MSE of values scaled to [0, 1]; all nulls where nothing was new.

    `quarantined`, `failed`, `why_waiting` and `left_alone` name files and say why: see `Taken`. `waiting` counts.
    """

    store: str
    snapshot: int | None
    files: list[str]
    quarantined: dict[str, str]
    failed: dict[str, str]
    waiting: int
    why_waiting: dict[str, str]
    left_alone: dict[str, str]
    known: int
    colour_to_grey: int
    transparency_dropped: int
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    mean_error: float | None = None
    median_error: float | None = None
    p95_error: float | None = None
    max_error: float | None = None
    seconds: float = 0.0

    def statistics(self) -> dict[str, Any]:
        """The numbers, flat: files are counted."""
        counts = {name: len(getattr(self, name)) for name in ("files", "quarantined", "failed", "left_alone")}
        values = {**asdict(self), **counts}
        del values["why_waiting"]
        return values

    def summary(self) -> str:
        """In one line, what became of all files but those that were known; a few of each kind by name."""
        text = f"{len(self.files)} file(s), {self.rows:,} rows encoded; {len(self.quarantined)} in quarantine"
        for what, files in (("FAILED", self.failed), ("waiting", self.why_waiting), ("left alone", self.left_alone)):
            if files:
                some = [f"{name}: {why}" for name, why in list(files.items())[:_NAMED]]
                more = f", and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
                text += f"; {len(files):,} {what} ({', '.join(some)}{more})"
        return text


def encode_inbox(
    params: Params,
    root: Path,
    codec_path: Path,
    *,
    git: dict[str, Any] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> InboxRun:
    """Append what is new in params.inbox to `paths.growing/<first 12 digits of the codec's fingerprint>`.

    Without anything new no snapshot is made. One run at a time: a second one gets TargetError. Writes the numbers
    beside the store (`batches.py`). Raises every PipelineError, but not for a bad file: that is put into quarantine.
    """
    started = time.monotonic()
    header = read_header(codec_path)
    growing = root / params.paths.growing
    store = growing_store(params, root, header.fingerprint)
    with locked_folder(growing / ".inbox") as work:
        remove_temporary(work)
        for grown in growing_stores(growing):
            write_missing(grown)
        old = read_manifest(store) if store in growing_stores(growing) else None
        columns = LatentStore(store, old).attributes_schema() if old else None
        try:
            taken, parts = _take_and_append(params, root, codec_path, header.spec, work, columns, store, git, progress)
        finally:
            shutil.rmtree(work / "files", ignore_errors=True)
        snapshot = old.snapshot if old else None
        facts: dict[str, Any] = {"store": str(store), "snapshot": snapshot}
        if parts:
            facts = batch_facts(store, (snapshot or 0) + 1)
        told = {item.name: getattr(taken, item.name) for item in fields(Taken) if item.name != "sets"}
        seconds = round(time.monotonic() - started, 3)
        run = InboxRun(**{**facts, **told, "waiting": len(taken.why_waiting), "seconds": seconds})
        if parts:
            write_statistics(store, facts["snapshot"], asdict(run))
    return run


def _take_and_append(
    params: Params,
    root: Path,
    codec_path: Path,
    spec: SampleSpec,
    work: Path,
    columns: pa.Schema | None,
    store: Path,
    git: dict[str, Any] | None,
    progress: Callable[[int], None],
) -> tuple[Taken, list[PartEntry]]:
    """What was taken, and the parts that were made of it, without the files that cannot be encoded."""
    known = known_contents(store.parent)
    failed: dict[str, str] = {}
    quarantined: dict[str, str] = {}
    while True:
        taken = take_new(params.inbox, root, spec, known, work, columns=columns, store=store, failed=failed)
        taken.quarantined = quarantined | taken.quarantined
        if not taken.sets:
            return taken, []
        git = git_state(root) if git is None else git
        options: dict[str, Any] = {"name": "inbox", "git": git, "progress": progress}
        try:
            return taken, append_samples(store, taken.sets, codec_path, params.encode, **options).parts
        except Exception as error:
            if fault_of(error) is Fault.RUN:
                raise
            found = _not_encodable(taken.sets, codec_path, params, work / "files" / "trial")
            # Where every file fails, it is not the files: a setting, say.
            if not found or len(found) == len(taken.sets):
                raise
            failed, quarantined = failed | found, taken.quarantined


def _not_encodable(sets: list[SampleSet], codec_path: Path, params: Params, trial: Path) -> dict[str, str]:
    """The files that cannot be encoded even alone, and why. Raises what is no file's fault."""
    found = {}
    for samples in sets:
        if not isinstance(samples, FittedFile):
            continue  # images, of which everything was read
        try:
            encode_samples(samples, codec_path, trial, params.encode, name="trial", git={})
        except Exception as error:
            if fault_of(error) is Fault.RUN:
                raise
            found[samples.name] = reason_of(error, {str(path): samples.name for path in samples.files})
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    return found


def growing_store(params: Params, root: Path, fingerprint: str) -> Path:
    """Where rows are collected that a codec encodes; it may not exist yet."""
    return root / params.paths.growing / fingerprint[:12]


__all__ = ["InboxRun", "Taken", "encode_inbox", "growing_store", "take_new"]
