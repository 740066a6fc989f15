"""The commands about the champion and its MLflow store: promote, rollback, history, compare, tracking relocate."""

import getpass
import json
from pathlib import Path
from typing import Annotated

import typer

from ae_pipeline.cli.options import DEFAULT_PARAMS, AsJson, ParamsFile, show
from ae_pipeline.errors import printable

registry_app = typer.Typer()
tracking_app = typer.Typer(no_args_is_help=True)

Why = Annotated[str, typer.Option(help="The reason, for the history.")]


@registry_app.command()
def promote(
    why: Why,
    version: Annotated[str | None, typer.Argument(help="Version to promote. [default: the challenger]")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Make a version of the model champion by hand, whatever a comparison says."""
    from ae_pipeline.operation.champion.moves import promote as promote_version
    from ae_pipeline.params import load_params

    entry = promote_version(load_params(params), Path.cwd(), version, why, _user())
    show(entry.as_dict(), as_json=as_json)


@registry_app.command()
def rollback(why: Why, params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Make the champion before the current one champion again; once more goes one more back."""
    from ae_pipeline.operation.champion.moves import rollback as roll_back
    from ae_pipeline.params import load_params

    entry = roll_back(load_params(params), Path.cwd(), why, _user())
    show(entry.as_dict(), as_json=as_json)


@registry_app.command()
def history(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Show which version was champion when, by whom and why. The current one is marked."""
    from ae_pipeline.operation.champion.history import format_history
    from ae_pipeline.operation.champion.moves import history as read_history
    from ae_pipeline.params import load_params

    entries = read_history(load_params(params), Path.cwd())
    found = {"history": [entry.as_dict() for entry in entries]}
    print(json.dumps(found, indent=2) if as_json else printable(format_history(entries)))


@registry_app.command()
def compare(
    held_out: Annotated[Path | None, typer.Option(help="Rows to compare on. [default: the test split]")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Log the verdict, and promote if it says so.")] = False,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Compare challenger and champion on held-out rows; moves nothing unless told to."""
    from ae_pipeline.operation.champion.moves import compare as compare_challenger
    from ae_pipeline.operation.champion.moves import evaluate_and_promote
    from ae_pipeline.params import load_params

    loaded, root = load_params(params), Path.cwd()
    if promote:
        outcome = evaluate_and_promote(loaded, root, by=_user(), held_out=held_out)
    else:
        outcome = compare_challenger(loaded, root, held_out=held_out)
    print(json.dumps(outcome.as_dict(), indent=2) if as_json else printable(outcome.describe()))


@tracking_app.callback()
def tracking() -> None:
    """Take care of the MLflow store in params.yaml's paths.tracking."""


@tracking_app.command()
def relocate(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Make the store of a moved or copied checkout hold its own files; copies what lies only in its former place.

    Every other command does so, too, but copies nothing. Needed before MLflow's own commands.
    """
    from ae_pipeline.operation.tracking.connection import relocate_store
    from ae_pipeline.params import load_params

    print(printable(relocate_store(load_params(params), Path.cwd())))


def _user() -> str:
    """Who does it: the login name, or `unknown` in a container whose user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
