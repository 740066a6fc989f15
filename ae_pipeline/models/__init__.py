"""The autoencoders: one file per model, named as in params.yaml's `model.name`.

To add one: write `models/<name>.py` with `MODEL = <Class>` as its last line (contract: base.py), and beside it
`models/<name>_options.py` with its `class Options(ModelOptions)`; write the options into params.yaml. The codec's
header, params/options.py, dvc.yaml and tests/house/test_contracts.py find it by its file.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # params/ asks for the options where torch is not wanted
    from ae_pipeline.models.base import Autoencoder


def build_model(name: str, sample_shape: tuple[int, ...], latent_size: int, options: dict[str, Any]) -> "Autoencoder":
    """A freshly initialised model; its weights depend on torch's current seed. Raises TypeError unless all options are
    given, and no others.
    """
    module = import_module(f"ae_pipeline.models.{name}")
    known = module.Options.model_fields
    wrong = [f"unexpected keyword argument {key!r}" for key in options if key not in known]
    wrong += [f"missing keyword argument {key!r}" for key in known if key not in options]
    if wrong:
        raise TypeError(f"model {name}: {', '.join(wrong)}")
    return module.MODEL(sample_shape, latent_size, module.Options(**options))
