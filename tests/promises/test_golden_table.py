"""A decoder of streams of tables that was written from docs/store-format.md alone, in plain whole numbers of Python."""

import json
import lzma
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from ae_pipeline.store.latent_store import LatentStore

GOLDEN = Path(__file__).resolve().parents[1] / "golden/table"
STORE = GOLDEN / "store"
XZ = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]
LANES = 16


def model():
    """The fields, and the columns in coding order with their layers and cells."""
    options = json.loads((STORE / "_codec/codec.json").read_text())["model"]["options"]
    fields = options["fields"]
    columns = [{"low_bits": 0, "mean": 0, "spread": 1, **column} for column in options["columns"]]
    inputs, sizes = 0, []
    for column in columns:
        field = fields[column["field"]]
        span, cells = column.get("span"), column.get("cells")
        symbols = field["largest"] + 1 if field["sort"] == "category" else cells + 1 if cells else 2 * span + 2
        outputs, own = symbols + (span is not None), {}
        if column.get("hidden"):
            first, second = column["hidden"]
            own = {"first": (inputs, first), "out": (second, outputs), "second": (first, second)}
        else:
            own = {"out": (0, outputs)}
        if column.get("linear"):
            own["linear"] = (inputs, 1)
        sizes.append(dict(sorted(own.items())))
        inputs += min(field["largest"] + 1, 32) if field["sort"] == "category" else 1
    plain = lzma.decompress(
        load_file(STORE / "_codec/weights.safetensors")["packed"].tobytes(), lzma.FORMAT_RAW, None, XZ
    )
    flat = [(number, name, size) for number, own in enumerate(sizes) for name, size in own.items()]
    place = 0

    def take(kind, count):
        nonlocal place
        found = np.frombuffer(plain, kind, count, place).tolist()
        place += count * np.dtype(kind).itemsize
        return found

    layers = [{} for _ in columns]
    weights = [take("i1", given * made) for _, _, (given, made) in flat]
    scales = [take("<u2", made) for _, _, (_, made) in flat]
    biases = [take("<i2", made) for _, _, (_, made) in flat]
    for (number, name, (given, made)), weight, scale, bias in zip(flat, weights, scales, biases, strict=True):
        layers[number][name] = ([weight[row * given : (row + 1) * given] for row in range(made)], scale, bias)
    for column, own in zip(columns, layers, strict=True):
        column["layers"] = own
        ends = np.cumsum(take("<i4", 2 * column.get("cells", 0))).tolist()
        column["ends"] = list(zip(ends[::2], ends[1::2], strict=True))
    assert place == len(plain)
    return [{"cell": 1, **field} for field in fields], columns


def layer(own, values):
    rows, scale, bias = own
    sums = (sum(w * v for w, v in zip(row, values, strict=True)) for row in rows)
    return [(total * s >> 12) + 16 * b for total, s, b in zip(sums, scale, bias, strict=True)]


def network(column, inputs):
    """Logits and the prediction."""
    own, values = column["layers"], []
    if column.get("hidden"):
        values = inputs
        for name in ("first", "second"):
            values = [min(max(value, 0), 1 << 20) for value in layer(own[name], values)]
    found, prediction = layer(own["out"], values), None
    if "span" in column:
        prediction = found.pop(0) + (layer(own["linear"], inputs)[0] if column.get("linear") else 0)
    return [value >> 8 for value in found], prediction


