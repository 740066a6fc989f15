"""The command line: the same parts as the stages, on any data set and store. `ae-pipeline --help` lists it.

Everything heavy is imported where it is used, so that help and mistakes answer at once.
"""

import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ae_pipeline.cli.address_space import require_addresses
from ae_pipeline.cli.champion import compare, history, promote, rollback, tracking_app
from ae_pipeline.cli.codecs import encode, evaluate, info
from ae_pipeline.cli.decode import decode
from ae_pipeline.cli.experiments import bench, preset, sweep
from ae_pipeline.cli.first_steps import init, inspect
from ae_pipeline.cli.options import ATTENTION, DEFAULT_PARAMS, AsJson, ParamsFile, show, workspace
from ae_pipeline.cli.store import append, compact, repair, vacuum, verify
from ae_pipeline.errors import ConfigError, TargetError, exit_code_of, warn

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


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


# They load PyTorch.
_COMPUTING = {
    "encode",
    "decode",
    "evaluate",
    "stage",
    "append",
    "verify",
    "repair",
    "sweep",
    "bench",
    "inspect",
    "init",
}


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


# Help lists commands in the order in which they are added.
for _first in (inspect, init, encode, info, evaluate):
    app.command()(_first)


@app.command()
def check(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Check params.yaml and what it asks for; `dvc repro` would find a mistake only in the stage that meets it."""
    from ae_pipeline.cli.preflight import preflight
    from ae_pipeline.experiments.presets import preset_params
    from ae_pipeline.experiments.sweep.space import parse_space

    loaded, root = workspace(params)
    for name in loaded.bench.presets or ():
        preset_params(name, loaded)
    parse_space(loaded.sweep.space, loaded, loaded.sweep.trials)
    warn(preflight(loaded, root))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage of dvc.yaml; `dvc repro` calls this.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run one stage in this folder, whether it is needed or not. Use `dvc repro` to run what is."""
    from ae_pipeline.cli.stages import CODE, STAGES, run_stage
    from ae_pipeline.operation.ownership import one_stage

    if name not in (CODE, *STAGES):
        raise ConfigError(f"no stage {name!r}; expected one of {', '.join((CODE, *STAGES))}")
    loaded, root = workspace(params)
    try:
        # torchrun starts a training's processes, of which the first one holds the workspace.
        with nullcontext() if name == "train" and os.environ.get("RANK", "0") != "0" else one_stage(root, name):
            run_stage(name, loaded, root)
    except TargetError as error:
        raise TargetError(f"{error}; `dvc repro --force --single-item {CODE} {name}` does that") from None


@app.command()
def publish(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Log the workspace's last training to MLflow, once; run it again after a server was away."""
    from ae_pipeline.operation.tracking.publish import publish as publish_workspace

    show(asdict(publish_workspace(*workspace(params))), as_json=as_json)


@app.command()
def summary(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Show what the last `dvc repro` made: sizes, errors, and where everything is."""
    from ae_pipeline.cli.summary import format_workspace, summarise_workspace

    found = summarise_workspace(*workspace(params))
    show(found, format_workspace(found), as_json=as_json)


@app.command()
def status(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Show what runs, waits, failed and grew: MLflow, Prefect, inbox, stores, disks. Exits with 4 if it needs you."""
    from ae_pipeline.operation.status.page import look_around
    from ae_pipeline.operation.status.text import format_page

    page = look_around(*workspace(params))
    show(page, format_page(page), as_json=as_json)
    if page["attention"]:
        raise typer.Exit(ATTENTION)


@app.command(name="mlflow-ui")
def mlflow_ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Serve MLflow's pages on loopback, over the store that the runs are in. Ctrl-C ends it."""
    from ae_pipeline.operation.tracking.connection import ui_command

    command, environment = ui_command(*workspace(params), port)
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

    serve_all(*workspace(params), prefect_port=prefect_port, mlflow_port=mlflow_port)


@app.command()
def worker() -> None:
    """Run the deployments on this machine: a worker for the Prefect server that is set. Recovers first."""
    from ae_pipeline.operation.serving import start_worker

    start_worker(Path.cwd())


@app.command()
def recover() -> None:
    """Have Prefect close the flow runs that were killed on this machine, and free their deployments."""
    from ae_pipeline.operation.serving import recover as recover_runs

    recover_runs(Path.cwd())


for _last in (
    decode,
    sweep,
    bench,
    preset,
    append,
    verify,
    repair,
    compact,
    vacuum,
    promote,
    rollback,
    history,
    compare,
):
    app.command()(_last)
app.add_typer(tracking_app, name="tracking")
