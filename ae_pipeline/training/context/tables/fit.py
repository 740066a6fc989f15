"""Trains the networks of a codec of tables, a field after the other, on what is decoded of the fields before it.

The loss is the bits that the entropy coder will take. For each field some sizes of its network are tried for a few
steps; the one that takes the fewest bits in validation rows, its own included, is trained to the end: the first part of
its steps in floats, the rest in what will be whole numbers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ae_pipeline.codec.tables.fields import FieldCoder, Symbols
from ae_pipeline.codec.tables.networks import UNIT, Parts, features, layer_sizes
from ae_pipeline.codec.tables.options import ColumnOptions, TableOptions
from ae_pipeline.data.table_columns.fields import FieldOptions
from ae_pipeline.errors import TrainingError
from ae_pipeline.params import TrainParams
from ae_pipeline.training.context.tables.nets import ColumnNet
from ae_pipeline.training.context.tables.plan import Planned, Way, plan
from ae_pipeline.training.loop import Epoch, seeded

_SIZES: tuple[tuple[int, int] | None, ...] = (None, (4, 4), (12, 8), (32, 20))
_WEIGHT_BITS = 4.5
"""What a weight takes in the codec; a scale and a bias take 24 more."""
_CELL_BITS = 32
_TRIED_SHARE = 0.3
# A network is not tried whose weights would take more than this share of what it could save at all.
_WORTH = 0.5
_WARM_UP_STEPS, _ROUNDED_FROM, _WEIGHT_DECAY, _LARGEST_GRADIENT = 50, 0.6, 1e-3, 1.0
_FARTHEST_WIDTH, _LEAST_CHANCE, _NEAR = 5.0, 1e-4, 0.02
_MOST_VALIDATED = 20_000
_RIDGE = 1e-6


@dataclass
class _Rows:
    """Some rows: their whole numbers k, and what is known of them by now, the inputs of the next network."""

    places: np.ndarray
    """int64 (rows, fields)."""
    inputs: np.ndarray
    """float64 (rows, inputs)."""


def fit_table(
    train: np.ndarray,
    validation: np.ndarray,
    fields: Sequence[FieldOptions],
    params: TrainParams,
    on_column: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[TableOptions, list[Parts], list[Epoch]]:
    """What codec.json says, the numbers of each field's model, and how it went.

    That is an epoch for each field; its losses are the bits a row of all fields up to it.

    `train` and `validation` are k, int64 (rows, fields); epochs, batch_size, learning_rate and seed are what counts of
    `params`. Raises TrainingError where a loss is not finite.
    """
    columns: list[ColumnOptions] = []
    parts: list[Parts] = []
    history: list[Epoch] = []
    validation = validation[:: -(-len(validation) // _MOST_VALIDATED)]
    rows = [_Rows(places, np.empty((len(places), 0))) for places in (train, validation)]
    spent = np.zeros(2)
    with seeded(params.seed, torch.device("cpu"), compiled=False):
        for planned in plan(train, fields):
            column, found = _fit_field(planned, fields, rows, params)
            coder = FieldCoder(column, fields[column.field], found)
            spent += [_take_in(coder, fields, some) for some in rows]
            columns.append(column)
            parts.append(found)
            history.append(Epoch(len(columns), float(spent[0]), float(spent[1]), params.learning_rate))
            on_column(history[-1])
    return TableOptions(fields=tuple(fields), columns=tuple(columns)), parts, history


def _fit_field(
    planned: Planned, fields: Sequence[FieldOptions], rows: list[_Rows], params: TrainParams
) -> tuple[ColumnOptions, Parts]:
    """The best network for the next field."""
    train, validation = rows
    field = fields[planned.ways[0].column.field]
    steps = max(1, params.epochs * math.ceil(len(train.places) / params.batch_size))
    tried: dict[ColumnOptions, float] = {}

    def tried_bits(way: Way) -> float:
        """Bits a row in validation after some steps, with those of the network."""
        if way.column not in tried:
            found = _trained(way, field, train, params, max(1, int(_TRIED_SHARE * steps)))
            own = _own_bits(way.column, fields, train)
            tried[way.column] = _bits(FieldCoder(way.column, field, found), fields, validation) + own
        return tried[way.column]

    has_inputs = train.inputs.shape[1] > 0
    way = planned.ways[0]
    if len(planned.ways) > 1:
        way = min((_sized(way, _SIZES[2] if has_inputs else None) for way in planned.ways), key=tried_bits)
    sizes = [size for size in _SIZES if size is None or has_inputs]
    limit = _WORTH * (planned.bits + 0.2)
    sized = [_sized(way, size) for size in sizes]
    worth = [one for one in sized if not one.column.hidden or _own_bits(one.column, fields, train) < limit]
    best = min(worth, key=tried_bits)
    return best.column, _trained(best, field, train, params, steps)


def _sized(way: Way, size: tuple[int, int] | None) -> Way:
    return Way(way.column.model_copy(update={"hidden": size}), way.ends)


def _own_bits(column: ColumnOptions, fields: Sequence[FieldOptions], rows: _Rows) -> float:
    """Bits of a network, for each row."""
    sizes = _sizes(column, fields[column.field], rows.inputs.shape[1]).values()
    cells = _CELL_BITS * (column.cells or 0)
    return (cells + sum(_WEIGHT_BITS * given * made + 24 * made for given, made in sizes)) / len(rows.places)


def _sizes(column: ColumnOptions, field: FieldOptions, inputs: int) -> dict[str, tuple[int, int]]:
    alone = column.model_copy(update={"field": 0})
    sizes = layer_sizes(TableOptions.model_construct(fields=(field,), columns=(alone,)))[0]
    return {name: (inputs if name in ("first", "linear") else given, made) for name, (given, made) in sizes.items()}


def _there(fields: Sequence[FieldOptions], column: ColumnOptions, places: np.ndarray) -> np.ndarray | None:
    present = fields[column.field].present
    return None if present is None else places[:, present] == 0


def _trained(way: Way, field: FieldOptions, rows: _Rows, params: TrainParams, steps: int) -> Parts:
    """The numbers of a field's model after so many steps."""
    column = way.column
    coarse = field.cell << column.low_bits
    net = ColumnNet(_sizes(column, field, rows.inputs.shape[1]), column, column.spread / 2 / coarse)
    places = rows.places[:, column.field]
    there = np.arange(len(places)) if field.present is None else np.flatnonzero(rows.places[:, field.present] == 0)
    if not len(there):
        return Parts(net.integers(), way.ends)
    aims, inputs = _aims(way, field, places), torch.from_numpy(rows.inputs / UNIT).float()
    if column.span is None:
        net.begin_with(torch.bincount(aims[there], minlength=net.symbols))
        if column.hidden is None:
            return Parts(net.integers(), way.ends)
    if column.linear:
        net.begin_with_line(*_line(inputs[there], aims[there] / (column.spread / 2 / coarse)))
    optimizer = torch.optim.AdamW(net.parameters(), params.learning_rate, weight_decay=_WEIGHT_DECAY)
    batch = min(params.batch_size, len(there))
    for step in range(steps):
        if step == int(_ROUNDED_FROM * steps):
            net.begin_rounding()
        for group in optimizer.param_groups:
            rising = min(1.0, (step + 1) / _WARM_UP_STEPS)
            group["lr"] = params.learning_rate * rising * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = torch.from_numpy(there)[torch.randint(len(there), (batch,))]
        loss = _loss(net, column, inputs[chosen], aims[chosen], column.spread / 2 / coarse)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(float(loss.detach())):
        raise TrainingError(f"the loss of field {column.field} is not finite; lower train.learning_rate")
    return Parts(net.integers(), way.ends)


