"""A codec as an MLflow pyfunc model, for other people's `mlflow.pyfunc.load_model`: a model from code, no pickle.

    model = mlflow.pyfunc.load_model("models:/mnist-ae@challenger")
    model.predict(pixels)                              # decoded again: what the codec makes of the rows
    model.predict(pixels, params={"task": "encode"})   # int8 latents (n, L)

To decode latents, or without MLflow, use the codec folder inside the model: `Codec.load`. Our own commands do that, so
that they work with MLflow's execution of model code switched off.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.errors import ConfigError

_NEEDED = ("torch", "numpy", "safetensors", "pyarrow", "pydantic", "ruamel.yaml")


class CodecModel(PythonModel):  # type: ignore[misc]
    """Samples in, decoded samples or latents out."""

    def load_context(self, context: Any) -> None:
        """Load the codec folder that was logged with the model."""
        self._codec = Codec.load(Path(context.artifacts["codec"]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002
        """(n, *shape) of the codec's dtype; `task` is `reconstruct` (default) or `encode`."""
        task = (params or {}).get("task", "reconstruct")
        if task not in ("reconstruct", "encode"):
            raise ConfigError(f"task is {task!r}, expected reconstruct or encode")
        latents = self._codec.encode(model_input)
        return latents if task == "encode" else self._codec.decode(latents)


def signature(header: CodecHeader) -> dict[str, Any]:
    """Model signature in MLflow's dictionary form."""
    tensor = {"dtype": header.spec.dtype, "shape": [-1, *header.spec.shape]}
    schema = json.dumps([{"type": "tensor", "tensor-spec": tensor}])
    task = {"name": "task", "type": "string", "default": "reconstruct", "shape": None}
    return {"inputs": schema, "outputs": schema, "params": json.dumps([task])}


def requirements() -> list[str]:
    """Pip requirements with the versions that are installed here."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _NEEDED]


set_model(CodecModel())
