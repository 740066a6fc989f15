"""The settings of our codecs, by name: files in ae_pipeline/experiments/presets that override params.yaml."""

from math import prod
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ae_pipeline.codec.context.options import STREAM_ROWS
from ae_pipeline.errors import ConfigError
from ae_pipeline.params import EncodeParams, Params, flattened
from ae_pipeline.params.base import replaced

FOLDER = Path(__file__).parent
FOR_VECTORS = ("vector_small", "vector", "vector_fine")
FOR_OTHERS = ("small", "balanced", "fine", "compact", "compact_balanced", "compact_fine")
"""What `bench` measures where nothing else is asked for; those that are for images only are left out of other rows."""
WITHIN_A_BOUND = ("exact", "near_1", "near_4", "near_16", "crisp", "bold", "stark")
"""Presets of context codecs, for grey pictures; `bench` measures them where they are asked for by name."""
TILES = "tiles"
"""What stands for a kind where pictures are cut into tiles."""
_ALL = {"codec.family": "autoencoder"}
"""What a preset overrides where its file says nothing of it: which of the other settings are read."""
_FOR_KINDS = {"audio": ("sound",), TILES: ("tiles",)}
ICONS = "icons"
FOR_ICONS = (ICONS, "icons_fine")
ICON_SHAPE = (64, 64, 3)
"""The shape that `icons` is for as it stands."""
_ICON_BLOCK = 8


def preset_names() -> list[str]:
    """All presets that there are."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    """The files of all presets, by name."""
    return {path.stem: path for path in FOLDER.rglob("*.yaml")}


def suiting(shape: tuple[int, ...], kind: str | None = None) -> list[str]:
    """The presets for samples of this shape, and kind where it is known: one dimension is a vector."""
    if not _FOR_KINDS.get(kind or "") and tuple(shape) == ICON_SHAPE:
        return [*FOR_ICONS]
    return list(_FOR_KINDS.get(kind or "") or (FOR_VECTORS if len(shape) == 1 else FOR_OTHERS))


def icon_settings(shape: tuple[int, ...]) -> dict[str, Any]:
    """What of `icons` is otherwise for pictures (height, width, channels) of another size: as much for each block."""
    values = preset_values(ICONS)
    blocks, others = (-(-size[0] // _ICON_BLOCK) * -(-size[1] // _ICON_BLOCK) for size in (shape, ICON_SHAPE))
    # No more latents than a row has values.
    for_each = max(1, min(values["train.latent_size"] // others, (prod(shape) - 1) // blocks))
    weight = values["train.rate_weight"] * prod(ICON_SHAPE) / prod(shape)
    return {
        "train.latent_size": for_each * blocks,
        "train.rate_weight": float(f"{weight:.2g}"),
    }


def preset_params(name: str, base: Params | None = None) -> Params:
    """`base` (default: the defaults) with what the preset overrides. Raises ConfigError for a name that is none."""
    values = preset_values(name)
    try:
        return replaced(base or Params(), values)
    except ConfigError as error:
        raise ConfigError(f"{_files()[name]}: {error}; correct the preset, or params.yaml under it") from None


def preset_values(name: str) -> dict[str, Any]:
    """What a preset overrides, by path (`train.latent_size`). Raises ConfigError for a name that is none."""
    if name not in preset_names():
        raise ConfigError(
            f"no preset {name!r}; expected one of {', '.join(preset_names())}: correct it where you named it, or in "
            "bench.presets of params.yaml"
        )
    return _ALL | flattened(YAML(typ="safe", pure=True).load(_files()[name].read_text(encoding="utf-8")))


def preset_changes(name: str, params: Params) -> dict[str, Any]:
    """What the preset overrides in these params: also the rows of a row group that a preset of another family set."""
    values = preset_values(name)
    if params.codec.family != values["codec.family"] and params.encode.row_group_rows == STREAM_ROWS:
        values = {"encode.row_group_rows": EncodeParams().row_group_rows} | values
    return values
