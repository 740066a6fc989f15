"""The little of Thrift's compact protocol that tells how large a Parquet file's parts are, before Arrow reads them.

    fields, end = read_struct(data, position)      # {field number: value}; lists and structs nest

Whatever is not well-formed raises ValueError; nothing is allocated beyond the bytes that are there.
"""

from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_VARINTS = (4, 5, 6)
# Thrift's own readers have this limit.
_DEEPEST = 64


def read_struct(data: memoryview, position: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The struct that begins at `position`, and where it ends. Raises ValueError."""
    if depth > _DEEPEST:
        raise ValueError("structs are nested too deep")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head, position = _byte(data, position)
        if head == 0:
            return fields, position
        if head >> 4:
            number += head >> 4
        else:
            number, position = _zigzag(data, position)
        if number in fields:
            raise ValueError(f"field {number} is there twice")
        kind = head & 15
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], position = _value(data, position, kind, depth)


def _value(data: memoryview, position: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _VARINTS:
        return _zigzag(data, position)
    if kind in (_TRUE, _FALSE, _BYTE):  # booleans: in a list, each has a byte
        return _byte(data, position)
    if kind == _DOUBLE:
        return None, _skip(data, position, 8)
    if kind == _BINARY:
        size, position = _varint(data, position)
        return None, _skip(data, position, size)
    if kind in (_LIST, _SET):
        return _items(data, position, depth + 1)
    if kind == _STRUCT:
        return read_struct(data, position, depth + 1)
    raise ValueError(f"values of type {kind} do not occur in Parquet")


def _items(data: memoryview, position: int, depth: int) -> tuple[list[Any], int]:
    if depth > _DEEPEST:
        raise ValueError("lists are nested too deep")
    head, position = _byte(data, position)
    count, kind = head >> 4, head & 15
    if count == 15:
        count, position = _varint(data, position)
    if count > len(data) - position:  # every item has at least a byte
        raise ValueError("a list is longer than the file")
    items = []
    for _ in range(count):
        item, position = _value(data, position, kind, depth)
        items.append(item)
    return items, position


def _byte(data: memoryview, position: int) -> tuple[int, int]:
    if position >= len(data):
        raise ValueError("it ends in the middle")
    return data[position], position + 1


def _skip(data: memoryview, position: int, size: int) -> int:
    if size > len(data) - position:
        raise ValueError("it ends in the middle")
    return position + size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte, position = _byte(data, position)
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("an integer has more than 64 bits")


def _zigzag(data: memoryview, position: int) -> tuple[int, int]:
    value, position = _varint(data, position)
    return (value >> 1) ^ -(value & 1), position
