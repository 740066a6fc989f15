"""The chosen values into params.yaml, which keeps its comments and everything else."""

from pathlib import Path

from ruamel.yaml import YAML

from ae_pipeline.errors import ConfigError
from ae_pipeline.files import finished_file
from ae_pipeline.params import load_params
from ae_pipeline.sweep.space import Setting


def write_choice(path: Path, setting: Setting) -> None:
    """Set the values in params.yaml at `path`. Raises ConfigError, and leaves the file, if that makes it invalid."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(path.read_text(encoding="utf-8"))
    for dotted, value in setting.items():
        *parents, name = dotted.split(".")
        inner = tree
        for parent in parents:
            if inner.get(parent) is None:
                inner[parent] = {}
            inner = inner[parent]
        old = inner.get(name)
        if isinstance(old, list) and isinstance(value, list):
            old[:] = value  # in the same style
        else:
            inner[name] = value
    with finished_file(path) as temporary:
        yaml.dump(tree, temporary)
        try:
            load_params(temporary)
        except ConfigError as error:
            raise ConfigError(f"{path} is left as it is: {error}") from None
