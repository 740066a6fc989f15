"""The streams of the layout `coded`: latents come back, in few bytes, and what is no stream is refused cheaply."""

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from ae_pipeline.store.format import entropy_coding
from ae_pipeline.store.format.entropy_coding import compress, decompress


def latents_of(rows, size, lowest=-128, highest=127):
    return np.random.default_rng(rows + size).integers(lowest, highest + 1, (rows, size)).astype(np.int8)


def entropy(latents):
    """Bits of all latents, each dimension on its own."""
    bits = 0.0
    for column in latents.T:
        counts = np.unique(column, return_counts=True)[1]
        bits -= (counts * np.log2(counts / len(column))).sum()
    return bits


def entry(lowest, values, rows_per_byte, length):
    return bytes([lowest % 256, values, rows_per_byte]) + length.to_bytes(4, "little")


def raw_deflate(data):
    deflating = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflating.compress(data) + deflating.flush()


def stream_of(packed, lowest=0, values=9, rows_per_byte=1):
    """A blob of one dimension; `packed` are the bytes before DEFLATE."""
    body = raw_deflate(packed)
    return entry(lowest, values - 1, rows_per_byte, len(body)) + body


def all_streams(latents):
    """A blob as the format's first writer made it: every way is tried, and the first of the shortest is kept."""
    entries, bodies = b"", []
    for column in latents.T:
        low, values = int(column.min()), int(column.max()) - int(column.min()) + 1
        found = []
        for count in range(1, 9) if values > 1 else ():
            if values**count <= 256:
                digits = (column.astype(int) - low).tolist()
                groups = [digits[start : start + count] for start in range(0, len(digits), count)]
                packed = bytes(sum(one * values**place for place, one in enumerate(group)) for group in groups)
                for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE):
                    deflating = zlib.compressobj(-1, zlib.DEFLATED, -15, 9, strategy)
                    found.append((count, deflating.compress(packed) + deflating.flush()))
        count, body = min(found, key=lambda one: len(one[1]), default=(0, b""))
        entries += entry(low, values - 1, count, len(body))
        bodies.append(body)
    return entries + b"".join(bodies)


# What comes back


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 1000, 33_000])
def test_the_bytes_are_those_of_trying_everything(rows):
    random = np.random.default_rng(rows)
    noise = random.normal(size=(rows, 12)) * [0, 0.3, 0.5, 0.7, 1, 3, 10, 30, 60, 90, 200, 500]
    rare = noise * (random.random((rows, 12)) < 0.02)
    runs = np.repeat(noise, 4, axis=0)[:rows]
    latents = np.concatenate([noise, rare, runs], 1).round().clip(-128, 127).astype(np.int8)
    assert compress(latents) == all_streams(latents)
    assert np.array_equal(decompress(compress(latents), *latents.shape), latents)


@pytest.mark.parametrize(
    ("rows", "size", "lowest", "highest"),
    [
        (1, 1, 5, 5),
        (1, 300, -128, 127),
        (7, 1, -128, 127),
        (1000, 3, -128, 127),
        (1001, 4, -1, 0),
        (1001, 4, 0, 2),
        (50_000, 2, -2, 2),
        (10_000, 18, -8, 7),
        (99, 5, 127, 127),
        (99, 5, -128, -128),
    ],
)
def test_latents_come_back(rows, size, lowest, highest):
    latents = latents_of(rows, size, lowest, highest)
    found = decompress(compress(latents), rows, size)
    assert (found.dtype, found.shape) == (np.int8, (rows, size))
    assert np.array_equal(found, latents)


