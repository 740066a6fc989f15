"""Which source a new workspace reads, and what params.yaml says of it and of the codec to train."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.files import is_utf8
from ae_pipeline.kinds import kind_names
from ae_pipeline.params.options import SOURCES, SourceParams
from ae_pipeline.sources import build_source

if TYPE_CHECKING:
    from ae_pipeline.sources.own_files.columns import Wanted

_PLACES = ("path", "folder")
"""The option by which a source is told where the user's data lies: those that have one of them read it."""
_MNIST = "mnist"
_IDX = "idx"
_TABLE = "table"
_STEPS, _MANY_ROWS, _MOST_EPOCHS, _STREAM_ROWS = 3000, 20_000, 200, 20_000


@dataclass(frozen=True)
class ChosenSource:
    """A source, where the user's data lies if it reads that, and the settings that suit them."""

    name: str
    data: str | None = None
    """A path from the current folder, or a URL."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """Values of params.yaml, by dotted path, that a look at the data has chosen."""
    reasons: tuple[str, ...] = ()
    """Why, a line each."""
    warnings: tuple[str, ...] = ()
    """What of the data would be refused, as far as was looked."""

    def settings(self, workspace: Path) -> dict[str, Any]:
        """The values that params.yaml gets, by dotted path; a path to data in the workspace is one from there.

        Raises ConfigError for a path that params.yaml cannot hold.
        """
        settings: dict[str, Any] = {"source.name": self.name}
        if self.data is not None:
            place = _from_workspace(self.data, workspace)
            if not is_utf8(place):
                raise ConfigError(f"{place} is not UTF-8, as params.yaml must be; rename it, or name a link to it")
            settings[f"source.{self.name}.{_place(self.name)}"] = place
            _refuse_inside(workspace, Path(self.data), self.name)
        if self.name != _MNIST:
            settings["evaluate.gate.max_mse"] = None  # what stands there is good enough for MNIST
        return settings | self.chosen


def choose_source(name: str | None, data: str | None, kind: str | None = None, column: "Wanted" = None) -> ChosenSource:
    """The source of this name, or, without one, the one that can read `data`, which holds records of `kind`.

    A source of kinds has its data looked at, which takes some seconds. Raises ConfigError where options do not go
    together or leave a choice, DataError where no source can read `data`.
    """
    _check(name, data, kind, column)
    if data is None:
        assert name is not None
        return ChosenSource(name)
    asking = _asking()
    if name is None and kind is None and column is None:
        name = _reader_of(data, [known for known in SOURCES if _place(known) and known not in asking])
    if name is None or name in asking:
        return _looked_at(name or asking[0], data, kind, column)
    _refuse_unread(name, data)
    return ChosenSource(name, data)


def _check(name: str | None, data: str | None, kind: str | None, column: "Wanted") -> None:
    """Raise ConfigError where options do not go together."""
    readers = [known for known in SOURCES if _place(known)]
    others = ", ".join(known for known in SOURCES if known not in readers)
    if name is not None and name not in SOURCES:
        raise ConfigError(f"no source {name!r}; expected one of {', '.join(SOURCES)}")
    if kind is not None and kind not in kind_names():
        from ae_pipeline.workspace.looking.guess import checked_kind

        checked_kind(kind)
    if (kind or column) and name is not None and name not in _asking():
        option = "--kind" if kind else "--column"
        what = "kinds" if kind else "columns to choose from"
        raise ConfigError(f"source `{name}` has no {what}; leave out {option}, or name source {' or '.join(_asking())}")
    if data is None and name is None:
        raise ConfigError(f"nothing says where the data comes from; add --data PATH, or --source and one of {others}")
    if data is None and (name in readers or kind or column):
        raise ConfigError(f"source `{name}` reads data of yours; add --data PATH")
    if data is not None and name is not None and name not in readers:
        raise ConfigError(f"source `{name}` has data of its own; leave out --data, or --source {name}")


def _asking() -> list[str]:
    """Sources whose records are of a kind."""
    return [known for known, options in SOURCES.items() if "kind" in options.model_fields]


def _looked_at(name: str, data: str, kind: str | None, column: "Wanted") -> ChosenSource:
    """Look at the data, and choose what suits them. Raises DataError where they are of no kind, or none can be read."""
    from ae_pipeline.sources.own_files.places.remote import refuse_secrets
    from ae_pipeline.workspace.looking.look import look
    from ae_pipeline.workspace.looking.report import AS_PARQUET, NO_PARQUET, chosen_lines, trouble

    refuse_secrets(data)
    try:
        looked = look(data, kind, column)
    except DataError as error:
        names = {f"source.{name}.path": "--data", f"in source.{name}.column": "by --column"}
        raise error.renamed(names | {f"source.{name}.column": "--column"}) from None
    if looked.guess.kind == _TABLE and looked.table is not None and looked.table.is_parquet and not looked.problems:
        return _for_table(name, data, looked.records, looked.table.broken)
    if looked.choice is None or looked.problems:
        why = next(trouble(looked), None) or f"the kind `{looked.guess.kind}` is not there yet"
        numbers = looked.table.numbers if looked.table else []
        advice = (
            "columns of numbers can be taken as a vector: name each with a --column of its own" if numbers else None
        )
        if looked.guess.kind == _TABLE and looked.table is not None and not looked.table.is_parquet:
            why, advice = NO_PARQUET, AS_PARQUET
        raise DataError(f"no codec can be trained on {data}: {why}", advice=advice)
    chosen = {f"source.{name}.kind": looked.guess.kind, **looked.choice.settings}
    if looked.guess.column is not None:
        chosen[f"source.{name}.column"] = looked.guess.column
    return ChosenSource(name, data, chosen, tuple(chosen_lines(looked)), (*trouble(looked), *looked.notes))


def _for_table(name: str, data: str, rows: int, broken: list[str]) -> ChosenSource:
    """The settings of a codec of tables, which takes some thousand steps whatever the number of rows."""
    batch = 1024 if rows > _MANY_ROWS else 128
    epochs = min(_MOST_EPOCHS, max(1, round(_STEPS * batch / max(1, rows))))
    chosen = {
        f"source.{name}.kind": _TABLE,
        "codec.family": "context",
        "codec.max_error": 0,
        "encode.layout": "stream",
        "encode.row_group_rows": _STREAM_ROWS,
        "train.epochs": epochs,
        "train.batch_size": batch,
        "train.learning_rate": 0.006,
        "evaluate.gate.beat_pca": False,
        "evaluate.gate.max_mse": None,
    }
    reasons = (
        "a codec of tables: every number comes back within 1% of its column's range, all else as it was",
        f"other bounds, by column: source.{name}.settings (max_error, shares, absolute; docs/kinds/table.md)",
        f"train.epochs {epochs} in batches of {batch}: about {_STEPS:,} steps for each column",
    )
    return ChosenSource(name, data, chosen, reasons, tuple(broken))


def _reader_of(data: str, names: list[str]) -> str | None:
    """The source that can read the data; None: none can. Raises DataError for IDX files that lack some."""
    refusals, able = {}, []
    for name in names:
        try:
            _refuse_unread(name, data)
            able.append(name)
        except DataError as error:
            refusals[name] = error
    if len(able) > 1:
        raise ConfigError(f"sources {', '.join(able)} can read {data}; say which with --source")
    if not able and _IDX in refusals and _has_idx_files(data):
        raise refusals[_IDX]
    return able[0] if able else None


def _has_idx_files(data: str) -> bool:
    """Whether a folder has files in MNIST's format, so that what the source `idx` says of it is to the point."""
    from ae_pipeline.data.idx import idx_name

    return Path(data).is_dir() and any(idx_name(item.name) for item in Path(data).iterdir() if item.is_file())


