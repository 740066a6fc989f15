"""A decoder of streams that was written from docs/store-format.md alone, in plain steps: the document is enough."""

import json
import lzma
import struct
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

STORE = Path(__file__).resolve().parents[1] / "golden/store-v2-context"
BLOCK_PLACES = ((0, -1), (-1, 2), (-1, -2), (-2, 2), (-2, -2), (-3, 2))
VALUE_PLACES = ((0, -1), (-1, 3), (-2, 4), (-3, 4), (-4, 4), (-5, 4), (-1, -5))
MASK_PLACES = ((0, 8), (1, 4), (2, 4), (3, 4))


def weights(header, height, width):
    """The tensors of `packed`, by their names."""
    options = header["model"]["options"]
    first, second, third = options["value"]
    known = 8 * (len(VALUE_PLACES) + len(MASK_PLACES)) + 16 + 16
    sizes = {
        "mask_first": (8 * 12 + 16, options["mask"][0]),
        "mask_second": tuple(options["mask"]),
        "mask_logits": (options["mask"][1], 16),
        "whole_first": (height * width // 4, options["whole"]),
        "whole_second": (options["whole"], 16),
        "value_first": (known, first),
        "value_second": (first, second),
        "value_coarse": (second, 16),
        "value_third": (second + 16, third),
        "value_fine": (third, 16),
    }
    wanted = {"empty": ("<i2", (height * width // 4, 2)), "rest": ("u1", (2, 15))}
    for name, (inputs, outputs) in sizes.items():
        wanted[f"layers.{name}.weight"] = ("i1", (outputs, inputs))
        wanted[f"layers.{name}.bias"] = ("<i4", (outputs,))
        wanted[f"layers.{name}.shift"] = ("i1", (outputs,))
    wanted |= {"mask_row": ("u1", (height // 2, 8)), "mask_column": ("u1", (width // 2, 8))}
    wanted |= {"value_row": ("u1", (height, 8)), "value_column": ("u1", (width, 8))}
    wanted |= {"value_coarse_table": ("u1", (16, 16))}
    plain, place, found = lzma.decompress(load_file(STORE / "_codec/weights.safetensors")["packed"].tobytes()), 0, {}
    for name in sorted(wanted):
        kind, shape = wanted[name]
        found[name] = np.frombuffer(plain, kind, int(np.prod(shape)), place).reshape(shape).astype(np.int64)
        place += found[name].size * np.dtype(kind).itemsize
    assert place == len(plain)
    return found


class Coder:
    """The entropy coder."""

    def __init__(self, data):
        lanes, self.tail = struct.unpack_from("<HH", data)
        marks = -(-lanes // 8)
        bits = [data[4 + lane // 8] >> (7 - lane % 8) & 1 for lane in range(lanes)]
        place = 4 + marks
        self.states = [int.from_bytes(data[place + 3 * lane : place + 3 * lane + 3], "little") for lane in range(lanes)]
        place += 3 * lanes
        for lane in range(lanes):
            if bits[lane]:
                self.states[lane] += data[place] << 24
                place += 1
        self.words = list(struct.unpack(f"<{(len(data) - place) // 2}H", data[place:]))
        self.calls = 0
        self.perhaps_tail()

    def perhaps_tail(self):
        if self.calls == self.tail and len(self.states) > 16:
            self.words = [state % 65536 for state in self.states[16:]] + self.words
            self.states = self.states[:16]

    def call(self, edges):
        """Symbols of one call; for each, where the 16 symbols begin, and 32768."""
        found, lanes = [], len(self.states)
        for left in range(0, len(edges), lanes):
            group = edges[left : left + lanes]
            for lane, begins in enumerate(group):
                state = self.states[lane]
                slot = state % 32768
                symbol = max(number for number in range(16) if begins[number] <= slot)
                width = begins[symbol + 1] - begins[symbol]
                self.states[lane] = width * (state >> 15) + slot - begins[symbol]
                found.append(symbol)
            for lane in range(len(group)):
                if self.states[lane] < 65536:
                    self.states[lane] = self.states[lane] << 16 | self.words.pop(0)
        self.calls += 1
        self.perhaps_tail()
        return found


def edges_of(logits):
    """Where 16 symbols begin, and 32768."""
    sums, total = [], np.float32(0)
    for logit in logits:
        total = np.float32(total + np.array([(int(logit) + 2032) << 19], np.uint32).view(np.float32)[0])
        sums.append(total)
    share = np.float32(np.float32(32752) / sums[15])
    return [0, *(int(np.float32(sums[number] * share)) + number + 1 for number in range(15)), 32768]


class Decoder:
    """One stream of `count` rows."""

    def __init__(self, header, tensors, sides, count):
        self.tensors, self.count, self.sides = tensors, count, sides
        height, width = sides
        self.mask = np.zeros((count, height, width), np.int64)
        self.values = np.zeros((count, height, width), np.int64)
        step = 2 * header["model"]["options"]["max_error"] + 1
        self.value_of = [min(index * step, 255) for index in range(256)]

    def layers(self, *names, value):
        for name in names:
            weight, bias, shift = (self.tensors[f"layers.{name}.{part}"] for part in ("weight", "bias", "shift"))
            # Halves to even, as integer codecs round.
            value = np.clip(np.round((weight @ value + bias) / 2.0**shift), 0, 255).astype(np.int64)
        return value

    @staticmethod
    def word(plane, row, column):
        """The value at a place first, then those to its left."""
        inside = lambda at: 0 <= row < plane.shape[0] and 0 <= at < plane.shape[1]  # noqa: E731
        return [int(plane[row, column - back]) if inside(column - back) else 0 for back in range(8)]

    def wavefronts(self, height, width, slope):
        for front in range(width + slope * height):
            rows = [row for row in range(height) if 0 <= front - slope * row < width]
            places = [(row, front - slope * row, one) for row in rows for one in range(self.count)]
            if places:
                yield places

    def read_mask(self, coder):
        height, width = self.sides
        for places in self.wavefronts(height // 2, width // 2, 3):
            contexts = {}
            for row, column, one in places:
                ink, words = 64 * self.mask[one], []
                for down, across in BLOCK_PLACES:
                    right = 2 * (column + across) + 1
                    words += [self.word(ink, 2 * (row + down) + odd, right) for odd in (0, 1)]
                contexts[row, column, one] = words
            near = [place for place in places if any(map(any, contexts[place][:4]))]
            far = [place for place in places if place not in near]
            for chosen, edges in ((near, self.asked(contexts, near)), (far, self.fixed(contexts, far))):
                symbols = coder.call(edges) if chosen else []
                for (row, column, one), symbol in zip(chosen, symbols, strict=True):
                    for place, bit in enumerate((8, 4, 2, 1)):
                        self.mask[one, 2 * row + place // 2, 2 * column + place % 2] = bool(symbol & bit)

    def asked(self, contexts, places):
        found = []
        for row, column, one in places:
            position = [*self.tensors["mask_row"][row], *self.tensors["mask_column"][column]]
            value = np.array([*chain.from_iterable(contexts[row, column, one]), *position])
            found.append(edges_of(self.layers("mask_first", "mask_second", "mask_logits", value=value)))
        return found

    def fixed(self, contexts, places):
        found = []
        for row, column, one in places:
            has_ink = int(any(map(any, contexts[row, column, one][4:])))
            zero = int(self.tensors["empty"][row * (self.sides[1] // 2) + column, has_ink])
            shares = [int(weight) + 1 for weight in self.tensors["rest"][has_ink]]
            widths = [max(1, (32768 - zero) * share // sum(shares)) for share in shares]
            found.append(np.cumsum([0, 32768 - sum(widths), *widths]).tolist())
        return found

    def read_values(self, coder):
        height, width = self.sides
        blocks = self.mask.reshape(self.count, height // 2, 2, width // 2, 2).sum((2, 4)).reshape(self.count, -1)
        whole = [self.layers("whole_first", "whole_second", value=16 * block) for block in blocks]
        for places in self.wavefronts(height, width, 4):
            chosen = [(row, column, one) for row, column, one in places if self.mask[one, row, column]]
            hidden = []
            for row, column, one in chosen:
                known = [self.word(self.values[one], row + down, column + across) for down, across in VALUE_PLACES]
                known += [self.word(64 * self.mask[one], row + down, column + across) for down, across in MASK_PLACES]
                position = [*self.tensors["value_row"][row], *self.tensors["value_column"][column]]
                value = np.array([*chain.from_iterable(known), *position, *whole[one]])
                hidden.append(self.layers("value_first", "value_second", value=value))
            if not chosen:
                continue
            coarse = coder.call([edges_of(self.layers("value_coarse", value=one)) for one in hidden])
            both = [
                np.array([*one, *self.tensors["value_coarse_table"][symbol]])
                for one, symbol in zip(hidden, coarse, strict=True)
            ]
            fine = coder.call([edges_of(self.layers("value_third", "value_fine", value=one)) for one in both])
            for (row, column, one), high, low in zip(chosen, coarse, fine, strict=True):
                self.values[one, row, column] = self.value_of[16 * high + low + 1]


def test_the_same_rows_are_still_the_same_streams():
    from ae_pipeline.codec.codec import Codec

    (part,) = STORE.glob("part-*.parquet")
    column = pq.ParquetFile(part).read(columns=["latent"]).column("latent").to_pylist()
    begins = [number for number, value in enumerate(column) if value]
    coder = Codec.load(STORE / "_codec").streams
    for first, last in zip(begins, [*begins[1:], len(column)], strict=True):
        indices = coder.decode(column[first], last - first)
        assert coder.encode(indices) == column[first]


@pytest.mark.slow
def test_the_document_is_enough_to_decode_streams():
    header = json.loads((STORE / "_codec/codec.json").read_text(encoding="utf-8"))
    height, width = header["samples"]["shape"]
    sides = (height + height % 2, width + width % 2)
    tensors = weights(header, *sides)
    (part,) = STORE.glob("part-*.parquet")
    column = pq.ParquetFile(part).read(columns=["latent"]).column("latent").to_pylist()
    begins = [number for number, value in enumerate(column) if value]
    expected = json.loads(STORE.with_name("store-v2-context.expected.json").read_text(encoding="utf-8"))["pixels"]
    lanes = {struct.unpack_from("<H", column[first], 9)[0] for first in begins}
    assert max(lanes) > 16 >= min(lanes)  # with a tail, and without
    for first, last in zip(begins, [*begins[1:], len(column)], strict=True):
        stream, count = column[first], last - first
        assert stream[0] == 2
        decoder = Decoder(header, tensors, sides, count)
        coder = Coder(stream[9:])
        decoder.read_mask(coder)
        decoder.read_values(coder)
        assert (coder.words, set(coder.states)) == ([], {65536})
        found = decoder.values[:, :height, :width]
        assert found.reshape(count, -1).tolist() == expected[first:last]
        step = 2 * header["model"]["options"]["max_error"] + 1
        indices = np.where(found == 255, -(-255 // step), found // step).astype(np.uint8)
        assert sha256(indices.tobytes()).digest()[:8] == stream[1:9]
