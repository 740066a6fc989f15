"""Same bytes tomorrow: a store is a function of data and codec, not of threads, batches or the order of work."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import BLOCK_ROWS
from ae_pipeline.codec.devices import one_torch_thread
from ae_pipeline.models.conv import Options as ConvOptions
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.models.patches import Options as PatchOptions
from ae_pipeline.store import executors
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing import shards as shard_jobs

ACTIVATIONS = DenseOptions.model_fields["activation"].annotation.__args__
SHAPES = {"dense": [(1,), (5, 3), (28, 28)], "conv": [(5, 3), (14, 14), (7, 8, 3)], "patches": [(5, 3), (7, 8, 3)]}
WIDTHS = {"dense": [1, 7, 33, 300], "conv": [1, 3, 16], "patches": [1, 16]}
NETWORKS = [(name, shape, width) for name, shapes in SHAPES.items() for shape, width in product(shapes, WIDTHS[name])]


def codec_of(folder, name, shape, width, activation="relu", latent_size=10):
    """A codec of floats, which are decoded unrounded and so show every bit of the sums, with all levels."""
    if name == "dense":
        options = DenseOptions(hidden_sizes=[width], activation=activation)
    elif name == "conv":
        options = ConvOptions(channels=[width, width + 1], activation=activation)
    else:
        options = PatchOptions(encoder_channels=[width], decoder_channels=[width + 1, width], activation=activation)
    return random_codec(
        folder, shape, "float32", model_name=name, latent_size=latent_size, levels=256, options=dict(options)
    )


def coded(codec, pixels):
    """Latents, errors, decoded pixels, and pixels decoded from unrounded latents, of at most a block of rows."""
    with one_torch_thread():
        latents, error = codec.encode_block(pixels, measure=True)
        return latents, error, codec.decode_block(latents), codec.reconstruct_unquantised(pixels)


def rows_are_equal(found, wanted, places):
    return all(np.array_equal(one, other[places]) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("name", "shape", "width"), NETWORKS)
def test_the_place_of_a_row_in_its_block_does_not_matter(name, shape, width, tmp_path):
    codec = codec_of(tmp_path / "codec", name, shape, width)
    pixels = random_pixels((BLOCK_ROWS, *shape), "float32", seed=1)
    wanted = coded(codec, pixels)
    random = np.random.default_rng(0)
    orders = [np.arange(BLOCK_ROWS)[::-1], random.permutation(BLOCK_ROWS), np.roll(np.arange(BLOCK_ROWS), 1)]
    # The last block is padded: other rows around a row, and none.
    orders += [np.arange(5, BLOCK_ROWS), random.permutation(BLOCK_ROWS)[:1000], np.array([700]), np.array([3, 700, 3])]
    for order in orders:
        assert rows_are_equal(coded(codec, np.ascontiguousarray(pixels[order])), wanted, order)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["dense", "conv", "patches"])
def test_the_place_does_not_matter_for_any_activation(name, activation, tmp_path):
    codec = codec_of(tmp_path / "codec", name, (9, 7), 5, activation)
    pixels = random_pixels((BLOCK_ROWS, 9, 7), "float32", seed=1)
    order = np.random.default_rng(0).permutation(BLOCK_ROWS)[:1001]
    assert rows_are_equal(coded(codec, pixels[order]), coded(codec, pixels), order)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "conv", "patches"])
def test_the_number_of_threads_that_torch_has_does_not_matter(name, tmp_path):
    codec = codec_of(tmp_path / "codec", name, (20, 19), 40)
    pixels = random_pixels((1500, 20, 19), "float32", seed=1)
    wanted = codec.encode(pixels), codec.decode(codec.encode(pixels))
    before = torch.get_num_threads()
    try:
        for threads in (2, 5, 7, 16):
            torch.set_num_threads(threads)
            latents = codec.encode(pixels)
            assert rows_are_equal((latents, codec.decode(latents)), wanted, slice(None))
            assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(3) as pool:
            for found in pool.map(lambda _: codec.decode(wanted[0]), range(6)):
                assert np.array_equal(found, wanted[1])
    finally:
        torch.set_num_threads(before)


def test_code_that_forgets_about_threads_is_told(tmp_path):
    codec = random_codec(tmp_path / "codec", latent_size=6)  # in floats
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(AssertionError, match="one_torch_thread"):
            codec.decode_block(np.zeros((3, 6), np.int8))
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A codec, and three shards of 1100 rows each; floats, of which the errors show every bit."""
    folder = tmp_path_factory.mktemp("determinism")
    codec_of(folder / "codec", "dense", (12, 11), 65)
    for shard in range(3):
        ids = list(range(shard * 1100, shard * 1100 + 1100))
        write_rows(folder / "rows" / f"{shard}.parquet", random_pixels((1100, 12, 11), "float32", shard), id=ids)
    encode(folder / "rows", folder / "codec", folder / "store", row_group_rows=700)
    return folder


def test_a_store_written_by_other_threads_workers_and_orders_is_the_same_store(data, tmp_path, monkeypatch):
    wanted = bytes_of(data / "store")
    before = torch.get_num_threads()
    try:
        for threads, workers in ((1, 1), (3, 2), (7, 5)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(executors, "cpu_count", lambda workers=workers: workers)
            encode(data / "rows", data / "codec", tmp_path / "store", row_group_rows=700)
            assert bytes_of(tmp_path / "store") == wanted
            shutil.rmtree(tmp_path / "store")
    finally:
        torch.set_num_threads(before)
    run_jobs = shard_jobs.run_jobs
    monkeypatch.setattr("ae_pipeline.store.writing.commit.run_jobs", lambda jobs, *more: run_jobs(jobs[::-1], *more))
    encode(data / "rows", data / "codec", tmp_path / "store", row_group_rows=700)
    assert bytes_of(tmp_path / "store") == wanted


@pytest.mark.slow
def test_a_store_written_by_another_process_with_more_threads_is_the_same_store(data, tmp_path):
    script = (
        "import sys; from pathlib import Path; from handmade import encode\n"
        "data, target = map(Path, sys.argv[1:])\n"
        "encode(data / 'rows', data / 'codec', target, row_group_rows=700)\n"
    )
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS", "OMP_THREAD_LIMIT")
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])])
    environment = {**os.environ, **dict.fromkeys(names, "7"), "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, data, tmp_path / "store"], env=environment, check=True)
    assert bytes_of(tmp_path / "store") == bytes_of(data / "store")


@pytest.mark.parametrize("cut", [{"row_group_size": 100}, {"row_group_size": 1024}, {"files": 7}])
def test_how_the_input_is_cut_does_not_matter_for_the_values(cut, data, tmp_path):
    everything = pq.read_table(data / "rows")
    files = cut.get("files", 1)
    (tmp_path / "rows").mkdir()
    for number in range(files):
        start, stop = (len(everything) * edge // files for edge in (number, number + 1))
        target = tmp_path / "rows" / f"{number}.parquet"
        pq.write_table(everything.slice(start, stop - start), target, row_group_size=cut.get("row_group_size", 10_000))
    encode(tmp_path / "rows", data / "codec", tmp_path / "store", row_group_rows=99)
    found, wanted = (
        [table.to_pylist() for table in LatentStore.open(store).scan()]
        for store in (tmp_path / "store", data / "store")
    )
    assert [row for table in found for row in table] == [row for table in wanted for row in table]
