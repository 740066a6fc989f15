"""Context codecs: every value comes back, or within its bound, whichever way it is computed; damage is found."""

import itertools

import numpy as np
import pytest
import torch
from contexts import pictures, random_networks
from hypothesis import given, settings
from hypothesis import strategies as st

from ae_pipeline.codec.context import streams
from ae_pipeline.codec.context.chances import SYMBOLS, edges_of
from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.masks import fixed_widths
from ae_pipeline.codec.context.rans import ONE, Reader, encode, picked
from ae_pipeline.codec.context.streams import StreamCoder
from ae_pipeline.codec.context.words import BLOCK_SLOPE, VALUE_SLOPE, block_symbols, mask_of, order_of
from ae_pipeline.codec.stream_head import NETWORKS, RAW, ZSTD, compressed, head


def coder_of(sides, error=0, seed=0):
    return StreamCoder(random_networks(sides, error, seed), sides, Grid(error))


def pair_of(edges, symbols):
    return picked(edges, symbols, np.arange(len(symbols)))


@pytest.mark.parametrize("error", [0, 1, 7, 8, 64, 127])
def test_no_value_is_further_from_the_grid_than_the_bound(error):
    values = np.arange(256, dtype=np.uint8)
    grid = Grid(error)
    found = grid.values[grid.indices(values)]
    assert np.abs(found.astype(int) - values).max() <= error
    assert found[0] == 0
    assert len(grid.values) == len(set(grid.values.tolist()))


@pytest.mark.parametrize("error", [0, 3, 7, 20, 127])
@pytest.mark.parametrize(("sides", "count"), [((12, 12), 40), ((7, 9), 9), ((1, 1), 5), ((8, 30), 1), ((28, 28), 3)])
def test_all_that_is_coded_comes_back(sides, count, error):
    grid, coder = Grid(error), coder_of(sides, error)
    indices = grid.indices(pictures(count, sides))
    coded = coder._coded(indices)
    assert np.array_equal(coder._decoded(memoryview(coded), count), indices)
    stream = coder.encode(indices)
    assert len(stream) <= 9 + indices.size
    assert np.array_equal(coder.decode(stream, count), indices)


def test_rows_unlike_all_others_come_back_too():
    coder = coder_of((12, 12))
    noise = np.random.default_rng(0).integers(0, 256, (7, 12, 12), np.uint8)
    for indices in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert np.array_equal(coder._decoded(memoryview(coder._coded(indices)), 7), indices)
        assert np.array_equal(coder.decode(coder.encode(indices), 7), indices)
    assert coder.encode(noise)[0] == RAW
    assert coder.encode(np.zeros_like(noise))[0] in (ZSTD, NETWORKS)