def _line(inputs: Tensor, aims: Tensor) -> tuple[Tensor, float]:
    """Weights (inputs,) and bias of linear regression."""
    known = torch.cat([inputs.double(), torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
    products = known.T @ known
    products += _RIDGE * len(known) * torch.eye(len(products), dtype=torch.float64)
    found = torch.linalg.solve(products, known.T @ aims.double())
    return found[:-1].float(), float(found[-1])


def _aims(way: Way, field: FieldOptions, places: np.ndarray) -> Tensor:
    """(rows,) The symbol of each row, or how far its number is from the mean, in coarse cells."""
    if field.is_category:
        return torch.from_numpy(places)
    column = way.column
    if way.ends is not None:
        found = np.minimum(np.searchsorted(way.ends[:, 1], places), len(way.ends) - 1)
        inside = (way.ends[found, 0] <= places) & (places <= way.ends[found, 1])
        return torch.from_numpy(np.where(inside, found, len(way.ends)))
    return torch.from_numpy((places - column.mean / 2) / (field.cell << column.low_bits)).float()


def _loss(net: ColumnNet, column: ColumnOptions, inputs: Tensor, aims: Tensor, spread: float) -> Tensor:
    """Nats a row: of the symbols, and, for what is predicted, of the number around the prediction."""
    octaves, prediction = net(inputs)
    chances = functional.log_softmax(octaves * math.log(2), 1)
    if prediction is None:
        return functional.nll_loss(chances, aims)
    assert column.span is not None
    away = aims - prediction * spread
    near = torch.round(away.detach())
    symbols = torch.where(near.abs() > column.span, 2 * column.span + 1, near + column.span).long()
    width = torch.exp(-net.log_width.clamp(-_FARTHEST_WIDTH, _FARTHEST_WIDTH))
    inside = torch.sigmoid((away + 0.5) * width) - torch.sigmoid((away - 0.5) * width)
    taught = _NEAR * away.abs().mean() - torch.log(inside.clamp_min(_LEAST_CHANCE)).mean()
    return functional.nll_loss(chances, symbols) + taught


def _bits(coder: FieldCoder, fields: Sequence[FieldOptions], rows: _Rows) -> float:
    """Bits a row that the coder takes for its field."""
    there = _there(fields, coder.column, rows.places)
    inputs, places = rows.inputs, rows.places[:, coder.column.field]
    if there is not None:
        inputs, places = inputs[there], places[there]
    if not len(places):
        return 0.0
    found = Symbols()
    coder.encode(inputs, coder.quantised(inputs, places), found)
    return sum(float((15 - np.log2(widths)).sum()) for widths in found.widths) / len(rows.places)


def _take_in(coder: FieldCoder, fields: Sequence[FieldOptions], rows: _Rows) -> float:
    """Add what later networks see of a field; the bits that it took."""
    bits = _bits(coder, fields, rows)
    column, field = coder.column, coder.options
    there = _there(fields, column, rows.places)
    latents = coder.quantised(rows.inputs, rows.places[:, column.field])
    rows.inputs = np.concatenate([rows.inputs, features(latents, column, field, there)], 1)
    return bits
