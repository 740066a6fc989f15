"""Makes a context codec's folder from samples: train, round, save."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ae_pipeline.codec.context.networks import Networks
from ae_pipeline.codec.context.options import Options, why_not
from ae_pipeline.codec.context.saving import save_context_codec
from ae_pipeline.codec.context.streams import even
from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError
from ae_pipeline.params import Params
from ae_pipeline.training.checkpoints import Checkpoints
from ae_pipeline.training.context.fit import fit_context
from ae_pipeline.training.context.origin import origin
from ae_pipeline.training.loop import Epoch, Fitted
from ae_pipeline.training.steps.precision import Precision

# Pictures that tell how it goes.
_VALIDATED = 1000
_RESTORE = (48, 32)
"""Hidden values of the network that restores; every value as it was needs none."""


def build_context_codec(
    train: SampleSet,
    validation: SampleSet,
    params: Params,
    folder: Path,
    git: dict[str, Any],
    on_epoch: Callable[[Epoch], None],
    checkpoints: Checkpoints | None = None,
) -> tuple[CodecHeader, Fitted]:
    """Do what `build_codec` does, for codec.family: context."""
    if reason := why_not(train.spec):
        raise ConfigError(reason)
    max_error = params.codec.max_error
    options = Options(max_error=max_error, restore=_RESTORE if max_error else None)
    rows = [_even(samples) for samples in (train, validation)]
    held_out = rows[1][:: -(-len(rows[1]) // _VALIDATED)]
    state, history = fit_context(rows[0], held_out, options, params.train, on_epoch, checkpoints)
    height, width = rows[0].shape[1:]
    networks = Networks(height, width, options)
    networks.load_state_dict(state, assign=True)
    fitted = Fitted(history, len(history), stopped_early=False, precision=Precision(autocast=False))
    header = save_context_codec(
        folder,
        networks,
        options,
        train.spec,
        kind=train.kind,
        provenance=origin(train, params, git, history, epochs=len(history), threads=1),
    )
    return header, fitted


def _even(samples: SampleSet) -> np.ndarray:
    """uint8 (rows, height, width), with even sides."""
    found = samples.load().pixels
    height, width = found.shape[1:]
    tall, wide = even((height, width))
    return np.pad(found, ((0, 0), (0, tall - height), (0, wide - width)))
