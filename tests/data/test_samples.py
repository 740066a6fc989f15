"""samples.py, pixels.py: the canonical layout comes back as written; other people's Parquet is read or refused."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ae_pipeline.data import samples as samples_module
from ae_pipeline.data.pixels import DTYPES, SampleSpec, to_numpy
from ae_pipeline.data.sample_schema import METADATA_KEY
from ae_pipeline.data.samples import SampleSet, ShardWriter
from ae_pipeline.errors import DataError

SPEC = SampleSpec((2, 3), "uint8")
FLOATS = SampleSpec((2, 3), "float32")
IDS = pa.schema([pa.field("id", pa.int64(), nullable=False)])


def pixels_of(rows, spec=SPEC, seed=0):
    random = np.random.default_rng(seed)
    if spec.dtype == "float32":
        return random.normal(size=(rows, *spec.shape)).astype(np.float32)
    limits = np.iinfo(spec.dtype)
    return random.integers(limits.min, limits.max, (rows, *spec.shape), spec.dtype, endpoint=True)


def write_canonical(path, pixels, spec=SPEC, **options):
    with ShardWriter(path, IDS, spec, **options) as writer:
        writer.write(pa.table({"id": np.arange(len(pixels))}, schema=IDS), pixels)


def write_user_file(path, pixels, row_group_rows=5, **columns):
    pq.write_table(pa.table({**columns, "pixels": pixels}), path, row_group_size=row_group_rows)
    return path


def refused(path, spec=SPEC):
    """What reading all rows is refused with."""
    with pytest.raises(DataError) as caught:
        SampleSet.open(path, spec).load()
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- the canonical layout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 2, 3)], ids=str)
def test_the_canonical_layout_comes_back_as_written(tmp_path, dtype, shape):
    spec = SampleSpec(shape, dtype)
    pixels = pixels_of(50, spec)
    write_canonical(tmp_path / "part.parquet", pixels, spec, row_group_rows=16)
    samples = SampleSet.open(tmp_path, spec)
    block = samples.load()
    assert samples.spec == spec
    assert samples.nbytes == pixels.nbytes
    assert block.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(block.pixels, pixels)
    assert block.attributes.column("id").to_pylist() == list(range(50))


def test_the_canonical_layout_is_the_documented_one(tmp_path):
    spec = SampleSpec((2, 2), "int16")
    write_canonical(tmp_path / "part.parquet", np.array([[[1, -2], [3, 256]]], np.int16), spec)
    table = pq.read_table(tmp_path / "part.parquet")
    assert table.schema.names == ["id", "pixels"]
    assert table.schema.field("pixels").type == pa.binary(8)
    assert table.column("pixels")[0].as_py() == bytes([1, 0, 0xFE, 0xFF, 3, 0, 0, 1])
    stated = json.loads(table.schema.metadata[METADATA_KEY])
    assert stated == {"format": 1, "shape": [2, 2], "dtype": "int16"}


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    with ShardWriter(tmp_path / "part.parquet", IDS, SPEC) as writer:
        writer.write(pa.table({"id": [0]}, schema=IDS), pixels_of(1))
    with (
        pytest.raises(pa.ArrowInvalid),
        ShardWriter(tmp_path / "other.parquet", IDS, SPEC) as writer,
    ):
        writer.write(pa.table({"id": [0, 1]}, schema=IDS), pixels_of(1))
    assert [file.name for file in tmp_path.iterdir()] == ["part.parquet"]


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((), "uint8", "1 to 8 dimensions of at least 1"),
        ((0, 3), "uint8", "1 to 8 dimensions of at least 1"),
        ((3,), "float64", "dtype float64"),
        ((1,) * 9, "uint8", "1 to 8 dimensions of at least 1"),
        ((1 << 20, 1 << 20, 1 << 24), "uint8", "at most"),
    ],
)
def test_a_shape_or_type_that_is_not_supported_is_refused(shape, dtype, reason):
    with pytest.raises(DataError, match=reason):
        SampleSpec(shape, dtype)


# --- other people's Parquet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.uint8()),
        pa.list_(pa.int64()),
        pa.list_(pa.float64()),
        pa.large_list(pa.uint8()),
        pa.list_(pa.int32(), 6),
        pa.binary(),
        pa.large_binary(),
        pa.binary(6),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_id", [True, False], ids=["id", "no id"])
def test_pixels_are_read_as_lists_and_as_bytes_with_and_without_id(tmp_path, kind, with_id):
    pixels = pixels_of(23)
    values = [row.tobytes() if "binary" in str(kind) else row.ravel().tolist() for row in pixels]
    names = [f"row-{number}" for number in range(23)]
    columns = {"label": range(23), **({"id": names} if with_id else {})}
    write_user_file(tmp_path / "a.parquet", pa.array(values, kind), **columns)
    block = SampleSet.open(tmp_path / "a.parquet", SPEC).load()
    np.testing.assert_array_equal(block.pixels, pixels)
    assert block.pixels.dtype == np.uint8
    assert block.attributes.schema.names == ["id", "label"]
    assert block.attributes.column("id").to_pylist() == (names if with_id else list(range(23)))
    assert block.attributes.column("label").to_pylist() == list(range(23))


@pytest.mark.parametrize("kind", [pa.binary(6), pa.binary(), pa.list_(pa.uint8()), pa.list_(pa.uint8(), 6)], ids=str)
def test_pixels_are_read_from_a_slice_of_a_column(tmp_path, kind):
    pixels = pixels_of(10)
    values = [row.tobytes() if "binary" in str(kind) else row.ravel().tolist() for row in pixels]
    column = pa.chunked_array([pa.array(values, kind)])
    np.testing.assert_array_equal(
        to_numpy(column.slice(3, 4), SPEC, tmp_path, pa.chunked_array([range(4)])), pixels[3:7]
    )


def test_row_numbers_are_ids_over_all_files_and_blocks(tmp_path):
    for name, rows in (("b", 7), ("a", 12)):
        write_user_file(tmp_path / f"{name}.parquet", pa.array([bytes(6)] * rows), label=[name] * rows)
    samples = SampleSet.open(tmp_path, SPEC)
    ids = [
        number
        for shard in samples.shards
        for block in samples.blocks(shard, 5)
        for number in block.attributes.column("id").to_pylist()
    ]
    assert ids == list(range(19))
    assert samples.load().attributes.column("label").to_pylist() == ["a"] * 12 + ["b"] * 7


def test_floats_are_read_from_doubles_and_a_pandas_frame_is_a_data_set(tmp_path):
    pixels = pixels_of(9, FLOATS)
    frame = pd.DataFrame({"pixels": [row.ravel().astype(float) for row in pixels], "label": list("abcdefghi")})
    frame.iloc[2:].to_parquet(tmp_path / "frame.parquet")
    block = SampleSet.open(tmp_path / "frame.parquet", FLOATS).load()
    np.testing.assert_array_equal(block.pixels, pixels[2:])
    assert block.attributes.column("label").to_pylist() == list("cdefghi")


GOOD = [bytes(6)] * 3
UNUSABLE = {
    "bytes of another size": ([*GOOD, bytes(5)], "rows have 5 to 6 bytes, expected 6 for uint8 2x3: 1 row (id 3)"),
    "fixed bytes of another size": (pa.array([bytes(5)], pa.binary(5)), "5 bytes per row, expected 6"),
    "a shorter list": ([[1] * 6, [1] * 5], "rows have 5 to 6 values, expected 6 for uint8 2x3: 1 row (id 1)"),
    "fixed lists of another size": (pa.array([[1] * 12], pa.list_(pa.uint8(), 12)), "rows have 12 values, expected 6"),
    "lists of too many lists": (
        [[[1] * 2] * 3],
        "lists of 3 lists at depth 1, expected 2 lists for uint8 2x3, in 1 row (id 0)",
    ),
    "a short list in a list": (
        [[[1] * 3] * 2, [[1] * 3, [1] * 2]],
        "lists of 2 to 3 values at depth 2, expected 3 values for uint8 2x3, in 1 row (id 1)",
    ),
    "a list in a list that is null": (
        [[[1] * 3, None], [[1] * 3] * 2],
        "has null at depth 2, expected 3 values for uint8 2x3, in 1 row (id 0)",
    ),
    "lists nested too deeply": (
        [[[[1]] * 3] * 2],
        "has lists in lists, 3 deep, expected 2 for uint8 2x3, or one list of 6",
    ),
    "a row without pixels": ([*GOOD, None], "no pixels in 1 row (id 3); remove them first"),
    "a value that is null": ([[1] * 6, [1] * 5 + [None]], "1 values in `pixels` are missing"),
    "a value out of range": ([[1] * 5 + [256]], "int64 values that do not fit uint8"),
    "a fraction": ([[1] * 5 + [0.5]], "double values that do not fit uint8"),
    "text": (["abcdef"], "is of type string, expected binary or a list of numbers"),
    "numbers": ([1, 2], "is of type int64, expected binary or a list of numbers"),
    "no rows": (pa.array([], pa.binary()), "holds no rows; expected at least one"),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_pixels_that_do_not_fit_are_refused_by_file_and_reason(tmp_path, how):
    pixels, reason = UNUSABLE[how]
    assert reason in refused(write_user_file(tmp_path / "user.parquet", pixels))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_no_finite_floats_are_counted_and_refused(tmp_path, value):
    path = write_user_file(tmp_path / "user.parquet", [[0.0] * 6, [0.0, value] * 3, [value] * 6])
    reason = "pixels of 2 rows (id 1, 2) are NaN, infinite or beyond float32; repair them first"
    assert reason in refused(path, FLOATS)


def test_a_column_that_is_missing_or_there_twice_is_named(tmp_path):
    path = tmp_path / "user.parquet"
    pq.write_table(pa.table({"image": GOOD, "label": [1, 2, 3]}), path)
    assert "has no column `pixels` (found: image, label); rename the one" in refused(path)
    pq.write_table(pa.Table.from_arrays([pa.array(GOOD)] * 2, names=["pixels", "pixels"]), path)
    assert "has several columns named pixels" in refused(path)


def test_what_is_no_data_set_is_refused(tmp_path):
    assert "no data set at" in refused(tmp_path / "nowhere")
    assert "no Parquet files in" in refused(tmp_path)
    (tmp_path / "text.parquet").write_text("id,pixels\n")
    assert "is not a readable Parquet file" in refused(tmp_path / "text.parquet")


def test_files_of_one_data_set_must_have_one_schema(tmp_path):
    write_user_file(tmp_path / "a.parquet", GOOD, label=[1, 2, 3])
    other = write_user_file(tmp_path / "b.parquet", GOOD, label=["1", "2", "3"])
    which = r"has other columns than .*a\.parquet: `label` is string, and int64 in the other"
    with pytest.raises(DataError, match=f"{re.escape(str(other))} {which}"):
        SampleSet.open(tmp_path, SPEC)


def test_a_column_that_one_file_has_twice_is_a_difference(tmp_path):
    write_user_file(tmp_path / "a.parquet", GOOD, label=[1, 2, 3])
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.append_column("label", table["label"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="`label` is int64 and int64, and int64 in the other; give all files the same"):
        SampleSet.open(tmp_path, SPEC)


def test_files_of_one_data_set_must_state_one_shape(tmp_path):
    write_canonical(tmp_path / "a.parquet", pixels_of(3))
    write_canonical(tmp_path / "b.parquet", pixels_of(3).reshape(3, 3, 2), SampleSpec((3, 2), "uint8"))
    with pytest.raises(
        DataError, match=r"b\.parquet holds samples of uint8 3x2, expected uint8 2x3 as .*a\.parquet has"
    ):
        SampleSet.open(tmp_path)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (None, "does not say the shape of its samples"),
        (b"{", "metadata is damaged"),
        (b'{"format": 1, "shape": null, "dtype": "uint8"}', "metadata is damaged"),
        (b'{"format": 2, "shape": [2, 3], "dtype": "uint8"}', "format 2, expected 1; use a newer ae-pipeline"),
        (b'{"format": 1, "shape": [2, 3], "dtype": "float64"}', "dtype float64"),
        (b'{"format": 1, "shape": [99999999999, 99999999999], "dtype": "uint8"}', "at most"),
        (b'{"format": 1, "shape": [2, 4], "dtype": "uint8"}', "samples of uint8 2x4, expected uint8 2x3"),
    ],
)
def test_the_stated_shape_is_checked(tmp_path, stated, reason):
    table = pa.table({"pixels": GOOD})
    path = tmp_path / "user.parquet"
    pq.write_table(table if stated is None else table.replace_schema_metadata({METADATA_KEY: stated}), path)
    assert reason in refused(path, SPEC if b"4]" in (stated or b"") else None)


# --- shards, blocks, digests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_group_rows", [1, 3, 10, 40, 100])
@pytest.mark.parametrize("rows", [4, 10, 64])
def test_blocks_are_cut_the_same_whatever_the_row_groups(tmp_path, row_group_rows, rows):
    pixels = pixels_of(40)
    write_canonical(tmp_path / "a.parquet", pixels, row_group_rows=row_group_rows)
    samples = SampleSet.open(tmp_path)
    blocks = list(samples.blocks(samples.shards[0], rows))
    assert [len(block.pixels) for block in blocks] == [min(rows, 40 - start) for start in range(0, 40, rows)]
    assert [block.attributes.num_rows for block in blocks] == [len(block.pixels) for block in blocks]
    np.testing.assert_array_equal(np.concatenate([block.pixels for block in blocks]), pixels)
    assert [number for block in blocks for number in block.attributes.column("id").to_pylist()] == list(range(40))


def test_a_big_file_is_several_shards_cut_between_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(samples_module, "SHARD_ROWS", 25)
    pixels = pixels_of(64)
    write_user_file(tmp_path / "big.parquet", [row.tobytes() for row in pixels], row_group_rows=10)
    samples = SampleSet.open(tmp_path / "big.parquet", SPEC)
    assert [(shard.row_groups, shard.rows) for shard in samples.shards] == [((0, 1, 2), 30), ((3, 4, 5), 30), ((6,), 4)]
    (block,) = samples.blocks(samples.shards[1], 100)
    np.testing.assert_array_equal(block.pixels, pixels[30:60])
    assert block.attributes.column("id").to_pylist() == list(range(30, 60))
    np.testing.assert_array_equal(samples.load().pixels, pixels)
    assert len({samples.shard_digest(shard) for shard in samples.shards}) == 3


def test_digests_change_with_content_and_shards_are_known_by_content_alone(tmp_path):
    pixels = pixels_of(20)
    changed = pixels.copy()
    changed[13, 1, 2] ^= 1
    for folder, values in (("one", pixels), ("same", pixels), ("changed", changed)):
        write_canonical(tmp_path / folder / "a.parquet", values)
    write_canonical(tmp_path / "renamed" / "b.parquet", pixels)
    sets = {name: SampleSet.open(tmp_path / name) for name in ("one", "same", "changed", "renamed")}
    assert sets["one"].digest == sets["same"].digest
    assert len({samples.digest for samples in sets.values()}) == 3
    shard_digests = {name: samples.shard_digest(samples.shards[0]) for name, samples in sets.items()}
    assert shard_digests["one"] == shard_digests["renamed"] != shard_digests["changed"]


def test_a_flipped_bit_in_a_page_is_reported_as_damage(tmp_path):
    path = tmp_path / "a.parquet"
    write_canonical(path, pixels_of(500))
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    assert re.search(r"a\.parquet is damaged: .*; make or fetch it again", refused(path, None))
