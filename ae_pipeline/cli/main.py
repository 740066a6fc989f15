"""The command line: the same parts as the stages, on any data set and store. `ae-pipeline --help` lists it.

Everything heavy is imported where it is used, so that help and mistakes answer at once.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ae_pipeline.cli.address_space import require_addresses
from ae_pipeline.cli.bench import bench, preset
from ae_pipeline.cli.champion import registry_app, tracking_app
from ae_pipeline.cli.decode import decode
from ae_pipeline.cli.options import (
    DEFAULT_PARAMS,
    ROWS_OF_ENCODE,
    AsJson,
    Device,
    ParamsFile,
    Snapshot,
    complete_once_named,
    naming_options,
    note_left_out,
    show,
)
from ae_pipeline.cli.store import store_app
from ae_pipeline.cli.sweep import sweep
from ae_pipeline.errors import ConfigError, PipelineError, TargetError, exit_code_of, printable, warn

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ae_pipeline import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Batch compression with autoencoders: codecs, latent stores, and what they cost."""


CodecFolder = Annotated[Path | None, typer.Option("--codec", help="Codec folder, e.g. data/codec.")]
# What people are told of a new store; `info` says the rest.
_WRITTEN = ["store", "rows", "bytes_in", "bytes_out", "ratio", "bits_per_row", "bits_per_row_with_codec", "parts"]
# They load PyTorch.
_COMPUTING = {"encode", "decode", "evaluate", "stage", "append", "verify", "repair", "sweep", "bench"}
ModelUri = Annotated[str | None, typer.Option("--model", help="Registered model, e.g. models:/mnist-ae@challenger.")]


def main() -> None:
    """Entry point of `ae-pipeline`: one line for a mistake, never a traceback."""
    # GNU OpenMP lets idle threads spin; on a busy machine that makes small training steps several times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Deterministic sums on CUDA need it before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # No command loads a model by MLflow; should one ever, no pickle in it runs. `serve` and `mlflow-ui` hand it on.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    sys.exit(exit_code_of(_run))


def _run() -> None:
    if sys.argv[1:2] and sys.argv[1] in _COMPUTING and "--help" not in sys.argv:
        require_addresses()
    app()


