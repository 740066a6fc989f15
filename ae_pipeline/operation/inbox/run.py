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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.files import locked_folder
from ae_pipeline.operation.inbox.batches import (
    InboxRun,
    batch_facts,
    growing_stores,
    known_contents,
    write_missing,
    write_statistics,
)
from ae_pipeline.operation.inbox.columns import FittedFile
from ae_pipeline.operation.inbox.files.faults import Fault, fault_of, reason_of
from ae_pipeline.operation.inbox.files.listing import remove_temporary
from ae_pipeline.operation.inbox.taking import Taking
from ae_pipeline.params import Params
from ae_pipeline.provenance import git_state
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.writing.encoding import encode_samples


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
    store = growing_store(params, root, header.fingerprint)

    def append(sets: list[SampleSet]) -> bool:
        state = git_state(root) if git is None else git
        added = append_samples(store, sets, codec_path, params.encode, name="inbox", git=state, progress=progress)
        return bool(added.parts)

    with locked_folder(store.parent / ".inbox") as work:
        remove_temporary(work)
        growing = growing_stores(store.parent)
        for grown in growing:
            write_missing(grown)
        old = LatentStore.open(store) if store in growing else None
        try:
            run, has_grown = _take_and_append(params, root, codec_path, work, store, old, append)
        finally:
            shutil.rmtree(work / "files", ignore_errors=True)
        snapshot = old.manifest.snapshot if old else None
        facts: dict[str, Any] = {"store": str(store), "snapshot": snapshot}
        if has_grown:  # the names of its files are known here with their folders
            facts = {**batch_facts(store, (snapshot or 0) + 1), "files": run.files}
        run = replace(run, **facts, waiting=len(run.why_waiting), seconds=round(time.monotonic() - started, 3))
        if has_grown:
            write_statistics(store, facts["snapshot"], asdict(run))
    return run


def _take_and_append(
    params: Params,
    root: Path,
    codec_path: Path,
    work: Path,
    store: Path,
    old: LatentStore | None,
    append: Callable[[list[SampleSet]], bool],
) -> tuple[InboxRun, bool]:
    """What was taken, without the files that cannot be encoded, and whether the store has grown by it."""
    spec = read_header(codec_path).spec
    columns = old.attributes_schema() if old else None
    known = known_contents(store.parent)
    failed: dict[str, str] = {}
    quarantined: dict[str, str] = {}
    while True:
        taking = Taking(params.inbox, root, spec, known, work, columns=columns, store=store)
        run, sets = taking.take_all(failed)
        run.quarantined = quarantined | run.quarantined
        try:
            return run, bool(sets) and append(sets)
        except Exception as error:
            if fault_of(error) is Fault.RUN:
                raise
            found = _not_encodable(sets, codec_path, params, work / "files" / "trial")
            # It is not the files if every one fails: a setting, say.
            if not found or len(found) == len(sets):
                raise
            failed, quarantined = failed | found, run.quarantined


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
