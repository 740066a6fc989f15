"""Limits on any metric of the table: `max_<name>` where lower is better, `min_<name>` where higher is."""

from importlib import import_module
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ae_pipeline.params.base import Section


class Limit(NamedTuple):
    """What a metric may be at most, or must be at least."""

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
    metrics: dict[str, Any] = import_module("ae_pipeline.evaluation.metrics").METRICS
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
