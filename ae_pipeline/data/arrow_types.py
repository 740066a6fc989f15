"""Arrow types of columns with numbers, bytes and texts, alone or in lists, structs and tensors, as plain JSON and back.

    type_to_json(pa.list_(pa.float64()))    # {"list": {"name": "item", "type": "float64", "nullable": True}}

A codec keeps so the type that the user's values have (docs/store-format.md). What Arrow prints of a type cannot be read
back, and its own form of a schema is bytes.
"""

from typing import Any

import pyarrow as pa

_PLAIN = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    *("bool_", "binary", "large_binary", "binary_view", "string", "large_string", "string_view", "null"),
)
_NAMES = {getattr(pa, name)(): name.rstrip("_") for name in _PLAIN}
_TYPES = {name: kind for kind, name in _NAMES.items()}
_LISTS = ("list", "large_list", "fixed_size_list")
_DEEPEST = 8


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
    if pa.types.is_struct(kind):
        return {"struct": [_field_to_json(kind.field(place)) for place in range(kind.num_fields)]}
    for name, is_one in zip(
        _LISTS, (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list), strict=True
    ):
        if is_one(kind):
            size = {"size": kind.list_size} if name == "fixed_size_list" else {}
            return {name: _field_to_json(kind.value_field) | size}
    raise ValueError(f"{kind} is no type of numbers, bytes or texts, nor of lists, structs or tensors of them")


def type_from_json(found: Any, depth: int = 0) -> pa.DataType:
    """The type that `type_to_json` described. Raises ValueError for what it cannot have made."""
    if isinstance(found, str) and found in _TYPES:
        return _TYPES[found]
    try:
        ((name, inner),) = found.items()
        if depth < _DEEPEST and name == "tensor":
            shape, names = [int(size) for size in inner["shape"]], inner.get("dim_names")
            return pa.fixed_shape_tensor(type_from_json(inner["value"], depth + 1), shape, dim_names=names)
        if depth < _DEEPEST and name == "struct":
            return pa.struct([_field_from_json(field, depth) for field in inner])
        if depth < _DEEPEST and name in _LISTS:
            field = _field_from_json(inner, depth)
            if name == "fixed_size_list":
                return pa.list_(field, int(inner["size"]))
            return pa.list_(field) if name == "list" else pa.large_list(field)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, pa.ArrowException):
        pass
    raise ValueError(f"{str(found)[:80]} describes no type of values")


def _field_to_json(field: pa.Field) -> dict[str, Any]:
    return {"name": field.name, "type": type_to_json(field.type), "nullable": field.nullable}


def _field_from_json(found: Any, depth: int) -> pa.Field:
    return pa.field(str(found["name"]), type_from_json(found["type"], depth + 1), nullable=bool(found["nullable"]))
