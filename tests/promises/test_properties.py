"""Whatever a data set looks like, its store gives it back: shapes, types, ids and attributes as Hypothesis finds them.

What is not promised to come back must be an error of ours. `test_scan_properties.py` has the same for chosen rows.
"""

import math
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import examples
from handmade import encode, random_codec, random_pixels, write_rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.pixels import DTYPES, PIXELS, SampleSpec
from ae_pipeline.data.sample_schema import sample_schema
from ae_pipeline.data.samples import ID, SampleSet
from ae_pipeline.errors import DataError
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.format.part_writer import RESERVED, round_error
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store

INTEGERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
# Half characters are no text: UTF-8 has none.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "\0", "o'hara", '"', "\\", "a" * 5000, "\U0001f9e8", "e\u0301", "\u202e", "NaN", "1", " "]
)


def integers_of(kind):
    limits = np.iinfo(kind.to_pandas_dtype())
    return st.integers(int(limits.min), int(limits.max)) | st.sampled_from([int(limits.min), int(limits.max)])


@st.composite
def id_columns(draw, rows):
    """Ids of any type that a store keeps; often repeated."""
    kind = draw(st.sampled_from([*INTEGERS, pa.string(), pa.large_string()]))
    values = integers_of(kind) if pa.types.is_integer(kind) else TEXTS
    return pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind)


LEAVES = {
    pa.bool_(): st.booleans(),
    **{kind: integers_of(kind) for kind in INTEGERS},
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.binary(): st.binary(max_size=20),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): st.dates(),
    pa.timestamp("us", "UTC"): st.integers(-6 * 10**16, 25 * 10**16),  # years 68 to 9892, as Python has them
    pa.decimal128(9, 2): st.decimals(-9999, 9999, places=2),
    pa.null(): st.none(),
}


@st.composite
def kinds(draw, depth=2):
    """A type of an attribute, and values for it."""
    if depth and draw(st.integers(0, 3)) == 0:
        kind, values = draw(kinds(depth - 1))
        values = st.none() | values
        if draw(st.booleans()):
            return pa.list_(kind), st.lists(values, max_size=4)
        return pa.struct([("a", kind), ("b", pa.int8())]), st.fixed_dictionaries({"a": values, "b": st.none()})
    kind = draw(st.sampled_from(list(LEAVES)))
    return kind, LEAVES[kind]


@st.composite
def attribute_columns(draw, rows):
    """Up to three attributes of any type, nested ones included, with nulls."""
    columns = {}
    # Arrow ends a name at a zero byte, in the data set's own file already.
    names = TEXTS.filter(lambda name: name and "\0" not in name and name not in (ID, PIXELS, *RESERVED))
    for name in draw(st.lists(names, max_size=3, unique=True)):
        kind, values = draw(kinds())
        columns[name] = pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
    return columns


FOLDER: list[Path] = []  # of this module, for what is made once
SHAPES = [(1,), (7,), (3, 2), (2, 3, 2), (1, 1, 1, 1, 1, 1, 1, 2)]


@cache
def codec_for(shape, dtype, levels):
    folder = Path(tempfile.mkdtemp(prefix="codec-", dir=FOLDER[0])) / "codec"
    random_codec(folder, shape, dtype, levels=levels, latent_size=1 + len(shape))
    return folder


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    FOLDER.insert(0, tmp_path_factory.mktemp("properties"))
    return FOLDER[0]


@pytest.mark.slow
@examples(40)
@given(data=st.data())
def test_what_goes_into_a_store_comes_out(data, folder):
    shape, dtype = data.draw(st.sampled_from(SHAPES)), data.draw(st.sampled_from(DTYPES))
    codec_path = codec_for(shape, dtype, data.draw(st.sampled_from([2, 3, 16, 17, 255, 256])))
    shards = data.draw(st.lists(st.sampled_from([1, 2, 3, 11]), min_size=1, max_size=3))
    layout, group = data.draw(st.sampled_from(list(LAYOUTS))), data.draw(st.sampled_from([1, 2, 7, 1_000_000]))
    rows = sum(shards)
    pixels = random_pixels((rows, *shape), dtype, data.draw(st.integers(0, 2**32 - 1)))
    attributes = data.draw(attribute_columns(rows))
    ids = data.draw(st.none() | id_columns(rows))
    columns = attributes if ids is None else {ID: ids, **attributes}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place, first = Path(temporary), 0
        for number, count in enumerate(shards):
            part = {name: values.slice(first, count) for name, values in columns.items()}
            write_rows(place / "rows" / f"{number}.parquet", pixels[first : first + count], **part)
            first += count
        samples = SampleSet.open(place / "rows")
        store = encode(samples, codec_path, place / "store", layout=layout, row_group_rows=group)
        codec = Codec.load(codec_path)
        found = [block for part in store.manifest.parts for block in store.read_part(part, 9)]
        latents = np.concatenate([block.latents for block in found])
        stored = pa.concat_tables([block.attributes for block in found])
        assert np.array_equal(latents, codec.encode(pixels))
        wanted = {ID: ids if ids is not None else pa.array(range(rows)), **attributes}
        check_columns(stored, wanted)
        check_ranges(store, shards, ids)
        decoded = decode_store(store, place / "decoded", device="cpu").load()
        assert np.array_equal(decoded.pixels, codec.decode(latents))
        check_columns(decoded.attributes, wanted)
        check_errors(codec, pixels, decoded.pixels, np.concatenate([block.error for block in found]))


