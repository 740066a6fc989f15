"""training/batches.py: every row once per epoch, in memory or streamed, whatever its type."""

import math

import numpy as np
import pytest
import torch

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.pixels import DTYPES, RawSplit
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.params import Params, PrepareParams
from ae_pipeline.training import batches as training_data
from ae_pipeline.training.batches import MemoryRows, StreamedRows, fit_scaling, open_rows
from ae_pipeline.training.build import build_codec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train(synthetic_prepared):
    """540 rows in 3 shards."""
    return SampleSet.open(synthetic_prepared / "train")


@pytest.fixture(scope="module")
def pixels(train):
    return train.load().pixels


@pytest.mark.parametrize("batch_size", [7, 64, 180, 1000])
@pytest.mark.parametrize("kind", ["memory", "stream", "stream through small windows"])
def test_an_epoch_visits_every_row_once_in_an_order_of_its_own(train, pixels, monkeypatch, batch_size, kind):
    if kind.endswith("windows"):
        monkeypatch.setattr(training_data, "_SHUFFLE_ROWS", 100)
        monkeypatch.setattr(training_data, "_BLOCK_ROWS", 30)
    rows = MemoryRows(pixels, CPU) if kind == "memory" else StreamedRows(train, CPU)
    generator = torch.Generator().manual_seed(0)
    first, second = (list(rows.shuffled(batch_size, generator)) for _ in range(2))
    again = list(rows.shuffled(batch_size, torch.Generator().manual_seed(0)))
    wanted = sorted(row.tobytes() for row in pixels)
    for epoch in (first, second):
        assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (math.ceil(540 / batch_size) - 1)
        assert sorted(row.numpy().tobytes() for batch in epoch for row in batch) == wanted
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(again))
    np.testing.assert_array_equal(torch.cat(list(rows.in_order(batch_size))).numpy(), pixels)


def test_streaming_mixes_shards_with_each_other_and_rows_within_a_window(train, pixels, monkeypatch):
    monkeypatch.setattr(training_data, "_SHUFFLE_ROWS", 100)
    monkeypatch.setattr(training_data, "_BLOCK_ROWS", 100)
    number_of = {row.tobytes(): number for number, row in enumerate(pixels)}
    generator, rows = torch.Generator().manual_seed(0), StreamedRows(train, CPU)
    first_windows = [
        [number_of[row.numpy().tobytes()] for row in next(iter(rows.shuffled(100, generator)))] for _ in range(12)
    ]
    assert {min(window) // 200 for window in first_windows} == {0, 1, 2}
    assert all(sorted(window) == list(range(min(window), min(window) + 100)) for window in first_windows)
    assert not [window for window in first_windows if window == sorted(window)]


def test_auto_takes_memory_where_the_split_fits_and_streams_where_it_does_not(train, pixels, monkeypatch):
    assert isinstance(open_rows(train, "auto", CPU), MemoryRows)
    assert isinstance(open_rows(train, "stream", CPU), StreamedRows)
    monkeypatch.setattr(training_data, "_MEMORY_SHARE", 1e-9)
    assert isinstance(open_rows(train, "auto", CPU), StreamedRows)
    assert isinstance(open_rows(train, "memory", CPU), MemoryRows)


@pytest.mark.parametrize("mode", ["memory", "stream"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_of_every_type_are_scaled_and_trained_on(tiny_params, tmp_path, dtype, mode):
    random = np.random.default_rng(0)
    values = random.random((200, 2)) @ random.random((2, 9)) / 2
    if dtype == "float32":
        pixels = (values * 40 - 10).astype(dtype).reshape(200, 3, 3)
        limits = pixels.min(), pixels.max()
    else:
        limits = np.iinfo(dtype).min, np.iinfo(dtype).max
        pixels = (limits[0] + values * (limits[1] - limits[0])).astype(dtype).reshape(200, 3, 3)
    split = RawSplit(pixels, {}, 0)
    samples = write_splits({"train": split, "test": split}, tmp_path / "data", PrepareParams())["test"]
    scaling = fit_scaling(samples)
    assert (scaling.offset, scaling.offset + scaling.scale) == pytest.approx(limits)
    values = tiny_params.model_dump()
    values["train"] |= {"data": mode, "latent_size": 2}
    params = Params.model_validate(values)
    header, result = build_codec(samples, samples, params, tmp_path / "codec", {}, lambda epoch: None)
    assert (header.scaling, header.spec) == (scaling, samples.spec)
    assert result.best.validation_loss < 0.7 * result.history[0].validation_loss


def test_constant_floats_have_a_scale(tmp_path):
    split = RawSplit(np.full((4, 2, 2), 3.5, np.float32), {}, 0)
    samples = write_splits({"train": split, "test": split}, tmp_path, PrepareParams(validation_fraction=0.5))["test"]
    assert fit_scaling(samples) == Scaling(offset=3.5, scale=1.0)
