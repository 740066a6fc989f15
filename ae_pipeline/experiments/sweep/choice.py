"""The chosen values into params.yaml, of which every other character stays as it is."""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from ae_pipeline.errors import ConfigError
from ae_pipeline.experiments.sweep.space import Setting
from ae_pipeline.files import finished_file
from ae_pipeline.params import flattened, load_params
from ae_pipeline.params.base import replaced

_HALVES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")
_PLAIN = re.compile(r"(?!(true|false|null|yes|no|on|off)$)[a-z][a-z_]*")


def write_choice(path: Path, setting: Setting) -> None:
    """Set the values in params.yaml at `path`. Raises ConfigError, and leaves the file, where it cannot be done."""
    found = load_params(path)
    wanted = replaced(found, setting)
    # What is as wanted by default need not stand there.
    values = flattened(found.model_dump())
    setting = {dotted: value for dotted, value in setting.items() if dotted not in values or values[dotted] != value}
    text = path.read_bytes().decode("utf-8")  # as bytes: ends of lines stay what they are
    root = YAML(typ="safe", pure=True).compose(text)
    places = {dotted: node for dotted in setting if (node := _value(root, dotted)) is not None}
    if missing := [dotted for dotted in setting if dotted not in places]:
        raise ConfigError(
            f"{path} has no {', '.join(missing)}; add it there with any value, and give the same command again"
        )
    # The last place is written first: places before it stay valid.
    for dotted, node in sorted(places.items(), key=lambda place: -place[1].start_mark.index):
        text = text[: node.start_mark.index] + _as_yaml(setting[dotted]) + text[node.end_mark.index :]
    with finished_file(path.resolve()) as temporary:  # a link stays one
        temporary.write_bytes(text.encode("utf-8"))
        try:
            right = load_params(temporary) == wanted
        except ConfigError:
            right = False
        if not right:
            words = ", ".join(f"{dotted}={value}" for dotted, value in setting.items())
            raise ConfigError(
                f"{path} is left as it is: a value to be changed is empty, stands on several lines, or is shared by & "
                f"and *; write it as `key: value` on one line, or set {words} by hand"
            )


def _value(root: Node | None, dotted: str) -> Node | None:
    """Where the parameter's value stands in the file, if it does."""
    node = root
    for name in dotted.split("."):
        pairs = node.value if isinstance(node, MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    return node


def _as_yaml(value: Any) -> str:
    if isinstance(value, float):
        # 8e-05 is a text to readers of YAML 1.1, such as PyYAML; 8.0e-05 is a number to all.
        return re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value))
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    # JSON writes a character beyond U+FFFF as two halves, which YAML does not put together.
    return _HALVES.sub(_as_one, json.dumps(value))


def _as_one(halves: re.Match[str]) -> str:
    character: str = json.loads(f'"{halves[0]}"')
    return f"\\U{ord(character):08x}"
