"""What can be said of params.yaml before anything runs: at most one record is read; torch is loaded for a named device
only.

A stage would say the same after the ones before it, perhaps after hours. What needs the data itself is said when
`train` starts (outlook.py).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ae_pipeline.cli.stages.code import look
from ae_pipeline.errors import ConfigError, DataError, PipelineError, WorkspaceError
from ae_pipeline.operation.tracking.dvc_lock import read_stages
from ae_pipeline.params import MNIST_MAX_MSE, Params
from ae_pipeline.params.options import MODELS
from ae_pipeline.provenance import CODE_FILE
from ae_pipeline.sources import build_source
from ae_pipeline.sources.base import Announced
from ae_pipeline.training.outlook import misfits, size_warnings

# raw, prepared and decoded are each as large as the samples, and DVC's cache may hold a copy of each.
_WRITTEN = ("raw", "prepared", "decoded")
_COPIES = 2
# Models for kinds whose rows are no pictures.
_SUITS = {"vector": "dense", "audio": "conv1d"}


def preflight(params: Params, root: Path) -> list[str]:
    """Warnings for a person. Raises one ConfigError with all problems."""
    problems = [*_path_problems(params, root), *_device_problems(params)]
    problems += _kind_problems(params)
    warnings = list(_gate_warnings(params))
    announced = first = None
    try:
        source = build_source(params.source)
        announced = source.announce()
        first = source.look_at_first() if announced is None and not problems else None
    except DataError as error:
        # DVC does not ask the source again for what it has.
        if not _is_fetched(params, root):
            problems.append(str(error))
    if announced is not None:
        problems += [*misfits(params, announced.spec), *_split_problems(params, announced)]
        warnings += [*size_warnings(params, announced.spec), *_disk_warnings(params, root, announced)]
    elif first is not None:
        problems += misfits(params, first)
        warnings += size_warnings(params, first)
    if problems:
        raise ConfigError("; ".join(problems))
    return warnings


def _path_problems(params: Params, root: Path) -> list[str]:
    """Folders that no stage could write, and two that must lie on one file system but do not."""
    problems = []
    for name, path in params.paths.model_dump().items():
        place = _existing(root / path)
        if not place.is_dir():
            problems.append(f"paths.{name}: {root / path} cannot be made, {place} is no folder; choose another path")
        elif not os.access(place, os.W_OK | os.X_OK):
            problems.append(f"paths.{name}: {place} cannot be written to; give permission, or choose another path")
    work, latents = _existing(root / params.paths.work), _existing((root / params.paths.latents).parent)
    if not problems and work.stat().st_dev != latents.stat().st_dev:
        problems.append(
            f"paths.work ({params.paths.work}) and paths.latents ({params.paths.latents}) are on different file "
            "systems, where nothing can be moved in one step; put them on the same one"
        )
    return problems


def _device_problems(params: Params) -> Iterator[str]:
    for name, device in (("train.device", params.train.device), ("encode.device", params.encode.device)):
        if device in ("auto", "cpu"):
            continue
        from ae_pipeline.codec.devices import choose_device  # torch: a second

        try:
            choose_device(device)
        except PipelineError as error:
            yield f"{name}: {error}; set it to auto"


def _kind_problems(params: Params) -> Iterator[str]:
    kind, model = params.source.options.get("kind"), params.model.name
    if kind == "table" and params.codec.family != "context":
        yield (
            f"codec.family: {params.codec.family}, but source.{params.source.name}.kind is table; set it to context, "
            "and encode.layout to stream"
        )
    elif params.codec.family == "context":
        if kind in _SUITS:
            name = params.source.name
            yield (
                f"codec.family: context takes pictures, but source.{name}.kind is {kind}; set it to autoencoder, and "
                "encode.layout to binary"
            )
    elif kind in _SUITS and MODELS[model].for_images:
        name = params.source.name
        yield f"model.name: {model} takes pictures, but source.{name}.kind is {kind}; set it to {_SUITS[kind]}"


def _gate_warnings(params: Params) -> Iterator[str]:
    if params.source.name != "mnist" and params.evaluate.gate.max_mse == MNIST_MAX_MSE:
        yield (
            f"evaluate.gate.max_mse: {MNIST_MAX_MSE} is the limit for MNIST, but source.name is {params.source.name}; "
            "set one for your data, or null: `train` says at its start what answering each value's mean, and PCA, "
            "would reach"
        )


def _split_problems(params: Params, announced: Announced) -> Iterator[str]:
    """The rows that `prepare` and `train` insist on."""
    validation = round(params.prepare.validation_fraction * announced.train_rows)
    train = announced.train_rows - validation
    if train < 2 or validation < 1:
        yield (
            f"the source has {announced.train_rows} train rows; prepare.validation_fraction of "
            f"{params.prepare.validation_fraction:g} leaves {train} to train and {validation} to validate, expected at "
            "least 2 and 1"
        )


def _disk_warnings(params: Params, root: Path, announced: Announced) -> Iterator[str]:
    """An estimate: what the codec leaves of the rows is not known yet, and small beside them."""
    missing = [name for name in _WRITTEN if not (root / getattr(params.paths, name)).exists()]
    needed = _COPIES * len(missing) * announced.spec.nbytes * (announced.train_rows + announced.test_rows)
    free = shutil.disk_usage(_existing(root)).free
    if needed > free:
        yield (
            f"{free / 1e9:.1f} GB are free at {root}, but the stages may need {needed / 1e9:.1f} GB for "
            f"{', '.join(missing)} and DVC's cache of them; free space, or put the checkout on a larger disk"
        )


def _is_fetched(params: Params, root: Path) -> bool:
    """Whether `dvc repro` leaves stage `download` alone: it ran with this code and source, and its files are there."""
    if not (root / params.paths.raw).is_dir():
        return False
    try:
        download = read_stages(root)["download"]
        ran_with, now = download["params"]["params.yaml"], look(params, root).digests
        same_code = all(now.get(name) == digest for name, digest in download["params"][CODE_FILE].items())
        name = params.source.name
        now_with = getattr(params.source, name)
        # An option that came with a later version is one that the workspace's params.yaml need not have.
        same_options = type(now_with).model_validate(ran_with[f"source.{name}"]) == now_with
    except (OSError, WorkspaceError, KeyError, TypeError, AttributeError, ValueError):
        return False
    return same_code and same_options and ran_with["source.name"] == name


def _existing(path: Path) -> Path:
    """The path, or the nearest of its parents that there is."""
    return next(place for place in (path, *path.parents) if place.exists() or place.is_symlink())