def check_columns(stored, wanted):
    assert stored.column_names == list(wanted)
    for name, values in wanted.items():
        # Texts tell NaN from null, -0.0 from 0.0, and one type from another where values are equal.
        assert stored[name].type == values.type
        assert str(stored[name].to_pylist()) == str(values.to_pylist())


def check_ranges(store, shards, ids):
    assert [part.rows for part in store.manifest.parts] == shards
    values, first = ids.to_pylist() if ids is not None else range(sum(shards)), 0
    for part in store.manifest.parts:
        inside = values[first : first + part.rows]
        assert (part.id_min, part.id_max) == (min(inside, key=as_utf8), max(inside, key=as_utf8))
        first += part.rows


def as_utf8(value):
    return value.encode() if isinstance(value, str) else value


def check_errors(codec, pixels, decoded, stored):
    difference = (decoded.astype(np.float64) - pixels) / codec.header.scaling.scale
    measured = np.square(difference).reshape(len(pixels), -1).mean(axis=1)
    assert np.array_equal(stored, round_error(stored))
    assert np.allclose(stored, measured, rtol=0.003, atol=1e-9)


@pytest.mark.slow
@examples(25)
@given(
    pixels=hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32) | st.sampled_from([math.nan, math.inf, 3e38])),
    kind=st.sampled_from([pa.binary(16), pa.list_(pa.float32()), pa.list_(pa.float64())]),
)
def test_floats_that_are_no_numbers_are_refused_and_all_others_are_taken(pixels, kind, folder):
    codec_path = codec_for((4,), "float32", 16)
    column = [row.tobytes() for row in pixels] if kind == pa.binary(16) else [row.tolist() for row in pixels]
    metadata = sample_schema(pa.schema([]), SampleSpec((4,), "float32")).metadata
    table = pa.table({"pixels": pa.array(column, kind)}).replace_schema_metadata(metadata)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        pq.write_table(table, place / "rows.parquet")
        finite = np.isfinite(pixels).all(axis=1)
        if not finite.all():
            named = rf"pixels of {(~finite).sum()} rows? \(id .*\) are NaN, infinite"
            with pytest.raises(DataError, match=named):
                encode(place / "rows.parquet", codec_path, place / "store")
            assert not (place / "store").exists()
            return
        codec = Codec.load(codec_path)
        difference = (codec.decode(codec.encode(pixels)) - pixels.astype(np.float64)) / codec.header.scaling.scale
        if np.square(difference).mean(axis=1).max() > np.finfo(np.float32).max:
            with pytest.raises(DataError, match="not even the error fits float32"):
                encode(place / "rows.parquet", codec_path, place / "store")
            return
        store = encode(place / "rows.parquet", codec_path, place / "store")
        (block,) = store.rows()
        assert np.array_equal(block.latents, codec.encode(pixels))
        assert np.isfinite(block.error).all()
        decoded = decode_store(store, place / "decoded", device="cpu").load().pixels
        assert np.array_equal(decoded, codec.decode(block.latents))


@pytest.mark.parametrize("files", [1, 3])
def test_no_rows_are_refused(files, tmp_path):
    for number in range(files):
        write_rows_of_nothing(tmp_path / "rows" / f"{number}.parquet")
    with pytest.raises(DataError, match="holds no rows; expected at least one"):
        SampleSet.open(tmp_path / "rows")


def test_files_without_rows_among_others_are_passed_over(tmp_path):
    for number in (0, 2, 5):
        write_rows_of_nothing(tmp_path / "rows" / f"{number}.parquet")
    for number, rows in ((1, 4), (3, 1), (4, 2)):
        write_rows(tmp_path / "rows" / f"{number}.parquet", random_pixels((rows, 4), "float32"))
    store = encode(tmp_path / "rows", codec_for((4,), "float32", 16), tmp_path / "store")
    assert [part.rows for part in store.manifest.parts] == [4, 1, 2]
    assert pa.concat_tables(store.scan([ID]))[ID].to_pylist() == list(range(7))


def write_rows_of_nothing(path):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(sample_schema(pa.schema([]), SampleSpec((4,), "float32")).empty_table(), path)


def test_a_store_is_read_wherever_it_is_moved(tmp_path):
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((1, 4), "float32"))
    store = encode(samples, codec_for((4,), "float32", 16), tmp_path / "store")
    moved = shutil.move(store.path, tmp_path / "'; rm -rf \u00e4 \U0001f9e8 %s {}")
    assert [table.num_rows for table in LatentStore.open(moved).scan()] == [1]
