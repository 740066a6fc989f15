"""The commands that keep a store trustworthy: append, verify, repair, compact, vacuum."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ae_pipeline.cli.options import (
    DATA,
    INCOMPLETE,
    Address,
    AllowPartial,
    AsJson,
    Device,
    Executor,
    Memory,
    SkipUnreadable,
    StorePlace,
    Workers,
    execution,
    naming_options,
    note_left_out,
    note_missing,
    note_rounded,
    row_progress,
    show,
)
from ae_pipeline.errors import ConfigError, StoreError, named, printable, warn

LocalStore = Annotated[str, typer.Argument(metavar="STORE", help="Latent store: a folder.")]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="Data that was encoded: file, folder or URL. Several in their order."),
]


def append(
    store: StorePlace,
    data: Annotated[list[str], typer.Argument(help=DATA)],
    skip_unreadable: SkipUnreadable = False,
    allow_partial: AllowPartial = False,
    device: Device = "auto",
    executor: Executor = "threads",
    workers: Workers = None,
    address: Address = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Add data sets to a store, with its own codec and layout, as one new snapshot; what it has adds nothing."""
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.provenance import git_state
    from ae_pipeline.sources.own_files.places.remote import as_shown, data_name
    from ae_pipeline.store.care.make_again import open_sources, refuse_torn
    from ae_pipeline.store.care.part_checks import size_warnings
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.writing.appending import append_samples

    execute = execution(executor, workers, address, memory)
    opened = LatentStore.open(store)
    opened.codec_header()  # raises if it is not the one that wrote the store
    warn(size_warnings(opened))
    latent = opened.manifest.latent
    settings = EncodeParams(layout=latent.layout, row_group_rows=latent.row_group_rows, device=device)
    sets = open_sources(data, store, skip_unreadable=skip_unreadable)
    note_left_out(*sets)
    refuse_torn(sets, store)
    watches = [samples.watch_range(opened.codec_header().scaling) for samples in sets]
    rows = sum(samples.rows for samples in sets)
    with naming_options(), row_progress("append", rows) as progress:
        done = append_samples(
            store,
            sets,
            opened.codec_path,
            settings,
            name=named([data_name(place) for place in data], 3),
            git=git_state(Path.cwd()),
            progress=progress,
            execute=execute,
            allow_partial=allow_partial,
        )
    show(
        {
            "store": str(store),
            "snapshot": done.store.manifest.snapshot,
            "added_rows": sum(part.rows for part in done.parts),
            "added_parts": len(done.parts),
            "shards_it_had": done.skipped,
            "rows": done.store.manifest.totals.rows,
        },
        as_json=as_json,
    )
    note_rounded(*sets)
    for watch, place in zip(watches, data, strict=True):
        warn(watch.warnings(as_shown(place)))
    if not done.parts and not as_json:
        print("nothing added: the store holds all of this data already")
    note_missing(done.store.manifest)


