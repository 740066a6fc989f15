"""Which sources and models there are, and the options of each.

A file of sources/ or models/ with a line `SOURCE = ...` or `MODEL = ...` is one, named after the file. Its options are
`class Options` in the file beside it, `<name>_options.py`, if there is one: options are wanted where nothing heavy is
loaded, and a model's own file imports torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import create_model

from ae_pipeline.params.base import ModelOptions, Section, SourceOptions

_PACKAGE = Path(__file__).parents[1]
AnyOptions = TypeVar("AnyOptions", bound=Section)


class Choice(Section):
    """Which source or model, and the options of each under its own name."""

    name: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The chosen one's options as keyword arguments."""
        return dict(getattr(self, self.name))


def find_options(room: str, last: str, default: str, base: type[AnyOptions]) -> dict[str, type[AnyOptions]]:
    """The options of every file in `room` that has a line `last = ...`, the default one first, then by name."""
    folder = _PACKAGE / room
    names = [file.stem for file in folder.glob("[a-z]*.py") if f"\n{last} = " in file.read_text(encoding="utf-8")]
    found: dict[str, type[AnyOptions]] = {}
    for name in sorted(names, key=lambda name: (name != default, name)):
        if (folder / f"{name}_options.py").exists():
            found[name] = import_module(f"ae_pipeline.{room}.{name}_options").Options
        else:
            found[name] = type("NoOptions", (base,), {"__module__": __name__, "__doc__": "There are none."})
    return found


SOURCES = find_options("sources", "SOURCE", "mnist", SourceOptions)
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
