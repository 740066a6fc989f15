"""The little of Thrift's compact protocol that tells how large a Parquet file's parts are, before Arrow reads them.

    fields, end = read_struct(data, position)      # {field number: value}; lists and structs nest

Whatever is not well-formed raises ValueError; nothing is allocated beyond the bytes that are there.
"""

from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_VARINTS = (4, 5, 6)
# Thrift's own readers have this limit.
_DEEPEST = 64


def read_struct(data: memoryview, position: int) -> tuple[dict[int, Any], int]:
    """The struct that begins at `position`, and where it ends. Raises ValueError."""
    reader = _Reader(data, position)
    return reader.struct(0), reader.position


class _Reader:
    def __init__(self, data: memoryview, position: int):
        self._data, self.position = data, position

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("structs are nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            if number in fields:
                raise ValueError(f"field {number} is there twice")
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _VARINTS:
            return self._zigzag()
        if kind in (_TRUE, _FALSE, _BYTE):  # booleans: in a list, each has a byte
            return self._byte()
        if kind in (_DOUBLE, _BINARY):
            self._skip(8 if kind == _DOUBLE else self._varint())
            return None
        if kind in (_LIST, _SET):
            return self._items(depth + 1)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"values of type {kind} do not occur in Parquet")

    def _items(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise ValueError("lists are nested too deep")
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        if count > len(self._data) - self.position:  # every item has at least a byte
            raise ValueError("a list is longer than the file")
        return [self._value(kind, depth) for _ in range(count)]

    def _byte(self) -> int:
        position = self.position
        if position >= len(self._data):
            raise ValueError("it ends in the middle")
        self.position = position + 1
        return self._data[position]

    def _skip(self, size: int) -> None:
        if size > len(self._data) - self.position:
            raise ValueError("it ends in the middle")
        self.position += size

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("an integer has more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