def _refuse_unread(name: str, data: str) -> None:
    """Raise DataError if the source cannot read what lies there, as far as it can tell at once."""
    place = data if "://" in data else str(Path(data).absolute())
    try:
        build_source(SourceParams.model_validate({"name": name, name: {_place(name): place}})).announce()
    except DataError as error:
        raise error.renamed({f"source.{name}.{_place(name)}": "--data"}) from None


def _place(name: str) -> str | None:
    return next((option for option in _PLACES if option in SOURCES[name].model_fields), None)


def _refuse_inside(workspace: Path, data: Path, name: str) -> None:
    """Raise ConfigError for a workspace in a folder of which every file is data."""
    if name in _asking() and data.is_dir() and workspace.resolve().is_relative_to(data.resolve()):
        raise ConfigError(
            f"{workspace} lies in {data}, of which every file is data; choose a folder elsewhere, or name the data by "
            "a glob, such as --data 'photos/**/*.png'"
        )


def _from_workspace(data: str, workspace: Path) -> str:
    if "://" in data:
        return data
    # Links in the path to the workspace are followed; those in it stay, so that they may be pointed elsewhere.
    path, root = Path(data).absolute(), workspace.absolute()
    for place in (root, root.resolve()):
        if path.is_relative_to(place):
            return path.relative_to(place).as_posix()
    return str(path)
