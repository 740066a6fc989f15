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
from dataclasses import asdict, replace
from pathlib import Path

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import PipelineError
from ae_pipeline.files import locked_folder
from ae_pipeline.operation.inbox.batches import InboxRun, batch_facts, growing_stores, write_missing, write_statistics
from ae_pipeline.operation.inbox.columns import FittedFile
from ae_pipeline.operation.inbox.files.faults import Fault, fault_of, reason_of
from ae_pipeline.operation.inbox.files.listing import remove_temporary
from ae_pipeline.operation.inbox.taking import Taking
from ae_pipeline.params import Params
from ae_pipeline.provenance import git_state
from ae_pipeline.store.care.compaction import compact_store
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.store.writing.shards import Progress


def encode_inbox(
    params: Params,
    root: Path,
    codec: Path,
    progress: Progress = lambda rows: None,
    begin: Progress = lambda rows: None,
) -> InboxRun:
    """Append what is new in params.inbox to `paths.growing/<first 12 digits of the codec's fingerprint>`.

    Without anything new no snapshot is made. Small parts of the store are joined then, if there are enough
    (params.compact). One run at a time: a second one gets TargetError. Writes the numbers
    beside the store (`batches.py`). `begin` is told how many rows will be encoded, `progress` of those that are.
    Raises every PipelineError, but not for a bad file: that is put into quarantine.
    """
    started = time.monotonic()
    store = growing_store(params, root, read_header(codec).fingerprint)
    with locked_folder(store.parent / ".inbox") as work:
        remove_temporary(work)
        for grown in growing_stores(store.parent):
            write_missing(grown)
        try:
            run, snapshot = _take_and_append(params, root, codec, store, work, progress, begin)
        finally:
            shutil.rmtree(work / "files", ignore_errors=True)
        if snapshot is not None:  # the names of its files are known here with their folders
            run = replace(run, **{**batch_facts(store, snapshot), "files": run.files})
        run.seconds = round(time.monotonic() - started, 3)
        if snapshot is not None:
            write_statistics(store, snapshot, asdict(run))
        if params.compact.parts is not None and store in growing_stores(store.parent):
            _join_small_parts(store, params, root, run)
    return run


def _join_small_parts(store: Path, params: Params, root: Path, run: InboxRun) -> None:
    """Join the store's small parts if there are enough. Whatever keeps it from that, the files are encoded."""
    assert params.compact.parts is not None
    try:
        done = compact_store(store, params.compact, git=git_state(root), at_least=params.compact.parts)
        run.joined_parts = done.joined
        if done.left and not done.joined:
            name, reason = next(iter(done.left.items()))
            run.why_not_joined = f"{name}: {reason}" + (
                f", and {len(done.left) - 1:,} more" if len(done.left) > 1 else ""
            )
    except PipelineError as error:
        run.why_not_joined = str(error)


def _take_and_append(
    params: Params, root: Path, codec: Path, store: Path, work: Path, progress: Progress, begin: Progress
) -> tuple[InboxRun, int | None]:
    """What was taken, without the files that cannot be encoded, and the snapshot that was added, if any."""
    header = read_header(codec)
    old = LatentStore.open(store) if store in growing_stores(store.parent) else None
    failed: dict[str, str] = {}
    quarantined: dict[str, str] = {}
    while True:
        run, sets = Taking(params.inbox, root, header, work, store, old).take_all(failed)
        run.store, run.snapshot = str(store), old.manifest.snapshot if old else None
        run.quarantined = quarantined | run.quarantined
        if not sets:
            return run, None
        try:
            git = git_state(root)
            begin(sum(samples.rows for samples in sets))
            added = append_samples(
                store, sets, codec, params.encode, name="inbox", git=git, progress=progress, execute=params.execute
            )
        except Exception as error:
            if fault_of(error) is Fault.RUN:
                raise
            found = _not_encodable(sets, codec, params, work / "files" / "trial")
            # It is not the files if every one fails: a setting, say.
            if not found or len(found) == len(sets):
                raise
            failed, quarantined = failed | found, run.quarantined
        else:
            return run, added.store.manifest.snapshot if added.parts else None


def _not_encodable(sets: list[SampleSet], codec: Path, params: Params, trial: Path) -> dict[str, str]:
    """The files that cannot be encoded even alone, and why. Raises what is no file's fault."""
    found = {}
    for samples in sets:
        if not isinstance(samples, FittedFile):
            continue  # images, of which everything was read
        try:
            encode_samples(samples, codec, trial, params.encode, name="trial", git={})
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
