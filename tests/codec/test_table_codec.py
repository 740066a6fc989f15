"""Codecs of tables: what comes back is within the bound, streams are exact or refused, and bytes never differ."""

import numpy as np
import pyarrow as pa
import pytest
from made_tables import fitted, related_columns

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.context.rans import ONE, Reader, encode
from ae_pipeline.codec.stream_head import NETWORKS, RAW, ZSTD
from ae_pipeline.codec.tables.chances import edges_of
from ae_pipeline.codec.tables.fields import Symbols
from ae_pipeline.codec.tables.options import latents_of
from ae_pipeline.codec.tables.saving import packed, save_table_codec, unpacked
from ae_pipeline.codec.tables.streams import TableCoder
from ae_pipeline.data.table_columns.fields import places_of
from ae_pipeline.data.table_columns.rows import fields_of
from ae_pipeline.errors import CodecError
from ae_pipeline.params import TrainParams
from ae_pipeline.training.context.tables.fit import fit_table

SHORT = TrainParams(epochs=6, batch_size=128, learning_rate=0.01)


def rows_of(table, **settings):
    kind, state, records = fitted(table, **settings)
    return np.stack(list(kind.to_rows(records, str, state))), fields_of(state.columns)


def trained(rows, fields):
    places = places_of(rows, fields)
    return fit_table(places[:450], places[450:], fields, SHORT)


@pytest.fixture(scope="module", params=[0.01, 0.0])
def made(request):
    rows, fields = rows_of(related_columns(), max_error=request.param)
    options, parts, history = trained(rows, fields)
    return rows, options, parts, history


@pytest.fixture(scope="module")
def coder(made):
    return TableCoder(made[1], made[2])


def test_all_comes_back_within_the_bound_and_categories_exactly(made, coder):
    rows, options, _, _ = made
    back = coder.rows_of(coder.quantised(rows))
    for number, field in enumerate(options.fields):
        there = np.ones(len(rows), bool) if field.present is None else rows[:, field.present] == 0
        limit = (field.cell - 1) / 2 / field.largest
        assert np.abs(back - rows)[there, number].max() <= limit + 1e-7
        assert not back[~there, number].any()
    assert options.max_error == pytest.approx(max((f.cell - 1) / 2 / f.largest for f in options.fields))


def test_a_stream_is_smaller_than_zstd_and_gives_the_latents_back(made, coder):
    rows, _, _, history = made
    latents = coder.quantised(rows)
    stream = coder.encode_latents(latents)
    assert stream[0] == NETWORKS
    assert np.array_equal(coder.decode_latents(stream, len(rows)), latents)
    assert 8 * len(stream) / len(rows) == pytest.approx(history[-1].train_loss, rel=0.25)


def test_rows_have_the_same_latents_alone_in_blocks_and_together(made, coder):
    rows = made[0]
    together = coder.quantised(rows)
    assert np.array_equal(np.concatenate([coder.quantised(rows[:7]), coder.quantised(rows[7:])]), together)
    assert np.array_equal(coder.quantised(rows[11:12]), together[11:12])


def test_outliers_of_every_field_come_back_within_the_bound(made, coder):
    rows, options, _, _ = made
    wild = np.repeat(rows[:1], 8, axis=0)
    for number, field in enumerate(options.fields):
        if not field.is_category:
            wild[:, number] = np.rint(np.linspace(-field.largest, 2 * field.largest, 8)) / field.largest
            if field.present is not None:
                wild[:, field.present] = 0
    latents = coder.quantised(wild)
    limits = [(field.cell - 1) / 2 / field.largest + 1e-6 for field in options.fields]
    assert (np.abs(coder.rows_of(latents) - wild) <= limits).all()
    stream = coder.encode_latents(latents)
    assert np.array_equal(coder.decode_latents(stream, 8), latents)


def test_latents_that_no_row_has_are_kept_as_they_are(made, coder):
    noise = np.random.default_rng(0).integers(-128, 128, (40, 4 * len(made[1].fields)), np.int8)
    stream = coder.encode_latents(noise)
    assert stream[0] in (RAW, ZSTD)
    assert np.array_equal(coder.decode_latents(stream, 40), noise)


def test_a_changed_stream_is_refused_or_gives_the_same_values(made, coder):
    rows = made[0][:30]
    latents = coder.quantised(rows)
    stream = coder.encode_latents(latents)
    for place in range(len(stream)):
        changed = bytearray(stream)
        changed[place] ^= 1 << place % 8
        try:
            found = coder.decode_latents(bytes(changed), len(rows))
        except ValueError:
            continue
        assert np.array_equal(found, latents)
    for end in range(0, len(stream), 9):
        with pytest.raises(ValueError, match=r"stream|beyond"):
            coder.decode_latents(stream[:end], len(rows))


def test_a_codec_is_loaded_as_it_was_saved_and_a_damaged_one_refused(made, coder, tmp_path):
    rows, options, parts, _ = made
    header = save_table_codec(tmp_path / "codec", options, parts, {"made": "for a test"})
    codec = Codec.load(tmp_path / "codec")
    assert (codec.header.max_error, codec.header.layout, header.is_integer) == (options.max_error, "stream", True)
    assert np.array_equal(codec.encode(rows), coder.quantised(rows))
    assert np.array_equal(codec.decode(codec.encode(rows)), coder.rows_of(coder.quantised(rows)))
    latents, error = codec.encode_block(rows[:50], measure=True)
    expected = np.square(codec.decode(latents).astype(float) - rows[:50]).mean(1)
    assert np.allclose(error, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="networks of"):
        unpacked(packed(parts[:-1]).numpy().tobytes(), options)
    (tmp_path / "codec/weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CodecError, match="was changed"):
        Codec.load(tmp_path / "codec")


def test_a_training_gives_the_same_codec_again(made):
    rows, options, parts, _ = made
    again_options, again, _ = trained(rows, list(options.fields))
    assert again_options == options
    assert packed(again).numpy().tobytes() == packed(parts).numpy().tobytes()


def test_a_column_that_another_one_implies_takes_fewer_bits():
    first = np.random.default_rng(0).integers(0, 10_000, 1000)
    table = pa.table({"a": first, "twice": 2 * first + 7})
    rows, fields = rows_of(table, shares={"a": 0.002})
    places = places_of(rows, fields)
    params = TrainParams(epochs=12, batch_size=128, learning_rate=0.003)
    _, _, history = fit_table(places[:800], places[800:], fields, params)
    alone = sum(np.log2(field.largest / field.cell) for field in fields)
    assert history[1].validation_loss < alone - 2


@pytest.mark.parametrize("symbols", [2, 16, 17, 255])
def test_chances_of_any_number_of_symbols_are_whole_shares_and_are_coded(symbols):
    random = np.random.default_rng(symbols)
    logits = random.integers(-4000, 4000, (300, symbols))
    edges = edges_of(logits)
    assert edges.shape == (symbols + 1, 300)
    assert (edges[0] == 0).all()
    assert (edges[-1] == ONE).all()
    assert (np.diff(edges, axis=0) >= 1).all()
    values = random.integers(0, symbols, 300)
    found = Symbols()
    found.add(edges, values)
    reader = Reader(encode(found.starts[0], found.widths[0], found.sizes, 16))
    assert np.array_equal(reader.read(edges), values)
    reader.finish()


def test_latents_are_four_bytes_of_each_field():
    assert latents_of(np.array([[1, -2]])).tolist() == [[1, 0, 0, 0, -2, -1, -1, -1]]
