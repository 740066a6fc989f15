"""What the command line's files share: options that several commands take, and how results are printed."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ae_pipeline.errors import ConfigError, PipelineError, as_in_messages, is_out_of_memory, printable
from ae_pipeline.files import is_free

if TYPE_CHECKING:
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.params import Params
    from ae_pipeline.params.operation import ExecuteParams
    from ae_pipeline.store.format.manifest import Manifest

_SHOWN = 20
# Seconds between two lines of a log that say how far a run is.
_LINE_EVERY_S = 30.0
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="Parameters of the workspace.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]
StorePlace = Annotated[str, typer.Argument(help="Latent store: a folder, or a URL such as s3://bucket/store.")]
Snapshot = Annotated[
    int | None, typer.Option(min=1, help="The store as of an earlier snapshot (`ae-pipeline info` lists them).")
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out records that cannot be read, and say which.")
]
Executor = Annotated[
    Literal["inline", "threads", "process", "ray", "dask"],
    typer.Option("--executor", help="Who works on the shards; the bytes are the same (docs/scale.md)."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Shards in work at a time. [default: one for each CPU]")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of a Ray or Dask cluster, host:port. [default: one is started on this machine]"),
]
Memory = Annotated[
    float | None, typer.Option("--memory", min=0.5, help="GiB for the data of each worker (process, ray, dask).")
]
AllowPartial = Annotated[
    bool,
    typer.Option(
        "--allow-partial",
        help="Also if some files cannot be encoded: the store says which, and the exit code is 3.",
    ),
]
INCOMPLETE = 3
"""Exit code: the result was written, and rows that could not be read are missing from it."""
ATTENTION = 4
"""Exit code of `status`: something needs somebody, or cannot be told."""
DEFAULT_PARAMS = Path("params.yaml")
DATA = (
    "Your files as the codec's training had them (pictures, Parquet, .npy), or Parquet with a column `pixels`: a file, "
    "a folder, a quoted glob, or the URL of one (s3://, https://)."
)
"""Help of an argument with data."""


@contextmanager
def complete_once_named(kind: str, result: Path, *, as_json: bool) -> Iterator[None]:
    """A result that has its name is complete: if memory is lacking after that, to tell of it, nothing has failed."""
    before = not is_free(result)
    try:
        yield
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if before or is_free(result) or not is_out_of_memory(error):
            raise
        if as_json:
            print(json.dumps({kind: str(result)}))
        print(printable(f"note: {result} is complete; memory was lacking to tell more of it"), file=sys.stderr)


@contextmanager
def naming_options(row_group_rows: str = "`ae-pipeline encode`'s --row-group-rows") -> Iterator[None]:
    """Errors name the option in place of the knob `encode.row_group_rows`: a command without it names `encode`'s."""
    try:
        yield
    except PipelineError as error:
        raise error.renamed({"encode.row_group_rows": row_group_rows}) from None


def execution(executor: str, workers: int | None, address: str | None, memory: float | None) -> "ExecuteParams":
    """Who works on the shards, by the options. Raises ConfigError where they do not fit together."""
    from pydantic import ValidationError

    from ae_pipeline.params.base import problems
    from ae_pipeline.params.operation import ExecuteParams

    given = {"name": executor, "workers": workers, "address": address, "memory": memory}
    try:
        return ExecuteParams.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"--executor {executor}: {'; '.join(problems(error))}") from None


def note_missing(manifest: "Manifest") -> None:
    """Say on standard error which shards a store was written without, and end with INCOMPLETE if there are any."""
    if not manifest.missing:
        return
    for entry in manifest.missing[:_SHOWN]:
        print(printable(f"  missing: {entry.shard.file} ({entry.rows:,} rows): {entry.reason}"), file=sys.stderr)
    count = len(manifest.missing)
    shards = count + manifest.shard_count
    print(
        f"incomplete: {count:,} of {shards:,} shards, with {manifest.missing_rows:,} rows, are "
        "not in the store; mend the data, then run the same command again, which adds them",
        file=sys.stderr,
    )
    raise typer.Exit(INCOMPLETE)


def workspace(params: Path) -> tuple["Params", Path]:
    """The parameters in a file, and the folder that they are for: this one. Raises ConfigError."""
    from ae_pipeline.params import load_params

    return load_params(params), Path.cwd()


def show(values: dict[str, Any], text: str | None = None, *, as_json: bool) -> None:
    """Print a result: JSON for scripts, for people its text, or aligned lines."""
    if as_json:
        print(json.dumps(values, indent=2))
        return
    if text is None:
        from ae_pipeline.cli.summary import format_values

        text = format_values(values)
    print(printable(text))


def note_left_out(*sets: "SampleSet") -> None:
    """Say on standard error what lies beside the files of data sets and is no part of them."""
    for samples in sets:
        if samples.left_out:
            print(printable(f"note: {as_in_messages(samples.left_out)}"), file=sys.stderr)


def note_rounded(*sets: "SampleSet") -> None:
    """Say on standard error how far the rows of data sets, which were read, are from their own values."""
    for samples in sets:
        if samples.rounded:
            print(printable(f"note: {samples.rounded}"), file=sys.stderr)


@contextmanager
def row_progress(what: str, rows: int | None) -> Iterator[Callable[[int], Any]]:
    """Yield a function to call with the number of rows that were finished; `rows` are all, None if not known.

    It draws a bar on a terminal, with rows per second. In a log, a line now and then says the same.
    """
    from tqdm import tqdm

    with tqdm(total=rows, unit="row", unit_scale=True, desc=what, disable=None) as bar:
        yield _Lines(what, rows) if bar.disable else bar.update


class _Lines:
    """Says how far a run is, for a log: seldom, and not at all of a short run."""

    def __init__(self, what: str, rows: int | None):
        self._what, self._rows, self._done = what, rows, 0
        self._begun = self._said = time.monotonic()

    def __call__(self, more: int) -> None:
        self._done += more
        now = time.monotonic()
        if now - self._said >= _LINE_EVERY_S:
            self._said = now
            line = row_line(self._what, self._done, self._rows, now - self._begun)
            print(printable(line), file=sys.stderr, flush=True)


def row_line(what: str, done: int, rows: int | None, seconds: float) -> str:
    """How far a run is: `encode: 5,000 of 10,000 rows (50%), 1,000 rows/s`."""
    of = f" of {rows:,} rows ({100 * done / rows:.0f}%)" if rows else " rows"
    return f"{what}: {done:,}{of}, {done / max(seconds, 1e-9):,.0f} rows/s"
