"""Arrow types of columns with numbers, times, bytes and texts, alone or in lists, structs and tensors, as plain JSON.

    type_to_json(pa.list_(pa.float64()))    # {"list": {"name": "item", "type": "float64", "nullable": True}}

A codec keeps so the type that the user's values have (docs/store-format.md). What Arrow prints of a type cannot be read
back, and its own form of a schema is bytes.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

_PLAIN = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    *("bool_", "binary", "large_binary", "binary_view", "string", "large_string", "string_view", "null"),
    *("date32", "date64"),
)
_NAMES = {getattr(pa, name)(): name.rstrip("_") for name in _PLAIN}
_TYPES = {name: kind for kind, name in _NAMES.items()}
_LISTS = ("list", "large_list", "fixed_size_list")
_DEEPEST = 8
_TIMES = {"s": pa.time32, "ms": pa.time32, "us": pa.time64, "ns": pa.time64}
_MADE: dict[str, Callable[[Any], pa.DataType]] = {
    "timestamp": lambda inner: pa.timestamp(inner["unit"], inner.get("tz")),
    "time": lambda inner: _TIMES[inner["unit"]](inner["unit"]),
    "duration": lambda inner: pa.duration(inner["unit"]),
    "decimal128": lambda inner: pa.decimal128(int(inner["precision"]), int(inner["scale"])),
}


def type_to_json(kind: pa.DataType) -> Any:
    """A name, or an object with one key. Raises ValueError for a type of another sort."""
    if kind in _NAMES:
        return _NAMES[kind]
    if isinstance(kind, pa.FixedShapeTensorType):
        order = list(range(len(kind.shape)))
        if kind.permutation not in (None, order):
            raise ValueError(f"tensors whose dimensions are stored in the order {kind.permutation}")
        made = {"value": type_to_json(kind.value_type), "shape": list(kind.shape)}
        return {"tensor": made | ({"dim_names": list(kind.dim_names)} if kind.dim_names else {})}
    if (parameters := _parameters(kind)) is not None:
        return parameters
    if pa.types.is_struct(kind):
        return {"struct": [_field_to_json(kind.field(place)) for place in range(kind.num_fields)]}
    for name, is_one in zip(
        _LISTS, (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list), strict=True
    ):
        if is_one(kind):
            size = {"size": kind.list_size} if name == "fixed_size_list" else {}
            return {name: _field_to_json(kind.value_field) | size}
    raise ValueError(f"{kind} is no type of numbers, times, bytes or texts, nor of lists, structs or tensors of them")


def _parameters(kind: pa.DataType) -> dict[str, Any] | None:
    """What `type_to_json` says of times, decimals and dictionaries; None for other types."""
    if pa.types.is_timestamp(kind):
        return {"timestamp": {"unit": kind.unit} | ({"tz": kind.tz} if kind.tz else {})}
    if pa.types.is_time(kind):
        return {"time": {"unit": kind.unit}}
    if pa.types.is_duration(kind):
        return {"duration": {"unit": kind.unit}}
    if pa.types.is_decimal128(kind):
        return {"decimal128": {"precision": kind.precision, "scale": kind.scale}}
    if pa.types.is_dictionary(kind):
        made = {"index": type_to_json(kind.index_type), "value": type_to_json(kind.value_type)}
        return {"dictionary": made | ({"ordered": True} if kind.ordered else {})}
    return None


def type_from_json(found: Any, depth: int = 0) -> pa.DataType:
    """The type that `type_to_json` described. Raises ValueError for what it cannot have made."""
    if isinstance(found, str) and found in _TYPES:
        return _TYPES[found]
    try:
        ((name, inner),) = found.items()
        if depth < _DEEPEST:
            return _made(name, inner, depth)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, pa.ArrowException):
        pass
    raise ValueError(f"{str(found)[:80]} describes no type of values")


def _made(name: str, inner: Any, depth: int) -> pa.DataType:
    """The type of an object with one key."""
    if name in _LISTS:
        field = _field_from_json(inner, depth)
        if name == "fixed_size_list":
            return pa.list_(field, int(inner["size"]))
        return pa.list_(field) if name == "list" else pa.large_list(field)
    if name == "tensor":
        shape, names = [int(size) for size in inner["shape"]], inner.get("dim_names")
        return pa.fixed_shape_tensor(type_from_json(inner["value"], depth + 1), shape, dim_names=names)
    if name == "struct":
        return pa.struct([_field_from_json(field, depth) for field in inner])
    if name == "dictionary":
        index, value = (type_from_json(inner[key], depth + 1) for key in ("index", "value"))
        return pa.dictionary(index, value, ordered=bool(inner.get("ordered", False)))
    return _MADE[name](inner)


def _field_to_json(field: pa.Field) -> dict[str, Any]:
    return {"name": field.name, "type": type_to_json(field.type), "nullable": field.nullable}


def _field_from_json(found: Any, depth: int) -> pa.Field:
    return pa.field(str(found["name"]), type_from_json(found["type"], depth + 1), nullable=bool(found["nullable"]))
