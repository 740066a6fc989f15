"""The commands about the champion and its MLflow store: promote, rollback, history, compare, tracking relocate."""

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ae_pipeline.cli.options import DEFAULT_PARAMS, AsJson, ParamsFile, show, workspace
from ae_pipeline.errors import printable

tracking_app = typer.Typer(no_args_is_help=True, help="Take care of the MLflow store in params.yaml's paths.tracking.")

Why = Annotated[str, typer.Option(help="The reason, for the history.")]


def promote(
    why: Why,
    version: Annotated[str | None, typer.Argument(help="Version to promote. [default: the challenger]")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Make a version of the model champion by hand, whatever a comparison says."""
    from ae_pipeline.operation.champion import moves

    show(asdict(moves.promote(*workspace(params), version, why, _user())), as_json=as_json)


def rollback(why: Why, params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Make the champion before the current one champion again; once more goes one more back."""
    from ae_pipeline.operation.champion import moves

    show(asdict(moves.rollback(*workspace(params), why, _user())), as_json=as_json)


def history(params: ParamsFile = DEFAULT_PARAMS, as_json: AsJson = False) -> None:
    """Show which version was champion when, by whom and why. The current one is marked."""
    from ae_pipeline.operation.champion import moves
    from ae_pipeline.operation.champion.history import format_history

    entries = moves.history(*workspace(params))
    show({"history": [asdict(entry) for entry in entries]}, format_history(entries), as_json=as_json)


def compare(
    held_out: Annotated[Path | None, typer.Option(help="Rows to compare on. [default: the test split]")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Log the verdict, and promote if it says so.")] = False,
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Compare challenger and champion on held-out rows; moves nothing unless told to."""
    from ae_pipeline.operation.champion import moves

    if promote:
        outcome = moves.evaluate_and_promote(*workspace(params), by=_user(), held_out=held_out)
    else:
        outcome = moves.compare(*workspace(params), held_out=held_out)
    show(outcome.as_dict(), outcome.describe(), as_json=as_json)


@tracking_app.command()
def relocate(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Make the store of a moved or copied checkout hold its own files; copies what lies only in its former place.

    Every other command does so, too, but copies nothing. Needed before MLflow's own commands.
    """
    from ae_pipeline.operation.tracking.connection import relocate_store

    print(printable(relocate_store(*workspace(params))))


def _user() -> str:
    """The login name of whoever gives the command, or `unknown` in a container whose user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