@settings(max_examples=200, deadline=None)
@given(arrays(np.int8, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_latents_come_back(latents):
    assert np.array_equal(decompress(compress(latents), *latents.shape), latents)


def test_the_same_latents_give_the_same_bytes_however_they_lie_in_memory():
    latents = latents_of(500, 6, -4, 4)
    wider = np.zeros((1000, 12), np.int8)
    wider[::2, ::2] = latents
    assert compress(wider[::2, ::2]) == compress(np.asfortranarray(latents)) == compress(latents)


def decompressed_by_the_document(stream, rows, size):
    """As docs/store-format.md has it, a value at a time."""
    end = 7 * size
    columns = []
    for dimension in range(size):
        head = stream[7 * dimension : 7 * dimension + 7]
        lowest = int.from_bytes(head[:1], "little", signed=True)
        values, rows_per_byte, length = head[1] + 1, head[2], int.from_bytes(head[3:], "little")
        if rows_per_byte == 0:
            columns.append([lowest] * rows)
            continue
        column = []
        for number in zlib.decompress(stream[end : end + length], -15):
            column += [lowest + number // values**place % values for place in range(rows_per_byte)]
        columns.append(column[:rows])
        end += length
    assert end == len(stream)
    return np.array(columns, np.int8).T


@pytest.mark.parametrize("highest", [-3, -2, -1, 3, 12, 120])
def test_a_stream_is_what_the_document_says(highest):
    latents = latents_of(101, 5, -3, highest)
    assert np.array_equal(decompressed_by_the_document(compress(latents), 101, 5), latents)


# How few bytes


@pytest.mark.parametrize(("deviation", "most"), [(0.2, 2), (0.3, 1.25), (0.5, 1.05), (1.0, 1.03), (3.0, 1.03)])
def test_a_stream_is_hardly_longer_than_the_entropy(deviation, most):
    values = np.random.default_rng(1).normal(0, deviation, (10_000, 16))
    latents = np.clip(np.round(values), -128, 127).astype(np.int8)
    # The code itself is written, too; and a byte costs at least one bit, whatever rows it holds.
    assert 1 < 8 * len(compress(latents)) / entropy(latents) < most


def test_a_dimension_that_is_nearly_always_the_same_costs_nearly_nothing():
    latents = np.zeros((10_000, 4), np.int8)
    latents[::2500, 1] = 1
    assert len(compress(latents)) < 28 + 60


# What is no stream


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "too short"),
        (entry(0, 0, 0, 0)[:-1], "too short"),
        (entry(0, 0, 0, 0) + b"x", "has not the lengths"),
        (entry(0, 8, 1, 2**32 - 1), "has not the lengths"),
        (stream_of(bytes(10))[:-1], "has not the lengths"),
        (entry(0, 0, 1, 0), "constant"),
        (entry(0, 0, 0, 1) + b"x", "constant"),
        (entry(120, 8, 1, 0), "above 127"),
        (entry(0, 8, 0, 0), "more rows in a byte"),
        (entry(0, 8, 3, 0), "more rows in a byte"),
        (entry(0, 1, 9, 0), "more rows in a byte"),
        (entry(0, 8, 255, 0), "more rows in a byte"),
        (entry(0, 8, 1, 0), "does not end after 10"),
        (entry(0, 8, 1, 4) + b"\xff\xff\xff\xff", "cannot be decompressed"),
        (stream_of(bytes(9)), "does not end after 10"),
        (stream_of(bytes(11)), "does not end after 10"),
        (stream_of(bytes(10), rows_per_byte=2), "does not end after 5"),
        (entry(0, 8, 1, 2) + raw_deflate(bytes(10))[:2], "does not end after 10"),
        (entry(0, 8, 1, len(raw_deflate(bytes(10))) + 1) + raw_deflate(bytes(10)) + b"x", "does not end after 10"),
        (stream_of(bytes([0, 9] * 5)), "not among its values"),
        (stream_of(bytes([81] * 5), rows_per_byte=2), "not among its values"),
    ],
)
def test_what_is_no_stream_is_refused(stream, reason):
    with pytest.raises(ValueError, match=reason):
        decompress(stream, 10, 1)


def test_a_stream_of_the_same_kind_is_read():
    """So what the test above refuses is what it changed."""
    assert decompress(stream_of(bytes([0, 8] * 5)), 10, 1).tolist() == [[0], [8]] * 5
    assert decompress(entry(-7, 0, 0, 0), 10, 1).tolist() == [[-7]] * 10


def peak_of(refused):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):  # noqa: PT011 (which one is told above)
            refused()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_stream_that_would_become_large_is_not_decompressed():
    bomb = stream_of(bytes(100 << 20))
    assert len(bomb) < 120_000
    assert peak_of(lambda: decompress(bomb, 10, 1)) < 1 << 20


@pytest.mark.parametrize(("rows", "size"), [(1_000_000, 1000), (1, 2**62), (2, 2**28)])
def test_more_latents_than_a_row_group_may_hold_are_not_allocated(rows, size):
    assert peak_of(lambda: decompress(b"", rows, size)) < 1 << 20


def test_constant_dimensions_cannot_ask_for_more_either(monkeypatch):
    monkeypatch.setattr(entropy_coding, "MOST_ROW_GROUP_BYTES", 1000)
    stream = entry(0, 0, 0, 0) * 10
    assert decompress(stream, 100, 10).shape == (100, 10)
    with pytest.raises(ValueError, match="would take 1010 bytes, at most 1000"):
        decompress(stream, 101, 10)


def test_changed_streams_give_latents_or_an_error():
    latents = latents_of(64, 3, -2, 9)
    stream = compress(latents)
    random = np.random.default_rng(2)
    outcomes = {"refused": 0, "read": 0}
    for _ in range(3000):
        changed = bytearray(stream)
        changed[random.integers(len(changed))] ^= 1 << random.integers(8)
        if random.random() < 0.2:
            del changed[random.integers(len(changed)) :]
        try:
            assert decompress(bytes(changed), 64, 3).shape == (64, 3)
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100