@app.command()
def encode(
    data: Annotated[Path, typer.Argument(help="Parquet file, or folder of them, with a column `pixels`.")],
    store: Annotated[str, typer.Option(help="Folder to write, new or empty; or a URL: s3://bucket/store.")],
    codec: CodecFolder = None,
    model: ModelUri = None,
    layout: Annotated[Literal["list", "binary", "coded"], typer.Option(help="How latents are stored.")] = "list",
    row_group_rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows per Parquet row group.")] = 10_000,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode a data set into a latent store."""
    from ae_pipeline.cli.progress import row_progress
    from ae_pipeline.cli.summary import describe_store
    from ae_pipeline.codec.header import read_header
    from ae_pipeline.data.value_range import watch_range
    from ae_pipeline.files import refuse_inside
    from ae_pipeline.params import EncodeParams
    from ae_pipeline.provenance import git_state
    from ae_pipeline.store.storage.place import is_url
    from ae_pipeline.store.storage.work_folder import unfinished_work
    from ae_pipeline.store.writing.encoding import encode_samples

    if not is_url(store):
        refuse_inside(Path(store), data, "the data")
    whole = nullcontext() if is_url(store) else complete_once_named("store", Path(store), as_json=as_json)
    with whole, naming_options(row_group_rows="--row-group-rows"), _codec(codec, model) as folder:
        samples = _open_samples(data, folder)
        watch = watch_range(samples, read_header(folder).scaling)
        settings = EncodeParams(layout=layout, row_group_rows=row_group_rows, device=device)
        with row_progress("encode", samples.rows) as progress:
            written = encode_samples(
                samples,
                folder,
                store,
                settings,
                name=data.name,
                git=git_state(Path.cwd()),
                progress=progress,
            )
        described = describe_store(written) | {"largest_error": written.largest_error()}
        shown = described if as_json else {name: described[name] for name in [*_WRITTEN, "largest_error"]}
        show(shown, as_json=as_json)
    warn(watch.warnings(str(data)))
    for left in [] if is_url(store) else unfinished_work(Path(store)):
        print(printable(f"note: {left} is left of other unfinished work; remove it if nobody is to finish it"))


@app.command()
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


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="Rows that the codec was not trained on.")],
    codec: CodecFolder = None,
    model: ModelUri = None,
    store: Annotated[
        str | None, typer.Option(help="Measure this store of `data` (folder or URL) instead of a codec.")
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Train split: adds PCA of the same latent size.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for metrics.json, tables and pictures.")] = None,
    layout: Annotated[Literal["list", "binary", "coded"], typer.Option(help="How latents are stored.")] = "list",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure what a codec, or an existing store, costs on a data set."""
    if store is not None:
        if codec or model or train or report:
            raise ConfigError("--store goes without --codec, --model, --train and --report")
        _evaluate_store(data, store, device, as_json=as_json)
        return
    from ae_pipeline.codec.header import read_header
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.evaluation.evaluate import evaluate_codec
    from ae_pipeline.evaluation.mean_answer import warnings_of
    from ae_pipeline.evaluation.pictures import write_pictures, write_tables
    from ae_pipeline.files import refuse_existing, write_json
    from ae_pipeline.params import EncodeParams

    with naming_options(row_group_rows=ROWS_OF_ENCODE), _codec(codec, model) as folder:
        if report:
            refuse_existing(report)
        samples = _open_samples(data, folder)
        train_samples = SampleSet.open(train, samples.spec) if train else None
        note_left_out(train_samples)
        measured = evaluate_codec(folder, samples, EncodeParams(layout=layout, device=device), train=train_samples)
        warnings = warnings_of(measured.metrics, read_header(folder).scaling, str(data))
    if report:
        write_tables(report / "tables", measured)
        write_pictures(report / "pictures", measured, None)
        write_json(report / "metrics.json", measured.metrics)
    show(measured.metrics, as_json=as_json)
    warn(warnings)


@app.command()
def check(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Check params.yaml and what it asks for; `dvc repro` would find a mistake only in the stage that meets it."""
    from ae_pipeline.cli.preflight import preflight
    from ae_pipeline.experiments.presets import preset_params
    from ae_pipeline.experiments.sweep.space import parse_space
    from ae_pipeline.params import load_params

    loaded = load_params(params)
    for name in loaded.bench.presets:
        preset_params(name, loaded)
    parse_space(loaded.sweep.space, loaded, loaded.sweep.trials)
    warn(preflight(loaded, Path.cwd()))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage of dvc.yaml; `dvc repro` calls this.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run one stage in this folder, whether it is needed or not. Use `dvc repro` to run what is."""
    from ae_pipeline.cli.stages import STAGES, run_stage
    from ae_pipeline.operation.ownership import one_stage
    from ae_pipeline.params import load_params

    if name not in STAGES:
        raise ConfigError(f"no stage {name!r}; expected one of {', '.join(STAGES)}")
    loaded = load_params(params)
    try:
        with one_stage(Path.cwd(), name):
            run_stage(name, loaded, Path.cwd())
    except TargetError as error:
        raise TargetError(f"{error}; `dvc repro --force --single-item {name}` does that") from None


@app.command()
def publish(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Log the workspace's last training to MLflow, once; run it again after a server was away."""
    from dataclasses import asdict

    from ae_pipeline.operation.tracking.publish import publish as publish_workspace
    from ae_pipeline.params import load_params

    show(asdict(publish_workspace(load_params(params), Path.cwd())), as_json=as_json)


@app.command()
def summary(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Show what the last `dvc repro` made: sizes, errors, and where everything is."""
    from ae_pipeline.cli.summary import format_workspace, summarise_workspace
    from ae_pipeline.params import load_params

    found = summarise_workspace(load_params(params), Path.cwd())
    print(json.dumps(found, indent=2) if as_json else printable(format_workspace(found)))


@app.command(name="mlflow-ui")
def mlflow_ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Serve MLflow's pages on loopback, over the store that the runs are in. Ctrl-C ends it."""
    from ae_pipeline.operation.tracking.connection import ui_command
    from ae_pipeline.params import load_params

    command, environment = ui_command(load_params(params), Path.cwd(), port)
    print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    os.execvpe(command[0], command, {**os.environ, **environment})  # noqa: S606


@app.command()
def serve(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Unless PREFECT_API_URL is set.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Serve all deployments of prefect.yaml on their schedules, with Prefect's and MLflow's pages on loopback."""
    from ae_pipeline.operation.serving import serve as serve_all
    from ae_pipeline.params import load_params

    serve_all(load_params(params), Path.cwd(), prefect_port=prefect_port, mlflow_port=mlflow_port)


@app.command()
def worker() -> None:
    """Run the deployments on this machine: a worker for the Prefect server that is set. Recovers first."""
    from ae_pipeline.operation.worker import start_worker

    start_worker(Path.cwd())


@app.command()
def recover() -> None:
    """Have Prefect close the flow runs that were killed on this machine, and free their deployments."""
    from ae_pipeline.operation.worker import recover as recover_runs

    recover_runs(Path.cwd())


app.add_typer(store_app)
app.add_typer(registry_app)
app.add_typer(tracking_app, name="tracking")
app.command()(decode)
app.command()(sweep)
app.command()(bench)
app.command()(preset)


@contextmanager
def _codec(folder: Path | None, model: str | None) -> Iterator[Path]:
    """The codec folder that the options name; one from the registry is copied to a temporary place."""
    if (folder is None) == (model is None):
        raise ConfigError("give one of --codec FOLDER and --model models:/<name>@<alias>")
    if folder is not None:
        yield folder
        return
    from ae_pipeline.operation.tracking.connection import fetch_codec
    from ae_pipeline.params import Params, load_params

    params = load_params(DEFAULT_PARAMS) if DEFAULT_PARAMS.exists() else Params()
    with tempfile.TemporaryDirectory() as target:
        yield fetch_codec(str(model), params, Path.cwd(), Path(target))


def _open_samples(data: Path, codec: Path) -> Any:
    from ae_pipeline.codec.header import read_header
    from ae_pipeline.data.samples import SampleSet

    samples = SampleSet.open(data, read_header(codec).spec)
    note_left_out(samples)
    return samples


def _evaluate_store(data: Path, store: str, device: str, *, as_json: bool) -> None:
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.evaluation.evaluate import evaluate_store
    from ae_pipeline.evaluation.mean_answer import warnings_of
    from ae_pipeline.store.latent_store import LatentStore

    opened = LatentStore.open(store)
    header = opened.codec_header()
    samples = SampleSet.open(data, header.spec)
    note_left_out(samples)
    metrics = evaluate_store(opened, samples, device)
    show(metrics, as_json=as_json)
    warn(warnings_of(metrics, header.scaling, str(data)))


__all__ = ["PipelineError", "app", "main"]
