"""The commands that apply a codec to a data set: encode, evaluate; and info, of a store or a codec."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ae_pipeline.cli.options import (
    DATA,
    DEFAULT_PARAMS,
    Address,
    AllowPartial,
    AsJson,
    Device,
    Executor,
    Memory,
    SkipUnreadable,
    Snapshot,
    Workers,
    complete_once_named,
    execution,
    naming_options,
    note_left_out,
    note_missing,
    note_rounded,
    row_progress,
    show,
    workspace,
)
from ae_pipeline.errors import ConfigError, printable, warn

if TYPE_CHECKING:
    from ae_pipeline.codec.header import CodecHeader
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.sources.own_files.grouping import KnownGroup

CodecFolder = Annotated[Path | None, typer.Option("--codec", help="Codec folder, e.g. data/codec.")]
ModelUri = Annotated[str | None, typer.Option("--model", help="Registered model, e.g. models:/mnist-ae@challenger.")]
Layout = Annotated[
    Literal["list", "binary", "packed", "coded", "stream"] | None,
    typer.Option(help="How latents are stored. [default: as suits the codec's training]"),
]
RowGroupRows = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, help="Rows per Parquet row group. [default: 10,000; of streams 1,500]"),
]
# What people are told of a new store; `info` says the rest.
_WRITTEN = ["store", "rows", "bytes_in", "bytes_out", "ratio", "bits_per_row", "bits_per_row_with_codec", "parts"]


def encode(
    data: Annotated[str, typer.Argument(help=DATA)],
    store: Annotated[str, typer.Option(help="Folder to write, new or empty; or a URL: s3://bucket/store.")],
    codec: CodecFolder = None,
    model: ModelUri = None,
    layout: Layout = None,
    row_group_rows: RowGroupRows = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Only if the codec promises every value back as it was.")
    ] = False,
    max_error: Annotated[
        float | None, typer.Option(min=0, help="Only if the codec promises every value within this distance.")
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    allow_partial: AllowPartial = False,
    device: Device = "auto",
    executor: Executor = "threads",
    workers: Workers = None,
    address: Address = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Encode a data set into a latent store."""
    from ae_pipeline.cli.summary import describe_store
    from ae_pipeline.codec.context.options import STREAM_ROWS
    from ae_pipeline.codec.header import read_header
    from ae_pipeline.files import refuse_inside
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.provenance import git_state
    from ae_pipeline.sources.own_files.places.remote import as_shown, data_name
    from ae_pipeline.store.storage.place import is_url
    from ae_pipeline.store.storage.work_folder import unfinished_work
    from ae_pipeline.store.writing.encoding import encode_samples

    execute = execution(executor, workers, address, memory)
    if not is_url(store):
        refuse_inside(Path(store), Path(data), "the data")
    complete = complete_once_named("store", Path(store), as_json=as_json)  # of a URL never: no such folder is found
    with complete, naming_options(row_group_rows="--row-group-rows"), _codec(codec, model) as folder:
        header = read_header(folder)
        header.check_promise(0 if exact else max_error, model or str(codec))
        samples = _open_samples(data, header, skip_unreadable)
        watch = samples.watch_range(header.scaling)
        layout = layout or header.layout
        rows = row_group_rows or (STREAM_ROWS if layout == "stream" else EncodeParams().row_group_rows)
        settings = EncodeParams(layout=layout, row_group_rows=rows, device=device)
        git = git_state(Path.cwd())
        with row_progress("encode", samples.rows) as progress:
            name = data_name(data)
            written = encode_samples(
                samples,
                folder,
                store,
                settings,
                name=name,
                git=git,
                progress=progress,
                execute=execute,
                allow_partial=allow_partial,
            )
        described = describe_store(written) | {"largest_error": written.largest_error()}
        said = [*_WRITTEN, "max_error", "largest_error"]
        shown = described if as_json else {name: described[name] for name in said if name in described}
        show(shown, as_json=as_json)
    note_rounded(samples)
    warn(watch.warnings(as_shown(data)))
    for left in [] if is_url(store) else unfinished_work(Path(store)):
        print(printable(f"note: {left} is left of other unfinished work; remove it if nobody is to finish it"))
    note_missing(written.manifest)