def edges(logits):
    top, sums, total = max(logits), [], 0
    for logit in logits:
        d = 255 - min(top - logit, 255)
        total += round(4096 * 2 ** (d % 16 / 16)) << d // 16
        sums.append(total)
    return [0] + [s * (32768 - len(logits)) // total + i + 1 for i, s in enumerate(sums)]


class Coder:
    """The entropy coder, of at most 16 lanes: there is no tail to change to."""

    def __init__(self, data):
        lanes, _ = struct.unpack_from("<HH", data)
        assert lanes <= LANES
        marks = np.unpackbits(np.frombuffer(data, np.uint8, -(-lanes // 8), 4))[:lanes]
        place = 4 + -(-lanes // 8)
        fourth = place + 3 * lanes
        self.states = []
        for lane, mark in enumerate(marks.tolist()):
            state = int.from_bytes(data[place + 3 * lane : place + 3 * lane + 3], "little")
            if mark:
                state |= data[fourth] << 24
                fourth += 1
            self.states.append(state)
        self.words = list(struct.unpack(f"<{(len(data) - fourth) // 2}H", data[fourth:]))

    def call(self, bounds):
        found, lanes = [], len(self.states)
        for start in range(0, len(bounds), lanes):
            group = bounds[start : start + lanes]
            for lane, ends in enumerate(group):
                slot = self.states[lane] % 32768
                symbol = max(i for i in range(len(ends) - 1) if ends[i] <= slot)
                self.states[lane] = (ends[symbol + 1] - ends[symbol]) * (self.states[lane] >> 15) + slot - ends[symbol]
                found.append(symbol)
            for lane in range(len(group)):
                if self.states[lane] < 65536:
                    self.states[lane] = self.states[lane] << 16 | self.words.pop(0)
        return found

    def bits(self, rows, count):
        values = [0] * rows
        for done in range(0, count, 4):
            width = min(4, count - done)
            ends = [i << 15 - width for i in range((1 << width) + 1)]
            values = [v | s << done for v, s in zip(values, self.call([ends] * rows), strict=True)]
        return values


def seen_later(value, field, column, is_there):
    if field["sort"] == "category":
        return [4096 * (value == k) for k in range(min(field["largest"] + 1, 32))]
    away = (value - column["mean"]) * 4096 // column["spread"] if is_there else 0
    return [min(max(away, -20480), 20480)]


def decoded(payload, rows):
    fields, columns = model()
    coder, inputs = Coder(payload), [[] for _ in range(rows)]
    latents = [[0] * len(fields) for _ in range(rows)]
    for column in columns:
        number = column["field"]
        field, cell, largest = fields[number], fields[number]["cell"], fields[number]["largest"]
        present = field.get("present")
        there = [row for row in range(rows) if present is None or latents[row][present] == 0]
        seen = [network(column, inputs[row]) for row in there]
        symbols = coder.call([edges(logits) for logits, _ in seen])
        if field["sort"] == "category":
            own = []
            for row, symbol in zip(there, symbols, strict=True):
                latents[row][number] = symbol
        elif column["ends"]:
            own = [row for row, symbol in zip(there, symbols, strict=True) if symbol == len(column["ends"])]
            for row, symbol in zip(there, symbols, strict=True):
                if row not in own:
                    latents[row][number] = sum(column["ends"][symbol])
        else:
            span, low = column["span"], column["low_bits"]
            near = [place for place, symbol in enumerate(symbols) if symbol <= 2 * span]
            own = [there[place] for place, symbol in enumerate(symbols) if symbol == 2 * span + 1]
            for place, rest in zip(near, coder.bits(len(near), low), strict=True):
                twice = column["mean"] + (seen[place][1] * column["spread"] >> 12)
                begin = twice - (cell << low) + 2 >> 1
                away = (symbols[place] - span << low) + rest
                latents[there[place]][number] = 2 * (begin + away * cell) + cell - 1
        count = max(1, (3 * largest // cell).bit_length())
        for row, place in zip(own, coder.bits(len(own), count), strict=True):
            latents[row][number] = 2 * (place * cell - largest) + cell - 1
        for row in range(rows):
            inputs[row] += seen_later(latents[row][number], field, column, row in there)
    assert coder.words == []
    assert set(coder.states) == {65536}
    return latents


def test_the_document_is_enough_to_decode_a_table():
    expected, done = json.loads((GOLDEN / "expected.json").read_text()), 0
    for path in sorted(STORE.glob("part-*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.metadata.num_row_groups):
            column = file.read_row_group(group, columns=["latent"]).column(0)
            stream, rows = column[0].as_py(), len(column)
            assert stream[0] == 2
            found = decoded(stream[9:], rows)
            assert sha256(np.array(found, "<i4").tobytes()).digest()[:8] == stream[1:9]
            assert found == expected[done : done + rows]
            done += rows
    assert done == len(expected) == 90


def test_the_store_still_opens_with_the_rows_that_were_put_in():
    store = LatentStore.open(STORE)
    rows = [rows for part in store.manifest.parts for rows in store.read_part(part, 7)]
    latents = np.concatenate([block.latents for block in rows]).view("<i4")
    assert latents.tolist() == json.loads((GOLDEN / "expected.json").read_text())
    assert store.codec_header().max_error == pytest.approx(0.02, rel=0.1)
