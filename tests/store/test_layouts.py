"""What every physical layout of the latent column must do, run on each of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.entries import LatentEntry
from ae_pipeline.store.format.layouts import LATENT, LAYOUTS, NAMES


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def latents_of(rows, size):
    return np.random.default_rng(rows + size).integers(-128, 128, (rows, size), np.int8)


def test_params_and_manifest_know_every_layout():
    for model in (EncodeParams, LatentEntry):
        assert model.model_json_schema()["properties"]["layout"]["enum"] == list(NAMES)


@pytest.mark.parametrize(("rows", "size"), [(0, 3), (1, 1), (7, 3), (1000, 32)])
def test_latents_come_back(layout, rows, size):
    latents = latents_of(rows, size)
    array = layout.to_arrow(latents)
    back = layout.to_numpy(array, size)
    assert array.type == layout.arrow_type(size)
    assert back.dtype == np.int8
    assert np.array_equal(back, latents)


@pytest.mark.parametrize(("start", "length"), [(0, 2), (3, 4), (9, 1), (5, 0)])
def test_a_slice_gives_its_own_rows(layout, start, length):
    latents = latents_of(10, 3)
    sliced = layout.to_arrow(latents).slice(start, length)
    assert np.array_equal(layout.to_numpy(sliced, 3), latents[start : start + length])


def test_latents_that_are_not_contiguous_come_back(layout):
    latents = latents_of(10, 8)[::3, ::2]
    assert np.array_equal(layout.to_numpy(layout.to_arrow(latents), 4), latents)


def test_latents_come_back_from_parquet(layout, tmp_path):
    latents = latents_of(100, 5)
    table = pa.table({LATENT: layout.to_file(layout.to_arrow(latents))})
    assert table.schema.field(LATENT).type == layout.file_type(5)
    pq.write_table(table, tmp_path / "latents.parquet", use_dictionary=list(layout.dictionary_columns))
    column = pq.read_table(tmp_path / "latents.parquet").column(LATENT).combine_chunks()
    assert np.array_equal(layout.to_numpy(layout.from_file(column, 5), 5), latents)


@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
def test_a_row_group_comes_back_as_it_was(layout, rows):
    group = layout.to_arrow(latents_of(rows + 5, 3)).slice(2, rows)
    assert layout.to_file(group).type == layout.file_type(3)
    assert len(layout.to_file(group)) == rows
    assert layout.from_file(layout.to_file(group), 3).equals(group)


def test_the_dictionary_columns_are_real_ones(layout, tmp_path):
    group = layout.to_file(layout.to_arrow(latents_of(4, 2)))
    pq.write_table(pa.table({LATENT: group}), tmp_path / "latents.parquet")
    column = pq.ParquetFile(tmp_path / "latents.parquet").metadata.row_group(0).column(0).path_in_schema
    assert set(layout.dictionary_columns) <= {column}


def test_rows_of_another_length_are_refused(layout):
    with pytest.raises(ValueError, match="other lengths than 4"):
        layout.to_numpy(layout.to_arrow(latents_of(8, 3)), 4)


def test_rows_that_are_null_are_refused(layout):
    array = pa.concat_arrays([layout.to_arrow(latents_of(2, 3)), pa.nulls(1, layout.arrow_type(3))])
    with pytest.raises(ValueError, match="other lengths than 3"):
        layout.to_numpy(array, 3)


@pytest.mark.parametrize(
    "rows",
    [[[1, 2], [3]], [[1, 2, 3], [4]], [[1, 2], None, [3, 4]], [[1, None], [2, 3]]],
    ids=["short row", "long and short row", "null row", "null value"],
)
def test_ragged_lists_are_refused(rows):
    with pytest.raises(ValueError, match="2"):
        LAYOUTS["list"].to_numpy(pa.array(rows, pa.list_(pa.int8())), 2)
