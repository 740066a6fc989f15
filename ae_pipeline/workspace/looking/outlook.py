"""How long a training takes here, measured in a few steps of it, and how large its codec will be."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ae_pipeline.codec.devices import choose_device
from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import ConfigError, TrainingError
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Weighted, output_axis
from ae_pipeline.params import Params
from ae_pipeline.training.batches import MemoryRows
from ae_pipeline.training.loop import Epoch, fit

# Bytes of codec.json: what every one has, and what each latent adds (scale, zero point).
_HEADER_BYTES, _LATENT_BYTES = 3500, 42
# A network in integers trains a twentieth more epochs, which are slower.
_INTEGER_SHARE = 0.12
# Batches that are timed, so many that what the precision chooses is as in a training; their values, and rows at least.
_BATCHES, _MOST_VALUES, _LEAST_BATCH = 34, 1 << 24, 2
LARGEST_TRIED = 1 << 22
"""Values of a row up to which a training is tried."""
# Above so many seconds for those batches, a few tell enough.
_MOST_SECONDS, _FEW = 12.0, 3


@dataclass(frozen=True)
class Speed:
    """How fast a training is on this machine, with the threads that it has now."""

    seconds_per_row: float
    """What each epoch takes for a row."""

    def seconds(self, rows: int, epochs: int) -> float:
        """A training of so many rows, validation rows among them."""
        return self.seconds_per_row * rows * epochs


def codec_bytes(params: Params, spec: SampleSpec, latents: int | None = None) -> int:
    """About how many bytes a codec will have; `latents`: how many of train.latent_size will be used.

    Weights take a byte each in integers, two in floats or as train.weight_bits says; a bias and its shift take five in
    integers, and a bias and the weights' scale four where floats are of bytes.
    """
    size = min(params.train.latent_size, latents or params.train.latent_size)
    with torch.device("meta"):
        try:
            model = build_model(params.model.name, spec.shape, size, params.model.options)
        except ConfigError:  # a model whose latents belong to places has all of them
            size = params.train.latent_size
            model = build_model(params.model.name, spec.shape, size, params.model.options)
    integers, weight_bytes = in_integers(params, spec), params.train.weight_bits // 8
    per_output = 5 if integers else 4 if weight_bytes == 1 else 2
    total = 0
    for module in model.modules():
        if isinstance(module, Weighted):
            outputs = module.weight.shape[output_axis(module)]
            total += module.weight.numel() * (1 if integers else weight_bytes) + per_output * outputs
    steps = model.latent_channels if weight_bytes == 1 and model.latent_channels else size
    return total + _HEADER_BYTES + _LATENT_BYTES * steps


def in_integers(params: Params, spec: SampleSpec) -> bool:
    """Whether the codec will compute in integers."""
    return params.train.arithmetic != "float" and params.may_be_integer and spec.dtype == "uint8"


def measure_speed(params: Params, spec: SampleSpec, rows: np.ndarray, total: int, scaling: Scaling) -> Speed | None:
    """Train for some batches on these rows (n, *shape), again and again if they are few; nothing of it stays.

    `total` are the rows of the training that is meant. None: rows are too large to try it, or too few.
    """
    if spec.size > LARGEST_TRIED or total < _LEAST_BATCH:
        return None
    batch = max(_LEAST_BATCH, min(params.train.batch_size, _MOST_VALUES // (4 * spec.size), total))
    wanted = min(total, _BATCHES * batch, max(_FEW * batch, _MOST_VALUES // spec.size))
    found = _seconds(params, spec, rows, min(total, _FEW * batch), batch, scaling, autocast=False)
    # Two epochs, and as many steps again to choose the precision.
    if found is not None and wanted > _FEW * batch and 4 * found * wanted < _MOST_SECONDS:
        found = _seconds(params, spec, rows, wanted, batch, scaling, autocast=params.train.autocast) or found
    extra = _INTEGER_SHARE if in_integers(params, spec) else 0.0
    return None if found is None else Speed(found * (1 + extra))


def _seconds(
    params: Params, spec: SampleSpec, found: np.ndarray, wanted: int, batch: int, scaling: Scaling, *, autocast: object
) -> float | None:
    """Seconds of an epoch for each row: of the second one, as the first one loads what it needs. None: it failed."""
    rows = np.resize(found, (max(2, wanted), *spec.shape))
    device = choose_device(params.train.device)
    with torch.random.fork_rng(devices=[]):
        model = build_model(params.model.name, spec.shape, params.train.latent_size, params.model.options)
    model.begins_as_klt = False  # its time does not grow with the rows
    model.to(device)
    held_out = rows[: math.ceil(len(rows) / 9)]
    short = params.train.model_copy(update={"epochs": 2, "patience": 0, "batch_size": batch, "autocast": autocast})
    ends: list[float] = []
    clock = _clock(device)
    # Two epochs of a few rows need not learn anything.
    with suppress(TrainingError):
        tell = partial(_note_end, ends, clock)
        fit(model, MemoryRows(rows, device), MemoryRows(held_out, device), short, scaling, tell)
    if len(ends) < 2:
        return None
    return (ends[1] - ends[0]) / (len(rows) + len(held_out))


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds: on a CPU those of its own work, by its threads, whatever else keeps the machine busy meanwhile."""
    if device.type != "cpu":
        return time.perf_counter
    threads = torch.get_num_threads()
    return lambda: time.process_time() / threads


def _note_end(ends: list[float], clock: Callable[[], float], _: Epoch) -> None:
    ends.append(clock())
