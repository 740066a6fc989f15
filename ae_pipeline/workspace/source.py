"""Which source a new workspace reads, and what params.yaml says of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.experiments.presets import preset_values
from ae_pipeline.files import is_utf8
from ae_pipeline.kinds import kind_names
from ae_pipeline.params import Params, flattened
from ae_pipeline.params.options import SOURCES, SourceParams
from ae_pipeline.sources import build_source

_PLACES = ("path", "folder")
"""The option by which a source is told where the user's data lies: those that have one of them read it."""
_MNIST = "mnist"
_IDX = "idx"
_IMAGE = "image"
# Kinds with a preset of their own.
_PRESETS = {"audio": "sound"}


@dataclass(frozen=True)
class ChosenSource:
    """A source, and where the user's data lies if it reads that."""

    name: str
    data: str | None = None
    """A path from the current folder, or a URL."""
    kind: str | None = None
    """What a record of the data is, for a source that asks; None: what params.yaml says."""

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
        if self.name != _MNIST:
            settings["evaluate.gate.max_mse"] = None  # what stands there is good enough for MNIST
        if self.kind is not None:
            settings[f"source.{self.name}.kind"] = self.kind
        if self.kind in _PRESETS:
            settings |= preset_values(_PRESETS[self.kind])
            # PCA of as many latents takes three times the bits here: nothing to be held against.
            settings["evaluate.gate.beat_pca"] = False
        elif self.kind not in (None, _IMAGE):
            settings |= _plain_network()
        return settings


def choose_source(name: str | None, data: str | None, kind: str | None = None) -> ChosenSource:
    """The source of this name, or, without one, the only one that can read `data`, which holds records of `kind`.

    Raises ConfigError where these do not go together or leave a choice, DataError where the source refuses `data`.
    """
    if kind is None:
        return _choose(name, data)
    if kind not in kind_names():
        raise ConfigError(f"no kind {kind!r}; expected one of {', '.join(kind_names())}")
    asking = [known for known, options in SOURCES.items() if "kind" in options.model_fields]
    if name is not None and name not in asking:
        raise ConfigError(f"source `{name}` has no kinds; leave out --kind, or name source {' or '.join(asking)}")
    return replace(_choose(name or asking[0], data, kind), kind=kind)


def _choose(name: str | None, data: str | None, kind: str | None = None) -> ChosenSource:
    readers = [known for known in SOURCES if _place(known)]
    others = ", ".join(known for known in SOURCES if known not in readers)
    if name is not None and name not in SOURCES:
        raise ConfigError(f"no source {name!r}; expected one of {', '.join(SOURCES)}")
    if data is None:
        if name is None:
            raise ConfigError(
                f"nothing says where the data comes from; add --data PATH, or --source and one of {others}"
            )
        if name in readers:
            raise ConfigError(f"source `{name}` reads data of yours; add --data PATH")
        return ChosenSource(name)
    if name is not None and name not in readers:
        raise ConfigError(f"source `{name}` has data of its own; leave out --data, or --source {name}")
    return ChosenSource(_reader_of(data, readers if name is None else [name], kind), data)


def _reader_of(data: str, names: list[str], kind: str | None) -> str:
    refusals, able = {}, []
    for name in names:
        try:
            _ask(name, data, kind)
            able.append(name)
        except DataError as error:
            refusals[name] = error.renamed({f"source.{name}.{_place(name)}": "--data"})
    if not able:
        raise refusals[_IDX if _IDX in refusals and (len(names) == 1 or _has_idx_files(data)) else names[0]]
    if len(able) > 1:
        raise ConfigError(f"sources {', '.join(able)} can read {data}; say which with --source")
    return able[0]


def _has_idx_files(data: str) -> bool:
    """Whether a folder has files in MNIST's format, so that what the source `idx` says of it is to the point."""
    from ae_pipeline.data.idx import idx_name

    return Path(data).is_dir() and any(idx_name(item.name) for item in Path(data).iterdir() if item.is_file())


def _ask(name: str, data: str, kind: str | None) -> None:
    """Raise DataError if the source cannot read what lies there, as far as it can tell at once."""
    says = {} if kind is None else {"kind": kind}
    place = data if "://" in data else str(Path(data).absolute())
    build_source(SourceParams.model_validate({"name": name, name: {_place(name): place, **says}})).announce()


def _plain_network() -> dict[str, Any]:
    """Settings of a network that takes rows of any shape, where params.yaml has one for pictures."""
    sections = ("model.", "train.", "quantiser.", "encode.")
    return {path: value for path, value in flattened(Params().model_dump()).items() if path.startswith(sections)}


def _place(name: str) -> str | None:
    return next((option for option in _PLACES if option in SOURCES[name].model_fields), None)


def _from_workspace(data: str, workspace: Path) -> str:
    if "://" in data:
        return data
    # Links in the path to the workspace are followed; those in it stay, so that they may be pointed elsewhere.
    path, root = Path(data).absolute(), workspace.absolute()
    for place in (root, root.resolve()):
        if path.is_relative_to(place):
            return path.relative_to(place).as_posix()
    return str(path)