def verify(
    store: Annotated[str, typer.Argument(help="Latent store: a folder, or a URL.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also encode --source again, and compare.")] = False,
    source: Sources = None,
    snapshot: Annotated[int | None, typer.Option(min=1, help="An earlier snapshot. [default: all]")] = None,
    device: Device = "auto",
    executor: Executor = "threads",
    workers: Workers = None,
    address: Address = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Check every file of a store; exit code 1 if anything is damaged. With --deep, against the data itself.

    Then also if rows of the data are not in the store, or the store's are not those of the data. The exit code is 3 if
    nothing is damaged, but the store was written without some of its data (--allow-partial).
    """
    from ae_pipeline.cli.store_text import format_verified
    from ae_pipeline.store.care.deep import verify_deep
    from ae_pipeline.store.care.verify import verify_store
    from ae_pipeline.store.executors.engines import kept

    if deep != bool(source):
        raise ConfigError("--deep compares with the data that was encoded: give both --deep and --source, or neither")
    execute = execution(executor, workers, address, memory)
    with kept(execute):
        with row_progress("verify", _rows(store, snapshot)) as progress:
            verified = verify_store(store, snapshot, progress, execute)
        if source:
            with row_progress("encode", verified.rows) as progress:
                verified = verify_deep(store, verified, source, device, progress, execute)
    for left in verified.deep.left_out if verified.deep else ():
        print(printable(f"note: {left}"), file=sys.stderr)
    show(verified.as_dict(), format_verified(verified), as_json=as_json)
    if verified.whole and verified.missing and verified.holds_source is not False:
        raise typer.Exit(INCOMPLETE)
    raise typer.Exit(1 if verified.next_step else 0)


def repair(
    store: LocalStore,
    source: Sources = None,
    codec: Annotated[Path | None, typer.Option("--codec", help="Folder with a copy of the store's codec.")] = None,
    accept_new_bytes: Annotated[
        bool, typer.Option("--accept-new-bytes", help="Also where bytes cannot be the same: as a new snapshot.")
    ] = False,
    device: Device = "auto",
    executor: Executor = "threads",
    workers: Workers = None,
    address: Address = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Encode damaged or missing parts of a store again, byte for byte; exit code 1 if something stays damaged."""
    from ae_pipeline.cli.store_text import format_repaired
    from ae_pipeline.provenance import git_state
    from ae_pipeline.store.care.make_again import open_sources
    from ae_pipeline.store.care.repair import repair_store

    folder = _folder(store)
    sets = open_sources(source or [], folder, codec)
    note_left_out(*sets)
    with row_progress("repair", 0) as progress:
        done = repair_store(
            folder,
            sets,
            codec_path=codec,
            accept_new_bytes=accept_new_bytes,
            device=device,
            git=git_state(Path.cwd()),
            progress=progress,
            execute=execution(executor, workers, address, memory),
        )
    show(done.as_dict(), format_repaired(done), as_json=as_json)
    raise typer.Exit(1 if done.failed else 0)


def compact(
    store: StorePlace,
    rows: Annotated[
        int | None,
        typer.Option(
            min=2, help="Rows of a joined part, at most; a part with less than half is small. [default: 100,000]"
        ),
    ] = None,
    megabytes: Annotated[
        float | None, typer.Option(min=0.001, help="The same in megabytes (10^6 bytes). [default: 128]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be joined.")] = False,
    as_json: AsJson = False,
) -> None:
    """Join small parts of a store, without decoding, as one new snapshot; rows, ids and errors stay as they are."""
    from ae_pipeline.cli.store_text import format_compacted
    from ae_pipeline.params.operation import CompactParams
    from ae_pipeline.provenance import git_state
    from ae_pipeline.store.care.compaction import compact_store

    given = {name: value for name, value in (("rows", rows), ("megabytes", megabytes)) if value is not None}
    settings = CompactParams.model_validate(given)
    done = compact_store(store, settings, git=git_state(Path.cwd()), dry_run=dry_run)
    show({**asdict(done), "dry_run": dry_run}, format_compacted(done, dry_run=dry_run), as_json=as_json)


def vacuum(
    store: LocalStore,
    keep: Annotated[int, typer.Option(min=1, help="Newest snapshots to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove earlier snapshots, and what interrupted runs left."""
    from ae_pipeline.cli.store_text import format_vacuumed
    from ae_pipeline.store.care.vacuum import vacuum_store

    done = vacuum_store(_folder(store), keep, dry_run=dry_run)
    show({**asdict(done), "dry_run": dry_run}, format_vacuumed(done, dry_run=dry_run), as_json=as_json)


def _folder(store: str) -> Path:
    from ae_pipeline.store.storage.place import is_url

    if is_url(store):
        raise ConfigError(f"{store} is a URL, expected a folder: copy the store to one, and the result back")
    return Path(store)


def _rows(store: str, snapshot: int | None) -> int:
    """Rows to check, for the progress bar; 0 if no manifest can be read."""
    from ae_pipeline.store.format.manifest import read_manifest

    try:
        return read_manifest(store, snapshot).totals.rows
    except StoreError:
        return 0
