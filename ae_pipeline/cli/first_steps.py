"""The first two commands on data of one's own: inspect (what is there) and init (a folder in which it is trained)."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ae_pipeline.cli.options import AsJson, show
from ae_pipeline.errors import DataError, printable, warn

_NEXT = """made {workspace}: {count} files for source `{source}`; git repository {repository}
{chosen}next:
  cd {folder}
  ae-pipeline check       # what would fail; params.yaml holds every setting
  dvc repro               # train a codec, measure it, encode and decode
  ae-pipeline summary     # what came out
  ae-pipeline serve       # the flows on their schedules, with Prefect's and MLflow's pages"""
_PATH = (
    "A file, a folder or a quoted glob: pictures, sounds, Parquet, .npy. Or the URL of one: s3://, https:// (a file)."
)
Kind = Annotated[
    str | None,
    typer.Option(help="What a record is: image, vector, audio, table, or a kind of another package; default: guessed."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="The column (Parquet) or array (.npz) with the records; default: the only one. Once for each of several "
        "columns of numbers: they make a vector together."
    ),
]


def inspect(
    path: Annotated[str, typer.Argument(help=_PATH)],
    kind: Kind = None,
    column: Column = None,
    as_json: AsJson = False,
) -> None:
    """Look at data: what is there, which settings suit, how long training takes, whether it pays. Trains nothing."""
    from ae_pipeline.workspace.looking.look import look
    from ae_pipeline.workspace.looking.plain import as_json as plain
    from ae_pipeline.workspace.looking.report import describe

    try:
        looked = look(path, kind, _column(column))
    except DataError as error:
        places = {"set source.files.path to": "give", "source.files.path": "PATH"}
        raise error.renamed(
            places | {"in source.files.column": "by --column", "source.files.column": "--column"}
        ) from None
    show(plain(looked), describe(looked), as_json=as_json)
    if looked.nothing_can_be_read:
        raise DataError(f"no record of {path} can be read; above stands why")


def init(
    folder: Annotated[Path, typer.Argument(help="The workspace: a new folder, or one with other files.")],
    data: Annotated[
        str | None, typer.Option(help="Your data, for a source that reads files of yours: a path or a URL.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="A source (`source.name` in params.yaml); default: the one that can read --data.")
    ] = None,
    kind: Kind = None,
    column: Column = None,
    as_json: AsJson = False,
) -> None:
    """Make a workspace: params.yaml, dvc.yaml, prefect.yaml and flows, with git and DVC. Writes over nothing."""
    from ae_pipeline.workspace.make import make_workspace, refuse_what_is_there
    from ae_pipeline.workspace.source import choose_source

    refuse_what_is_there(folder)  # before a look at the data, which takes a while
    chosen = choose_source(source, data, kind, _column(column))
    made = make_workspace(folder, chosen)
    warn(chosen.warnings)
    values = asdict(made) | ({"chosen": chosen.reasons} if chosen.reasons else {})
    reasons = "".join(f"  {reason}\n" for reason in chosen.reasons)
    words = {**values, "count": len(made.files), "folder": shlex.quote(str(folder))}
    words["chosen"] = f"chosen, because of the data:\n{printable(reasons)}" if reasons else ""
    show(values, _NEXT.format(**words), as_json=as_json)


def _column(names: list[str] | None) -> str | list[str] | None:
    """What `--column` says: nothing, one name, or several."""
    return names[0] if names and len(names) == 1 else names or None
