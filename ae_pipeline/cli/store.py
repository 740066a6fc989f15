"""The commands that keep a store trustworthy: append, verify, repair, vacuum."""

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ae_pipeline.cli.options import ROWS_OF_ENCODE, AsJson, Device, StorePlace, naming_options, note_left_out, show
from ae_pipeline.errors import ConfigError, printable, warn

if TYPE_CHECKING:
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.store.care.verify import Verified
    from ae_pipeline.store.latent_store import LatentStore

store_app = typer.Typer()

LocalStore = Annotated[str, typer.Argument(metavar="STORE", help="Latent store: a folder.")]
Sources = Annotated[
    list[Path] | None, typer.Option("--source", help="Data that was encoded: file or folder. Several in their order.")
]


@store_app.command()
def append(
    store: StorePlace,
    data: Annotated[list[Path], typer.Argument(help="Parquet files, or folders of them, with a column `pixels`.")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Add data sets to a store, with its own codec and layout, as one new snapshot; what it has adds nothing."""
    from ae_pipeline.cli.progress import row_progress
    from ae_pipeline.data.value_range import watch_range
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.provenance import git_state
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.writing.appending import append_samples

    opened = LatentStore.open(store)
    opened.codec_header()  # raises if it is not the one that wrote the store
    _warn_of_damage(opened)
    latent = opened.manifest.latent
    settings = EncodeParams(layout=latent.layout, row_group_rows=latent.row_group_rows, device=device)
    sets = _open_sources(data, store, None)
    watches = [watch_range(samples, opened.codec_header().scaling) for samples in sets]
    rows = sum(samples.rows for samples in sets)
    with naming_options(row_group_rows=ROWS_OF_ENCODE), row_progress("append", rows) as progress:
        done = append_samples(
            store, sets, opened.codec_path, settings, name=_name(data), git=git_state(Path.cwd()), progress=progress
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
    for watch, place in zip(watches, data, strict=True):
        warn(watch.warnings(str(place)))
    if not done.parts and not as_json:
        print("nothing added: the store holds all of this data already")


@store_app.command()
def verify(
    store: Annotated[str, typer.Argument(help="Latent store: a folder, or a URL.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also encode --source again, and compare.")] = False,
    source: Sources = None,
    snapshot: Annotated[int | None, typer.Option(min=1, help="An earlier snapshot. [default: all]")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Check every file of a store; exit code 1 if anything is damaged. With --deep, against the data itself.

    Then also if rows of the data are not in the store, or the store's are not those of the data.
    """
    from ae_pipeline.cli.progress import row_progress
    from ae_pipeline.store.care.verify import verify_store

    if deep != bool(source):
        raise ConfigError("--deep compares with the data that was encoded: give both --deep and --source, or neither")
    with row_progress("verify", _rows(store, snapshot)) as progress:
        verified = verify_store(store, snapshot, progress)
    compared = _compare(store, verified, source, device) if source else None
    whole = verified.whole and not (compared and compared["different"])
    holds_source = whole and not compared["rows_not_in_store"] if compared else None
    if as_json:
        values = {**verified.as_dict(), "whole": whole, "holds_source": holds_source, "deep": compared}
        print(json.dumps(values, indent=2))
    else:
        from ae_pipeline.cli.store_text import format_verified

        print(printable(format_verified(verified, compared)))
    raise typer.Exit(0 if whole and holds_source is not False else 1)


@store_app.command()
def repair(
    store: LocalStore,
    source: Sources = None,
    codec: Annotated[Path | None, typer.Option("--codec", help="Folder with a copy of the store's codec.")] = None,
    accept_new_bytes: Annotated[
        bool, typer.Option("--accept-new-bytes", help="Also where bytes cannot be the same: as a new snapshot.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode damaged or missing parts of a store again, byte for byte; exit code 1 if something stays damaged."""
    from ae_pipeline.cli.progress import row_progress
    from ae_pipeline.cli.store_text import format_repaired
    from ae_pipeline.provenance import git_state
    from ae_pipeline.store.care.repair import repair_store

    folder = _folder(store)
    with row_progress("repair", 0) as progress:
        done = repair_store(
            folder,
            _open_sources(source or [], folder, codec),
            codec_path=codec,
            accept_new_bytes=accept_new_bytes,
            device=device,
            git=git_state(Path.cwd()),
            progress=progress,
        )
    print(json.dumps(done.as_dict(), indent=2) if as_json else printable(format_repaired(done)))
    raise typer.Exit(1 if done.failed else 0)


@store_app.command()
def vacuum(
    store: LocalStore,
    keep: Annotated[int, typer.Option(min=1, help="Newest snapshots to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove earlier snapshots, and what interrupted runs left."""
    from ae_pipeline.store.care.vacuum import vacuum_store

    done = vacuum_store(_folder(store), keep, dry_run=dry_run)
    if as_json:
        print(json.dumps({**done.as_dict(), "dry_run": dry_run}, indent=2))
        return
    from ae_pipeline.cli.store_text import format_vacuumed

    print(printable(format_vacuumed(done, dry_run=dry_run)))


def _warn_of_damage(store: "LatentStore") -> None:
    """Growing makes damage no worse, but whoever adds to a store should hear of it."""
    from ae_pipeline.store.care.part_checks import parts_of_other_size

    wrong = parts_of_other_size(store)
    if wrong:
        print(
            f"warning: {len(wrong)} parts of the store are missing or of another size ({', '.join(wrong[:3])}): see "
            f"`ae-pipeline verify {store.location}`",
            file=sys.stderr,
        )


def _folder(store: str) -> Path:
    from ae_pipeline.store.storage.folder import is_url

    if is_url(store):
        raise ConfigError(f"{store} is a URL, expected a folder: copy the store to one, and the result back")
    return Path(store)


def _name(data: list[Path]) -> str:
    """What the manifest calls them."""
    return ", ".join(path.name for path in data[:3]) + (f" and {len(data) - 3} more" if len(data) > 3 else "")


def _rows(store: str, snapshot: int | None) -> int:
    """Rows of the store, for the progress bar."""
    from ae_pipeline.errors import StoreError
    from ae_pipeline.store.format.manifest import read_manifest

    try:
        return read_manifest(store, snapshot).totals.rows
    except StoreError:
        return 0


def _open_sources(data: list[Path], store: str | Path, codec: Path | None) -> list["SampleSet"]:
    """Data sets, with the shape that the store's manifest or a codec says, for files that do not."""
    from ae_pipeline.codec.header import read_header
    from ae_pipeline.data.pixels import SampleSpec
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.errors import CodecError, StoreError
    from ae_pipeline.store.format.manifest import CODEC_FOLDER, holds_part_of_store, read_manifest
    from ae_pipeline.store.storage.folder import open_storage

    spec, stored = None, None
    try:
        manifest = read_manifest(store)
        spec = SampleSpec(tuple(manifest.samples.shape), manifest.samples.dtype)
        stored = {column.name: column.type for column in manifest.columns}
    except StoreError:
        if not holds_part_of_store(open_storage(store)):
            raise
        try:
            spec = read_header(codec or Path(store, CODEC_FOLDER)).spec
        except CodecError:
            spec = None  # then the files have to say it
    sets = [SampleSet.open(path, spec, stored) for path in data]
    for samples in sets:
        note_left_out(samples)
    return sets


def _compare(store: str, verified: "Verified", source: list[Path], device: str) -> dict[str, Any] | None:
    """What `remaking.Compared` says; None where the store cannot even be read."""
    from dataclasses import asdict

    from ae_pipeline.cli.progress import row_progress
    from ae_pipeline.errors import CodecError, StoreError
    from ae_pipeline.store.care.make_again import compare_with_source
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.reading.decode import load_store_codec

    if verified.snapshot is None:
        return None
    opened = LatentStore.open(store, verified.snapshot)
    try:
        codec = load_store_codec(opened, device)
    except (CodecError, StoreError):
        return None
    damaged = {damage.file for damage in verified.damaged}
    parts = [part for part in opened.manifest.parts if part.name not in damaged]
    sets = _open_sources(source, store, None)
    with tempfile.TemporaryDirectory() as folder, row_progress("encode", opened.manifest.totals.rows) as progress:
        return asdict(compare_with_source(opened, parts, sets, codec, Path(folder), progress))