@pytest.mark.slow
def test_one_stream_whatever_the_pieces_the_threads_and_the_products(monkeypatch):
    indices, coder = pictures(150, (12, 12)), coder_of((12, 12))
    stream = coder._coded(indices)
    others = [coder_of((12, 12))]
    for layer in others[0]._masks._networks.layers.values():
        layer._bytes = None  # float32 products
    for one, chunk, threads in itertools.product([coder, *others], [1, 1024, 8192], [1, 2]):
        monkeypatch.setattr(streams, "_AT_ONCE", chunk)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert one._coded(indices) == stream
            assert np.array_equal(one._decoded(memoryview(stream), 150), indices)
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("error", [0, 20, 127])
def test_a_stream_that_would_decode_to_anything_else_is_not_given_out(error, monkeypatch):
    grid, coder = Grid(error), coder_of((12, 12), error)
    indices = grid.indices(pictures(30, (12, 12)))
    start, coded = head(NETWORKS, indices.tobytes()), coder._coded(indices)
    coder._check(start + coded, indices)
    damaged = bytearray(coded)
    damaged[len(coded) // 2] ^= 1
    other = indices.copy()
    other[3, 5, 5] = 0 if other[3, 5, 5] else 1
    for stream, values in ((bytes(damaged), indices), (coded[:-2], indices), (coded, other)):
        with pytest.raises(ValueError):  # noqa: PT011
            coder._check(start + stream, values)
    monkeypatch.setattr(coder, "_coded", lambda indices: bytes(damaged))
    stream = coder.encode(indices)
    assert stream[0] in (ZSTD, RAW)
    assert np.array_equal(coder.decode(stream, 30), indices)


@pytest.mark.parametrize("error", [0, 20])
def test_chances_come_from_what_a_decoder_knows_by_then(error):
    sides, grid, count = (12, 14), Grid(error), 2
    coder, random = coder_of(sides, error), np.random.default_rng(4)
    size = np.int64(len(grid.values))
    indices = random.integers(1, size, (count, *sides)).astype(np.uint8)
    indices[random.random(indices.shape) < 0.4] = 0
    steps = 1 + (size > 17)
    order = order_of(*sides, VALUE_SLOPE)
    for place in random.choice(len(order.rows), 25, replace=False):
        later = order.columns + VALUE_SLOPE * order.rows >= order.columns[place] + VALUE_SLOPE * order.rows[place]
        other = indices.copy()
        chosen = other[:, order.rows[later], order.columns[later]]
        there = chosen > 0
        chosen[there] = random.integers(1, size, there.sum())
        other[:, order.rows[later], order.columns[later]] = chosen
        known = (order.of(indices > 0)[: order.ends[np.searchsorted(order.ends, place, "right") - 1]]).sum() * steps
        for one, two in zip(*(coder._values.chances(v, v > 0, 9).joined() for v in (indices, other)), strict=True):
            assert np.array_equal(one[:known], two[:known])
    blocks = order_of(sides[0] // 2, sides[1] // 2, BLOCK_SLOPE)
    for end in random.choice(blocks.ends[1:], 8, replace=False):
        other = indices.copy()
        for row, column in zip(blocks.rows[end:], blocks.columns[end:], strict=True):
            other[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0
        for one, two in zip(*(coder._masks.chances(v > 0, 9).joined() for v in (indices, other)), strict=True):
            assert np.array_equal(one[: end * count], two[: end * count])


@pytest.mark.slow
@pytest.mark.parametrize("method", [RAW, ZSTD, NETWORKS])
def test_a_flipped_bit_anywhere_in_a_stream_is_refused_or_changes_nothing(method):
    indices, coder = pictures(6, (8, 8)), coder_of((8, 8))
    payload = {
        RAW: indices.tobytes(),
        ZSTD: compressed(indices.tobytes()),
        NETWORKS: coder._coded(indices),
    }[method]
    stream = head(method, indices.tobytes()) + payload
    assert np.array_equal(coder.decode(stream, 6), indices)
    refused, bits = 0, [*range(0, 200, 3), *range(200, 8 * len(stream), 61)]
    for bit in bits:
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = coder.decode(bytes(damaged), 6)
        except ValueError:
            refused += 1
        else:  # zstd has bits that mean nothing, and so has a coder of few lanes
            assert np.array_equal(found, indices)
    assert refused > 0.9 * len(bits)


@pytest.mark.parametrize("cut", [0, 1, 8, 9, 12, 30, -3, -1])
def test_a_stream_that_was_cut_off_or_goes_on_is_refused(cut):
    indices, coder = pictures(6, (8, 8)), coder_of((8, 8))
    stream = head(NETWORKS, indices.tobytes()) + coder._coded(indices)
    for damaged in (stream[:cut], stream + b"\0" * (cut % 7 + 1)):
        with pytest.raises(ValueError):  # noqa: PT011
            coder.decode(damaged, 6)


def test_a_stream_of_other_rows_is_refused():
    coder = coder_of((8, 8))
    stream = coder.encode(pictures(6, (8, 8)))
    for count in (1, 5, 7, 100):
        with pytest.raises(ValueError):  # noqa: PT011
            coder.decode(stream, count)


def test_a_mask_is_its_blocks():
    mask = np.random.default_rng(1).random((5, 6, 8)) < 0.5
    assert np.array_equal(mask_of(block_symbols(mask)), mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 90), max_size=12), st.integers(1, 70), st.booleans())
def test_what_the_entropy_coder_takes_it_gives_back(seed, sizes, lanes, is_sharp):
    random = np.random.default_rng(seed)
    spread = 255 if is_sharp else 30
    calls = [edges_of(random.integers(0, spread + 1, (size, SYMBOLS), np.uint8)) for size in sizes]
    wanted = [random.integers(0, SYMBOLS, size, np.uint8) for size in sizes]
    pairs = [pair_of(edges, symbols) for edges, symbols in zip(calls, wanted, strict=True)]
    starts, widths = (np.concatenate([np.empty(0, np.int32), *part]) for part in zip(*pairs, ((), ()), strict=True))
    stream = encode(starts, widths, sizes, lanes)
    reader, expecting = Reader(stream), Reader(stream)
    for edges, symbols, pair in zip(calls, wanted, pairs, strict=True):
        assert np.array_equal(reader.read(edges), symbols)
        expecting.expect(*pair)
    reader.finish()
    expecting.finish()


def test_symbols_take_the_bits_that_their_chances_say():
    random = np.random.default_rng(3)
    edges = edges_of(random.integers(100, 180, (40_000, SYMBOLS), np.uint8))
    widths = np.diff(edges, axis=0) / ONE
    symbols = (widths.cumsum(0) < random.random(40_000)).sum(0).astype(np.uint8)
    start, width = pair_of(edges, symbols)
    bits = -np.log2(width / ONE).sum()
    assert 8 * len(encode(start, width, [500] * 80, 256)) < 1.003 * bits + 8 * 256


def test_chances_are_whole_and_none_is_nothing():
    logits = np.random.default_rng(2).integers(0, 256, (500, SYMBOLS), np.uint8)
    logits[0], logits[1] = 0, 255
    logits[2] = [255] + [0] * 15
    widths = np.diff(edges_of(logits), axis=0)
    assert widths.min() >= 1
    assert (widths.sum(0) == ONE).all()
    # Sixteen more is an octave: twice as likely, but for the share that everyone has.
    pair = np.full((1, SYMBOLS), 100, np.uint8)
    pair[0, 0] = 116
    found = np.diff(edges_of(pair), axis=0)[:, 0]
    assert abs(found[0] - 2 * found[1]) <= 2


def test_fixed_chances_add_up():
    empty = np.array([[512, 32753], [20000, 30000]], np.int16)
    rest = np.random.default_rng(0).integers(0, 256, (2, SYMBOLS - 1), np.uint8)
    widths = fixed_widths(empty, rest)
    assert (widths.sum(2) == ONE).all()
    assert widths.min() >= 1
