"""The settings of our codecs, by name: files in ae_pipeline/experiments/presets that override params.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from ae_pipeline.errors import ConfigError
from ae_pipeline.params import Params
from ae_pipeline.params.base import problems

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """All presets that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_params(name: str, base: Params | None = None) -> Params:
    """`base` (default: the defaults) with what the preset overrides. Raises ConfigError for a name that is none."""
    overrides = _overrides(name)
    try:
        return Params.model_validate(_merged((base or Params()).model_dump(), overrides))
    except ValidationError as error:
        wrong = f"{FOLDER / name}.yaml: {problems(error)[0]}"
        raise ConfigError(f"{wrong}; correct the preset, or params.yaml under it") from None


def preset_values(name: str) -> dict[str, Any]:
    """What a preset overrides, by path (`train.latent_size`). Raises ConfigError for a name that is none."""
    return dict(_flattened(_overrides(name)))


def _overrides(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(
            f"no preset {name!r}; expected one of {', '.join(preset_names())}: correct it where you named it, or in "
            "bench.presets of params.yaml"
        )
    found: dict[str, Any] = YAML(typ="safe", pure=True).load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def _flattened(tree: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def _merged(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged, values replaced."""
    merged = dict(tree)
    for key, value in overrides.items():
        inner = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if inner else value
    return merged
