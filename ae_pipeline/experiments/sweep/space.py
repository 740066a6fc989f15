"""What to try: words such as `train.latent_size=8,16,32` into settings, checked before anything is trained."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ae_pipeline.errors import ConfigError
from ae_pipeline.params import Params
from ae_pipeline.params.base import replaced

Setting = dict[str, Any]
"""Values by the dotted path of their parameter, in the order in which they were given."""

SECTIONS = ("model", "train", "quantiser", "encode")
"""What a codec and the bytes of its store depend on."""


@dataclass(frozen=True)
class Dimension:
    """One parameter: the values to try, or with `is_range` the two ends between which to search."""

    path: str
    values: tuple[Any, ...]
    is_range: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


def parse_space(words: list[str], params: Params, trials: int | None) -> list[Dimension]:
    """One dimension per word. Raises ConfigError for what is no parameter, has no effect, or cannot be a value."""
    space = [_dimension(word) for word in words]
    paths = [dimension.path for dimension in space]
    for dimension in space:
        _check_path(dimension.path)
        if dimension.is_range and trials is None:
            raise ConfigError(f"{dimension.path} is a range; list the values to try, or say with --trials how many")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"a parameter is given twice: {', '.join(paths)}; give all its values at once")
    used: set[str] = set()
    for setting in combinations(space):
        used |= replaced(params, setting).used(*SECTIONS).keys()
    for path in paths:
        if path not in used:
            raise ConfigError(f"{path} has no effect: model.name is {params.model.name}; change that, or leave it out")
    return space


def combinations(space: list[Dimension]) -> list[Setting]:
    """Every combination of the values, the last parameter changing fastest; of a range its ends."""
    paths = [dimension.path for dimension in space]
    return [dict(zip(paths, values, strict=True)) for values in product(*(dimension.values for dimension in space))]


def with_setting(params: Params, setting: Setting, seed: int) -> Params:
    """All parameters of a trial."""
    return replaced(params, {**setting, "train.seed": seed})


def describe(setting: Setting) -> str:
    """A setting in words, by the last part of each path, e.g. `latent_size=28, levels=16`."""
    return ", ".join(f"{path.split('.')[-1]}={value}" for path, value in setting.items())


def _dimension(word: str) -> Dimension:
    path, equals, text = word.partition("=")
    if not equals or not text.strip():
        raise ConfigError(f"{word!r} is nothing to try; expected PATH=V1,V2,... such as train.latent_size=8,16,32")
    low, dots, high = text.partition("..")
    if dots and "," in text:
        raise ConfigError(f"{word!r} mixes values and a range; expected PATH=V1,V2,... or PATH=LOW..HIGH")
    values = tuple(_parsed(f"[{low}, {high}]" if dots else f"[{text}]", word))
    if any(values.count(value) > 1 for value in values):
        raise ConfigError(f"{word!r} has a value twice; give each once")
    dimension = Dimension(path.strip(), values, is_range=bool(dots))
    if dots and not (len(values) == 2 and dimension.is_numeric and values[0] < values[1]):
        raise ConfigError(f"{word!r} is no range; expected PATH=LOW..HIGH with two numbers")
    return dimension


def _parsed(text: str, word: str) -> list[Any]:
    """The values as params.yaml would have them."""
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read the values of {word!r}: {' '.join(str(error).split())}") from None
    return list(values)


def _check_path(path: str) -> None:
    if path == "train.seed":
        raise ConfigError("train.seed is not swept; --seeds says how often each setting is trained")
    if path.partition(".")[0] not in SECTIONS or path == "encode.data_sets":
        raise ConfigError(
            f"{path} cannot be swept; expected a parameter of the codec or its store ({', '.join(SECTIONS)}.*). "
            "For others there is `dvc exp run --queue`"
        )
