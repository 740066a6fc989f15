"""The autoencoders: one file per model, named as in params.yaml's `model.name`.

To add one: write `models/<name>.py` whose last line is `MODEL = <Class>` (contract: base.py), add its options and name
to `ModelParams` in params/model.py and to `Model` in codec/header.py. tests/house/test_contracts.py and DVC find it by
its name.
"""

from importlib import import_module
from typing import Any

from ae_pipeline.models.base import Autoencoder


def build_model(name: str, sample_shape: tuple[int, ...], latent_size: int, options: dict[str, Any]) -> Autoencoder:
    """A freshly initialised model; its weights depend on torch's current seed."""
    model: Autoencoder = import_module(f"ae_pipeline.models.{name}").MODEL(sample_shape, latent_size, **options)
    return model
