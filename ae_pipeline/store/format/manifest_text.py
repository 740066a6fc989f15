"""A manifest's text, its parts a thousand at a time: a store may have a hundred thousand of them.

    head, pieces = take_apart(data)              # JSON without the parts; JSON lists of some parts each
    b"".join(put_together(values, parts))        # the same bytes again

Trees of dicts of all parts would take four times the memory of the parts themselves, and Python's JSON three times the
time. What comes out is what `files.write_json` and `files.sha256_json` make of the whole.
"""

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from json.encoder import encode_basestring as quoted
from typing import Any

from pydantic_core import to_json

from ae_pipeline.files import canonical_json, json_bytes

_PARTS_AT_A_TIME = 1000
_BYTES_AT_A_TIME = 1 << 20
_BEGIN, _BETWEEN, _END = b'\n  "parts": [\n', b"\n    },\n    {\n", b"\n  ],\n"


def take_apart(data: bytes) -> tuple[bytes, Iterator[bytes]]:
    """The text with an empty list of parts, and the parts. Raises ValueError unless it is spelt as it is written here.

    No string in JSON has a line break in it, so what is between the lines is what it looks like.
    """
    start = data.index(_BEGIN) + len(_BEGIN)
    end = data.rindex(_END, start)  # no other list comes after it
    return data[:start] + data[end:], _pieces(data, start, end)


def _pieces(data: bytes, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        cut = data.find(_BETWEEN, start + _BYTES_AT_A_TIME, end)
        stop = end if cut < 0 else cut + _BETWEEN.index(b",")
        yield b"[" + data[start:stop] + b"]"
        start = stop + 1


def text_of_parts(data: bytes) -> memoryview | bytes:
    """The parts as they stand in a manifest's file; nothing if it is not spelt as it is written here."""
    with suppress(ValueError):
        head, _ = take_apart(data)
        if json.loads(head).get("parts") == []:  # else it was not just all of them that were taken out
            start = data.index(_BEGIN) + len(_BEGIN)
            return memoryview(data)[start : start + len(data) - len(head)]
    return b""


def put_together(
    values: dict[str, Any], parts: Sequence[Any], text: memoryview | bytes = b""
) -> Iterator[memoryview | bytes]:
    """A manifest's file: `values` are all others, with no parts, the digest last; `text` is of the first parts."""
    before, after = json_bytes(values).split(b'\n  "parts": [],\n', 1)
    yield before + _BEGIN
    yield text
    for number, some in enumerate(_some(parts)):
        yield b",\n" * bool(number or text) + b"  " + to_json(some, indent=2)[2:-2].replace(b"\n", b"\n  ")
    yield _END + after


def digest_of(values: dict[str, Any], parts: Iterable[Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of a manifest: `values` are all others, with no parts yet."""
    before, after = canonical_json({**values, "parts": []}).split(b'"parts":[]', 1)  # keys are sorted: the first one
    whole = hashlib.sha256(before + b'"parts":[')
    for number, some in enumerate(_some(parts)):
        whole.update(b"," * bool(number) + ",".join(map(_canonical, some)).encode())
    whole.update(b"]" + after)
    return whole.hexdigest()


def _canonical(part: Any) -> str:
    """`files.canonical_json` of a PartEntry whose fields were checked: only names and ids may have to be quoted."""
    low = quoted(part.id_min) if isinstance(part.id_min, str) else part.id_min
    high = quoted(part.id_max) if isinstance(part.id_max, str) else part.id_max
    pieces = "null" if part.pieces is None else '["' + '","'.join(part.pieces) + '"]' if part.pieces else "[]"
    shard = _canonical_joined(part.shard) if isinstance(part.shard, list) else _canonical_shard(part.shard)
    return (
        f'{{"bytes":{part.bytes},"id_max":{high},"id_min":{low},"job":"{part.job}","name":"{part.name}",'
        f'"pieces":{pieces},"rows":{part.rows},"sha256":"{part.sha256}","shard":{shard}}}'
    )


def _canonical_shard(shard: Any) -> str:
    groups = ",".join(map(str, shard.row_groups))
    return f'{{"digest":"{shard.digest}","file":{quoted(shard.file)},"row_groups":[{groups}]}}'


def _canonical_joined(entries: list[Any]) -> str:
    of_each = (
        f'{{"name":"{entry.name}","rows":{entry.rows},"shard":{_canonical_shard(entry.shard)}}}' for entry in entries
    )
    return f"[{','.join(of_each)}]"


def _some(parts: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(parts)
    while some := list(islice(left, _PARTS_AT_A_TIME)):
        yield some


@contextmanager
def no_garbage() -> Iterator[None]:
    """In the block nothing is looked for that could be freed: of so many new objects, each of them several times."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():
                gc.freeze()  # and thawed, it all counts as old: else it would be looked through at once
                gc.unfreeze()
            gc.enable()
