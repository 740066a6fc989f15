"""What sections of params.yaml share."""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from ae_pipeline.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Size = Annotated[int, Field(ge=1, le=2**20)]
"""Values or channels of a layer."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "identity"]
Norm = Literal["batch", "none"]
Output = Literal["sigmoid", "clamp", "linear"]
"""The last activation, for values in [0, 1]: `clamp` cuts off what is outside; `linear` leaves it."""


class Section(BaseModel):
    """Frozen; unknown keys are refused; numbers are not taken from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def known(cls) -> list[str]:
        """The keys that it takes."""
        return list(cls.model_fields)


class Limit(NamedTuple):
    """What a metric may be at most (`max_<name>`), or must be at least (`min_<name>`)."""

    key: str
    metric: str
    is_most: bool
    value: float


def _known_limit(key: str) -> str:
    if key not in _limits_of_metrics():
        raise PydanticCustomError("extra_forbidden", "unknown limit")
    return key


def _limits_of_metrics() -> list[str]:
    """The table is in a room above this one: it is asked by name, and only where a file names more than the fields."""
    metrics: dict[str, Any] = import_module("ae_pipeline.evaluation.measures.metrics").METRICS
    return [metric.limit for metric in metrics.values()]


class Limits(Section):
    """A section that takes limits on all metrics; those that are its fields are in params.yaml as it comes."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[
        Annotated[str, AfterValidator(_known_limit)], Annotated[float, Field(allow_inf_nan=False)] | None
    ]

    @classmethod
    def known(cls) -> list[str]:
        """Its fields, then the limits on other metrics."""
        return list(dict.fromkeys([*cls.model_fields, *_limits_of_metrics()]))

    @property
    def limits(self) -> list[Limit]:
        """The limits that are set."""
        found = [(key, *key.partition("_")[::2], value) for key, value in self if value is not None]
        return [Limit(key, name, kind == "max", value) for key, kind, name, value in found if kind in ("max", "min")]


class SourceOptions(Section):
    """Options of a source; `class Options` in a file of sources/ beside it is one."""

    def state_of_files(self) -> Sequence[Any]:
        """What the person's own files are that the source reads, in values that JSON holds: any change of a file
        changes it. Nothing for a source that has no such files.

        It is asked at every `dvc repro`, so it reads no file and imports nothing heavy. Raises DataError or OSError
        where no file is there.
        """
        return ()


class ModelOptions(Section):
    """Options of an autoencoder; `class Options` in each file of models/ is one."""

    for_images: ClassVar[bool] = False
    """Whether the model takes (height, width) or (height, width, channels) alone."""
    before: ClassVar[dict[str, Any]] = {}
    """What options that were added later meant before there were any: for codecs written then."""
    unsaid: ClassVar[tuple[str, ...]] = ()
    """Options of `before` that codec.json names only where they mean something else: other codecs stay as they were,
    fingerprint and all."""
    about_equal_bits: ClassVar[tuple[str, ...]] = ()
    """Options that decide how well a latent is used, not how it is spread over the quantiser's levels: a sweep takes
    the bits of two settings that differ in these alone as about equal."""


AnySection = TypeVar("AnySection", bound=Section)


def replaced(section: AnySection, values: dict[str, Any]) -> AnySection:
    """A copy with other values, named by their dotted path, e.g. `{"train.latent_size": 8}`.

    Raises ConfigError for a path that does not exist, and for values that params.yaml could not have either.
    """
    tree = section.model_dump()
    for path, value in values.items():
        *parents, name = path.split(".")
        inner: Any = tree
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or name not in inner or isinstance(inner[name], dict):
            raise ConfigError(f"{path} is no parameter; expected a path in params.yaml such as train.latent_size")
        inner[name] = value
    try:
        return type(section).model_validate(tree)
    except ValidationError as error:
        found = "; ".join(problems(error))
        wanted = ", ".join(f"{path}={value}" for path, value in values.items())
        raise ConfigError(f"{wanted} does not go: {found}") from None


def problems(error: ValidationError, section: type[Section] | None = None) -> list[str]:
    """What is wrong, `place: what is expected`, without pydantic's own words.

    With the section that was read: what was found, too, and of an unknown key those that are known.
    """
    found = []
    for item in error.errors():
        place, message = ".".join(str(part) for part in item["loc"]), item["msg"].removeprefix("Value error, ")
        if section and item["type"] == "extra_forbidden":
            inner: Any = section
            for part in item["loc"][:-1]:
                inner = inner.model_fields[part].annotation
            message = f"unknown key (known: {', '.join(inner.known()) or 'none, it has no options'})"
        elif section and place:
            message += f", found {item['input']!r}"
        found.append(f"{place}: {message}" if place else message)
    return found
