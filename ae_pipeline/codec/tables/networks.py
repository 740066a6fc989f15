"""The networks of a codec of tables: one for each field, over the fields that are coded before it.

Whole numbers alone: inputs, hidden values and predictions are in units of 2 ** -12, weights are whole numbers from -15
to 15 times a scale for each output. Their products are far below 2 ** 53, so that float64 has them exactly: every
machine makes the same of them, whatever the order in which it adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ae_pipeline.codec.tables.options import ColumnOptions, TableOptions
from ae_pipeline.data.table_columns.fields import FieldOptions

UNIT_BITS = 12
UNIT = 1 << UNIT_BITS
BIAS_BITS = 8
"""Biases are in units of 2 ** -8."""
LOGIT_SHIFT = 8
"""Outputs are in units of 2 ** -12; so many bits less, they are sixteenths of an octave."""
FARTHEST = 5
"""Inputs of numbers end at so many standard deviations from the mean."""
MOST_ONE_HOT = 32
"""A category is so many inputs at most: its first values have one each."""
MOST_WEIGHT, MOST_SCALE = 15, (1 << 16) - 1
_MOST_HIDDEN = 1 << 20


@dataclass(frozen=True)
class Layer:
    """outputs = (weights @ inputs * scale >> 12) + bias."""

    weights: np.ndarray
    """int8 (outputs, inputs), from -15 to 15."""
    scale: np.ndarray
    """uint16 (outputs,), in units of 2 ** -12."""
    bias: np.ndarray
    """int16 (outputs,), in units of 2 ** -8."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """float64 (n, inputs) of whole numbers to int64 (n, outputs)."""
        sums = (inputs @ self.weights.T.astype(np.float64)).astype(np.int64)
        shifted: np.ndarray = (sums * self.scale.astype(np.int64)) >> UNIT_BITS
        return shifted + (self.bias.astype(np.int64) << (UNIT_BITS - BIAS_BITS))


@dataclass(frozen=True)
class Parts:
    """All numbers of one field's model."""

    layers: dict[str, Layer]
    ends: np.ndarray | None = None
    """int64 (cells, 2): first and last k of each cell of its codebook, rising."""


LayerSizes = dict[str, tuple[int, int]]
"""Inputs and outputs of each layer, by its name."""


def inputs_of(field: FieldOptions) -> int:
    """How many inputs of later networks a field is."""
    return min(field.largest + 1, MOST_ONE_HOT) if field.is_category else 1


def symbols_of(column: ColumnOptions, field: FieldOptions) -> int:
    """How many symbols a field is coded with, the one for what is coded by itself among them."""
    if field.is_category:
        return field.largest + 1
    return column.cells + 1 if column.cells is not None else 2 * (column.span or 0) + 2


def layer_sizes(options: TableOptions) -> list[LayerSizes]:
    """The layers of each column's network, in coding order."""
    found, inputs = [], 0
    for column in options.columns:
        field = options.fields[column.field]
        symbols = symbols_of(column, field)
        predicts = int(column.span is not None)
        if column.hidden is None:
            sizes = {"out": (0, symbols + predicts)}
        else:
            first, second = column.hidden
            sizes = {"first": (inputs, first), "second": (first, second), "out": (second, symbols + predicts)}
        if column.linear:
            sizes["linear"] = (inputs, 1)
        found.append(sizes)
        inputs += inputs_of(field)
    return found


class ColumnNetwork:
    """The network of one field."""

    def __init__(self, column: ColumnOptions, layers: dict[str, Layer]):
        self._layers, self._predicts = layers, column.span is not None

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """float64 (n, inputs) of whole numbers to logits, int64 (n, symbols), and the prediction, int64 (n,).

        Logits are in sixteenths of an octave, predictions in 2 ** -12 of the column's spread, from its mean.
        """
        hidden = inputs if "first" in self._layers else np.empty((len(inputs), 0))
        for name in ("first", "second"):
            if name in self._layers:
                hidden = np.clip(self._layers[name](hidden), 0, _MOST_HIDDEN).astype(np.float64)
        found = self._layers["out"](hidden)
        if not self._predicts:
            return found >> LOGIT_SHIFT, None
        prediction = found[:, 0]
        if "linear" in self._layers:
            prediction = prediction + self._layers["linear"](inputs)[:, 0]
        return found[:, 1:] >> LOGIT_SHIFT, prediction


def features(latents: np.ndarray, column: ColumnOptions, field: FieldOptions, there: np.ndarray | None) -> np.ndarray:
    """float64 (n, inputs_of) of whole numbers: what later networks see of a field's latents, int64 (n,).

    `there` (n,) says in which rows the field is; None: in all.
    """
    if field.is_category:
        size = inputs_of(field)
        return (latents[:, np.newaxis] == np.arange(size)).astype(np.float64) * UNIT
    away = np.clip(((latents - column.mean) << UNIT_BITS) // column.spread, -FARTHEST * UNIT, FARTHEST * UNIT)
    if there is not None:
        away = np.where(there, away, 0)
    return away.astype(np.float64)[:, np.newaxis]


def check_parts(options: TableOptions, parts: Sequence[Parts]) -> None:
    """Raise ValueError for weights and codebooks that do not belong to these options."""
    for sizes, column, found in zip(layer_sizes(options), options.columns, parts, strict=True):
        if {name: layer.weights.shape[::-1] for name, layer in found.layers.items()} != sizes:
            raise ValueError("layers of other sizes than codec.json says")
        if any(np.abs(layer.weights.astype(np.int16)).max(initial=0) > MOST_WEIGHT for layer in found.layers.values()):
            raise ValueError(f"a weight beyond {MOST_WEIGHT}")
        field = options.fields[column.field]
        if found.ends is None:
            continue
        first, last = found.ends.T
        if (first[1:] <= last[:-1]).any() or ((last - first < 0) | (last - first >= field.cell)).any():
            raise ValueError(f"cells of field {column.field} that do not rise, or are wider than its bound")
        if first[0] < -field.largest or last[-1] > 2 * field.largest:
            raise ValueError(f"a cell of field {column.field} that is beyond its numbers")