def info(
    place: Annotated[str, typer.Argument(help="Latent store (folder or URL), or codec folder.")],
    snapshot: Snapshot = None,
    as_json: AsJson = False,
) -> None:
    """Say what a store or a codec is: rows, bytes, snapshots, codec, provenance, schema."""
    from ae_pipeline.cli.summary import describe_codec, describe_store
    from ae_pipeline.codec.header import HEADER_NAME, read_header
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.storage.place import is_url

    if not is_url(place) and Path(place, HEADER_NAME).exists():
        if snapshot is not None:
            raise ConfigError(f"{place} is a codec, and has no snapshots; leave --snapshot out, or give a store")
        show(describe_codec(read_header(Path(place))), as_json=as_json)
    else:
        show(describe_store(LatentStore.open(place, snapshot)), as_json=as_json)


def evaluate(
    data: Annotated[str, typer.Argument(help="Data that the codec was not trained on.")],
    codec: CodecFolder = None,
    model: ModelUri = None,
    store: Annotated[
        str | None, typer.Option(help="Measure this store of `data` (folder or URL) instead of a codec.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Train split: adds PCA of the same latent size.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for metrics.json, tables and pictures.")] = None,
    layout: Layout = None,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure what a codec, or an existing store, costs on a data set."""
    if store is None:
        with naming_options(), _codec(codec, model) as folder:
            metrics, header = _measure_codec(data, folder, train, report, layout, device, skip_unreadable)
    elif codec or model or train or report:
        raise ConfigError("--store goes without --codec, --model, --train and --report")
    else:
        metrics, header = _measure_store(data, store, device, skip_unreadable)
    from ae_pipeline.evaluation.mean_answer import warnings_of
    from ae_pipeline.sources.own_files.places.remote import as_shown

    warnings = warnings_of(metrics, header.scaling, as_shown(data))
    show(metrics, as_json=as_json)
    warn(warnings)


def _measure_codec(
    data: str, codec: Path, train: str | None, report: Path | None, layout: Any, device: Any, skip: bool
) -> tuple[dict[str, Any], "CodecHeader"]:
    from ae_pipeline.codec.header import read_header
    from ae_pipeline.evaluation.evaluate import evaluate_codec
    from ae_pipeline.evaluation.pictures import write_pictures, write_tables
    from ae_pipeline.files import refuse_existing, write_json
    from ae_pipeline.params import EncodeParams

    if report:
        refuse_existing(report)
    header = read_header(codec)
    samples = _open_samples(data, header, skip)
    train_samples = _open_samples(train, header, skip) if train else None
    settings = EncodeParams(layout=layout or header.layout, device=device)
    measured = evaluate_codec(codec, samples, settings, train=train_samples)
    note_rounded(samples)
    if report:
        write_tables(report / "tables", measured)
        write_pictures(report / "pictures", measured, None)
        write_json(report / "metrics.json", measured.metrics)
    return measured.metrics, header


def _measure_store(data: str, store: str, device: str, skip: bool) -> tuple[dict[str, Any], "CodecHeader"]:
    from ae_pipeline.evaluation.evaluate import evaluate_store
    from ae_pipeline.store.care.make_again import known_groups
    from ae_pipeline.store.latent_store import LatentStore

    opened = LatentStore.open(store)
    header = opened.codec_header()
    samples = _open_samples(data, header, skip, known_groups(opened))
    measured = evaluate_store(opened, samples, device)
    note_rounded(samples)
    return measured, header


def _open_samples(data: str, header: "CodecHeader", skip: bool, known: "Sequence[KnownGroup]" = ()) -> "SampleSet":
    from ae_pipeline.sources.own_files.opening import open_data

    samples = open_data(data, header.kind, header.spec, skip_unreadable=skip, known=known)
    note_left_out(samples)
    return samples


@contextmanager
def _codec(folder: Path | None, model: str | None) -> Iterator[Path]:
    """The codec folder that the options name; one from the registry is copied to a temporary place."""
    if (folder is None) == (model is None):
        raise ConfigError("give one of --codec FOLDER and --model models:/<name>@<alias>")
    if folder is not None:
        yield folder
        return
    from ae_pipeline.operation.tracking.connection import fetch_codec
    from ae_pipeline.params import Params

    params = workspace(DEFAULT_PARAMS)[0] if DEFAULT_PARAMS.exists() else Params()
    with tempfile.TemporaryDirectory() as target:
        yield fetch_codec(str(model), params, Path.cwd(), Path(target))
