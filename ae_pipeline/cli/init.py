"""`ae-pipeline init`: a folder of one's own, in which everything works as in the repository."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ae_pipeline.cli.options import AsJson, show

_NEXT = """made {workspace}: {count} files for source `{source}`; git repository {repository}
next:
  cd {folder}
  ae-pipeline check       # what would fail; params.yaml holds every setting
  dvc repro               # train a codec, measure it, encode and decode
  ae-pipeline summary     # what came out
  ae-pipeline serve       # the flows on their schedules, with Prefect's and MLflow's pages"""


def init(
    folder: Annotated[Path, typer.Argument(help="The workspace: a new folder, or one with other files.")],
    data: Annotated[str | None, typer.Option(help="Your data, for a source that reads files of yours.")] = None,
    source: Annotated[
        str | None, typer.Option(help="A source (`source.name` in params.yaml); default: the one that can read --data.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="What a record of --data is: image, vector, audio, or a kind of another package.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a workspace: params.yaml, dvc.yaml, prefect.yaml and flows, with git and DVC. Writes over nothing."""
    from ae_pipeline.workspace.make import make_workspace
    from ae_pipeline.workspace.source import choose_source

    made = make_workspace(folder, choose_source(source, data, kind))
    values = asdict(made)
    show(values, _NEXT.format(**values, count=len(made.files), folder=shlex.quote(str(folder))), as_json=as_json)
