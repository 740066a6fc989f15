"""Makes a codec's folder from samples: train, freeze, fit the quantiser, save."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ae_pipeline.codec.arithmetic import scale_pixels
from ae_pipeline.codec.codec import freeze, save_codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.codec.header import CodecHeader, Scaling
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.files import refuse_existing
from ae_pipeline.models import build_model
from ae_pipeline.models.base import Autoencoder
from ae_pipeline.params import Params
from ae_pipeline.provenance import code_digests, library_versions, machine
from ae_pipeline.training import ranks
from ae_pipeline.training.batches import Rows, fit_scaling
from ae_pipeline.training.checkpoints import Checkpoints
from ae_pipeline.training.integers.tuning import tune
from ae_pipeline.training.loop import Epoch, Fitted, fit
from ae_pipeline.training.rate import RateModel
from ae_pipeline.training.streaming import RowsPlan, open_rows, plan_rows

# More rows than these hardly change where a range ends.
_QUANTISER_ROWS = 200_000
# A training is not taken up where another version of this would go on.
_DECIDING_CODE = tuple(f"ae_pipeline/{room}" for room in ("codec", "data", "models", "training"))


def build_codec(
    train: SampleSet,
    validation: SampleSet,
    params: Params,
    folder: Path,
    git: dict[str, Any],
    on_epoch: Callable[[Epoch], None],
    checkpoints: Checkpoints | None = None,
) -> tuple[CodecHeader, Fitted]:
    """Train a codec as `params` say and write it to `folder`, whole or not at all.

    `git` is the provenance of the code (see `provenance.git_state`); a training that `checkpoints` found is taken up.
    Raises TrainingError, DataError, ConfigError, and TargetError before any training if `folder` is taken.
    """
    refuse_existing(folder)
    if params.codec.family == "context":
        from ae_pipeline.training.context.build import build_context_codec
        from ae_pipeline.training.context.tables.build import build_table_codec, is_table

        if is_table(train.kind):
            return build_table_codec(train, validation, params, folder, git, on_epoch)
        return build_context_codec(train, validation, params, folder, git, on_epoch, checkpoints)
    begun, fitted = _fit(train, validation, params, on_epoch, checkpoints := checkpoints or Checkpoints())
    train_rows, validation_rows = begun.train_rows, begun.validation_rows
    frozen, quantiser, rate = _freeze(begun.model, fitted, train_rows, params, begun.scaling, train.spec)
    integers, tuned = None, None
    if _computes_in_integers(params, train.spec):
        integers, tuned = tune(frozen, quantiser, rate, train_rows, validation_rows, params.train, checkpoints)
    header = save_codec(
        folder,
        model=frozen,
        model_name=params.model.name,
        quantiser=quantiser,
        spec=train.spec,
        scaling=begun.scaling,
        provenance={
            "data": {"source": params.source.name, "digest": train.digest, "rows": train.rows},
            "git": git,
            "params": params.used("source", "prepare", "model", "train", "quantiser"),
            "seed": params.train.seed,
            "metrics": {
                "epochs": len(fitted.history),
                "best_epoch": fitted.best_epoch,
                **({"best_train_loss": fitted.best.train_loss} if fitted.best else {}),
                "best_validation_loss": fitted.validation_loss,
            },
            "versions": library_versions(),
            "machine": {
                **machine(),
                "device": begun.device.type,
                "threads": torch.get_num_threads(),
                **({"processes": begun.processes} if begun.processes > 1 else {}),
            },
            "precision": asdict(fitted.precision),
            **({"integers": asdict(tuned)} if tuned else {}),
            **({"rows": asdict(begun.plan)} if begun.plan.mode == "stream" else {}),
        },
        integers=integers,
        weight_bits=params.train.weight_bits,
        kind=train.kind,
    )
    return header, fitted


def train_along(train: SampleSet, validation: SampleSet, params: Params, checkpoints: Checkpoints) -> None:
    """Do what a rank does that is not the first one: take part in the training, and write nothing."""
    _fit(train, validation, params, lambda epoch: None, checkpoints)


@dataclass(frozen=True)
class _Begun:
    """What a training begins with."""

    model: Autoencoder
    train_rows: Rows
    validation_rows: Rows
    scaling: Scaling
    plan: RowsPlan
    device: torch.device
    processes: int


def _fit(
    train: SampleSet,
    validation: SampleSet,
    params: Params,
    on_epoch: Callable[[Epoch], None],
    checkpoints: Checkpoints,
) -> tuple[_Begun, Fitted]:
    """Train a model, together with the other ranks if there are any; from then on each is alone."""
    if validation.spec != train.spec:
        raise DataError(
            f"validation samples are {validation.spec.describe()}, "
            f"expected {train.spec.describe()} as the train samples"
        )
    if params.train.mirror:
        _refuse_what_has_no_sides(train)
    _computes_in_integers(params, train.spec)  # refuses what cannot
    _refuse_what_ranks_cannot(params)
    device = choose_device(params.train.device)
    scaling = fit_scaling(train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.train.seed)
        model = build_model(params.model.name, train.spec.shape, params.train.latent_size, params.model.options)
    model.to(device)
    plan = where_rows_are(train, validation, params, checkpoints)
    rows, held_out = open_rows(train, plan, device), open_rows(validation, plan, device)
    begun = _Begun(model, rows, held_out, scaling, plan, device, ranks.count())
    fitted = fit(model, rows, held_out, params.train, scaling, on_epoch, checkpoints)
    ranks.leave()
    return begun, fitted


def _refuse_what_ranks_cannot(params: Params) -> None:
    if (number := ranks.count()) == 1:
        return
    if params.train.compile:
        raise ConfigError(f"train.compile: true is for one process, found {number}; set it to false")
    if params.train.batch_size < 2 * number:
        raise ConfigError(
            f"train.batch_size {params.train.batch_size} is shared out among {number} processes, each of which needs 2 "
            f"rows; set it to at least {2 * number}, or use fewer processes"
        )


def open_checkpoints(folder: Path, train: SampleSet, validation: SampleSet, params: Params) -> Checkpoints:
    """The checkpoint of the training that `build_codec` makes of these, in `folder`; any other one there is removed.

    Raises ConfigError for a device that this machine lacks, TargetError.
    """
    device = choose_device(params.train.device)
    code, versions = code_digests(), library_versions()
    made_of = {
        "data": train.digest,
        "validation data": validation.digest,
        **params.used(*_deciding_sections(params)),
        **{room: code[room] for room in _DECIDING_CODE},
        **{library: versions[library] for library in ("torch", "numpy")},
        "device": device.type,
        "processes": ranks.count(),
    }
    here = {**machine(), "threads": torch.get_num_threads()}
    return Checkpoints(folder, made_of, params.checkpoint, here)


def _deciding_sections(params: Params) -> tuple[str, ...]:
    return ("codec", "train") if params.codec.family == "context" else ("model", "train", "quantiser")


def where_rows_are(train: SampleSet, validation: SampleSet, params: Params, checkpoints: Checkpoints) -> RowsPlan:
    """Decide whether rows are in memory or streamed, once for a training, whatever memory is free when it goes on."""
    device = choose_device(params.train.device)
    plan = checkpoints.settled("rows", lambda: asdict(plan_rows(train, validation, params.train, device)))
    return RowsPlan(**plan)


def _freeze(
    model: Autoencoder, fitted: Fitted, rows: Rows, params: Params, scaling: Scaling, spec: SampleSpec
) -> tuple[Autoencoder, Quantiser, RateModel | None]:
    """The model as it will be stored and its quantiser: the one it was trained with, or one fitted to its latents.

    A quantiser from training comes with the rate model of the latents that are left.
    """
    device = next(model.parameters()).device
    # Integers are rounded from floats that were not rounded to bytes before.
    bits = 16 if _computes_in_integers(params, spec) else params.train.weight_bits
    frozen = freeze(model, params.model.name, weight_bits=bits).to(device)
    latents = _latents(frozen, rows, scaling)
    if fitted.rate is None:
        return frozen, Quantiser.fit(latents, params.quantiser.levels), None
    rate = fitted.rate.cpu()
    used = rate.by_use(latents, frozen.kept_together(rate.used(latents)))
    if began := fitted.best is None:  # other rows than those of training have need of any dimension
        used = torch.arange(latents.shape[1], device=latents.device)
    quantiser = rate.quantiser(latents, used, params.quantiser.levels, widen=began)
    return freeze(model, params.model.name, used, bits), quantiser, rate.of(used)


def _refuse_what_has_no_sides(samples: SampleSet) -> None:
    kind = samples.kind.name if samples.kind else "image"
    if kind != "image" or len(samples.spec.shape) not in (2, 3):
        raise DataError(
            f"train.mirror is for pictures, found {samples.spec.describe()} of kind {kind}; set it to false"
        )


def _computes_in_integers(params: Params, spec: SampleSpec) -> bool:
    if params.train.arithmetic == "integer" and spec.dtype != "uint8":
        raise DataError(f"train.arithmetic: integer is for uint8 samples, found {spec.describe()}; set it to auto")
    return params.train.arithmetic != "float" and params.may_be_integer and spec.dtype == "uint8"


@torch.inference_mode()
def _latents(model: Autoencoder, rows: Rows, scaling: Scaling) -> Tensor:
    """Latents (n, L) of evenly spaced train rows, on the CPU."""
    step = -(-rows.rows // _QUANTISER_ROWS)
    pieces = [model.encode(scale_pixels(pixels[::step].float(), scaling)).cpu() for pixels in rows.in_order(4096)]
    return torch.cat(pieces)
