"""Makes the folder of a codec of tables from samples: train a network for each field, round, save."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.codec.tables.saving import save_table_codec
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.table_columns.fields import FieldOptions, places_of
from ae_pipeline.data.table_columns.rows import fields_of
from ae_pipeline.data.table_columns.state import Column
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.params import Params
from ae_pipeline.params.base import problems
from ae_pipeline.training.context.origin import origin
from ae_pipeline.training.context.tables.fit import fit_table
from ae_pipeline.training.loop import Epoch, Fitted
from ae_pipeline.training.steps.precision import Precision

TABLE = "table"
"""The kind whose rows these codecs are for."""


def is_table(kind: KindEntry | None) -> bool:
    """Whether rows of this kind are those of a table."""
    return kind is not None and kind.name == TABLE


def build_table_codec(
    train: SampleSet,
    validation: SampleSet,
    params: Params,
    folder: Path,
    git: dict[str, Any],
    on_epoch: Callable[[Epoch], None],
) -> tuple[CodecHeader, Fitted]:
    """Do what `build_codec` does, for rows of tables and codec.family: context."""
    if params.codec.max_error:
        raise ConfigError(
            f"codec.max_error: {params.codec.max_error} is for pictures; the bounds of a table's columns are in "
            "source.files.settings (max_error, shares, absolute): set them there, and this to 0"
        )
    fields = _fields(train)
    places, held_out = (_places(samples, fields) for samples in (train, validation))
    options, parts, history = fit_table(places, held_out, fields, params.train, on_epoch)
    fitted = Fitted(history, len(history), stopped_early=False, precision=Precision(autocast=False))
    header = save_table_codec(
        folder,
        options,
        parts,
        kind=train.kind,
        provenance=origin(train, params, git, history, epochs=params.train.epochs, threads=torch.get_num_threads()),
    )
    return header, fitted


def _fields(train: SampleSet) -> list[FieldOptions]:
    assert train.kind is not None
    try:
        return fields_of(TypeAdapter(tuple[Column, ...]).validate_python(train.kind.state.get("columns")))
    except ValidationError as error:
        what = f"has a state that the kind `{TABLE}` cannot have made: {problems(error)[0]}"
        raise DataError(what, place="the train split", advice="run `dvc repro --force download`") from None


def _places(samples: SampleSet, fields: list[FieldOptions]) -> np.ndarray:
    """int64 (rows, fields)."""
    return places_of(samples.load().pixels, fields)
