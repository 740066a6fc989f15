"""Which sources and models there are, and the options of each: `class Options` in its own file.

A file of sources/ or models/ that ends in `SOURCE = ...` or `MODEL = ...` is one, named after the file. Options are
wanted where nothing heavy is, and a model's file imports torch: so of each file `class Options` alone is run, with the
imports that it may use (`_LIGHT`). Without that class there are no options.
"""

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import create_model

from ae_pipeline.errors import ConfigError
from ae_pipeline.params.base import ModelOptions, Section

_PACKAGE = Path(__file__).parents[1]
_LIGHT = ("typing", "pydantic", "ae_pipeline.params.base")
# A file up to the end of the class; the rest need not be parsed at every start.
_HEAD = re.compile(r".*?^class Options\(.*?(?=^\S|\Z)", re.DOTALL | re.MULTILINE)
AnyOptions = TypeVar("AnyOptions", bound=Section)


class Choice(Section):
    """Which source or model, and the options of each under its own name."""

    name: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The chosen one's options as keyword arguments."""
        return dict(getattr(self, self.name))


def find_options(room: str, last: str, default: str, base: type[AnyOptions]) -> dict[str, type[AnyOptions]]:
    """The options of every file in `room` whose last line begins with `last`, the default one first, then by name."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (_PACKAGE / room).glob("[a-z]*.py")}
    names = sorted(name for name, text in texts.items() if f"\n{last} = " in text)
    return {
        name: _options(f"{room}/{name}.py", texts[name], base)
        for name in sorted(names, key=lambda name: name != default)
    }


def _options(place: str, text: str, base: type[AnyOptions]) -> type[AnyOptions]:
    head = _HEAD.match(text)
    if head is None:
        return type("NoOptions", (base,), {"__module__": __name__, "__doc__": "There are none."})
    tree = ast.parse(head[0])
    tree.body = [node for node in tree.body if _is_light(node)]
    found: dict[str, Any] = {"__name__": f"ae_pipeline.{place.removesuffix('.py').replace('/', '.')}"}
    try:
        exec(compile(tree, _PACKAGE / place, "exec"), found)  # noqa: S102 (a file of this package)
    except NameError as error:
        raise ConfigError(
            f"class Options in ae_pipeline/{place}: {error}; expected only what it imports from {', '.join(_LIGHT)}"
        ) from None
    options: type[AnyOptions] = found["Options"]
    return options


def _is_light(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module in _LIGHT
    return isinstance(node, ast.ClassDef) and node.name == "Options"


SOURCES = find_options("sources", "SOURCE", "mnist", Section)
MODELS = find_options("models", "MODEL", "dense", ModelOptions)

if TYPE_CHECKING:
    SourceParams = Choice
    ModelParams = Choice
    ModelName = str
else:

    def _choice(title: str, words: str, found: dict[str, type[Section]]) -> type[Choice]:
        fields = {name: (options, options()) for name, options in found.items()}
        names = (Literal[tuple(found)], next(iter(found)))
        return create_model(title, __base__=Choice, __module__=__name__, __doc__=words, name=names, **fields)

    SourceParams = _choice("SourceParams", "Which data set, and its options under its own name.", SOURCES)
    ModelParams = _choice("ModelParams", "Which autoencoder, and its options under its own name.", MODELS)
    ModelName = Literal[tuple(MODELS)]
