"""What is new in an inbox, encoded with one codec into the store that grows with it.

    run = encode_inbox(load_params(Path("params.yaml")), root, codec)

**A file is never encoded twice**, under whatever name: it is known by content, and what is known stands in the
committed stores and nowhere else. A part made from a Parquet or IDX file has that file's own SHA-256 in its
`shard.digest` (also where an IDX file was converted first). Every row has its file's in `file_sha256`: that is how
images are known, many of which make one part.
So a run that is killed anywhere loses nothing and doubles nothing: the next one finds in the inbox what no store has.

**A bad file stops nothing**: every file is read to its end before it is accepted, and goes to the quarantine with the
reason if it is not good (`inbox_taking.py`), or if it does not fit the columns of the store (`inbox_columns.py`).
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ae_pipeline.appending import append_samples
from ae_pipeline.batches import batch_facts, growing_stores, known_contents, statistics_path, write_missing
from ae_pipeline.codec_header import read_header
from ae_pipeline.files import locked_folder, write_json
from ae_pipeline.inbox_files import remove_temporary
from ae_pipeline.inbox_taking import Taken, take_new
from ae_pipeline.latent_store import LatentStore
from ae_pipeline.manifest import PartEntry, read_manifest
from ae_pipeline.params import Params
from ae_pipeline.provenance import git_state


@dataclass(frozen=True)
class InboxRun:
    """What one run did. Errors are the rows' MSE of values scaled to [0, 1]; all nulls where nothing was new."""

    store: str
    snapshot: int | None
    files: list[str]
    quarantined: dict[str, str]
    waiting: int
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
        return {**asdict(self), "files": len(self.files), "quarantined": len(self.quarantined)}


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
            known = known_contents(growing)
            taken = take_new(params.inbox, root, header.spec, known, work, columns=columns, store=store)
            parts: list[PartEntry] = []
            if taken.sets:
                git = git_state(root) if git is None else git
                options: dict[str, Any] = {"name": "inbox", "git": git, "progress": progress}
                parts = append_samples(store, taken.sets, codec_path, params.encode, **options).parts
        finally:
            shutil.rmtree(work / "files", ignore_errors=True)
        snapshot = old.snapshot if old else None
        facts: dict[str, Any] = {"store": str(store), "snapshot": snapshot}
        if parts:
            facts = batch_facts(store, (snapshot or 0) + 1)
        told = {item.name: getattr(taken, item.name) for item in fields(Taken) if item.name != "sets"}
        run = InboxRun(**{**facts, **told, "seconds": round(time.monotonic() - started, 3)})
        if parts:
            write_json(statistics_path(store, facts["snapshot"]), asdict(run))
    return run


def growing_store(params: Params, root: Path, fingerprint: str) -> Path:
    """Where rows are collected that a codec encodes; it may not exist yet."""
    return root / params.paths.growing / fingerprint[:12]


__all__ = ["InboxRun", "Taken", "encode_inbox", "growing_store", "take_new"]
