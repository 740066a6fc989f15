"""training/batches.py: every row once per epoch, in memory or streamed, whatever its type."""

import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.pixels import DTYPES, RawSplit
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import DataError
from ae_pipeline.params import Params, PrepareParams, TrainParams
from ae_pipeline.training import streaming
from ae_pipeline.training.batches import MemoryRows, fit_scaling
from ae_pipeline.training.build import build_codec
from ae_pipeline.training.steps.course import Order
from ae_pipeline.training.streaming import StreamedRows, open_rows, plan_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train(synthetic_prepared):
    """540 rows in 3 shards."""
    return SampleSet.open(synthetic_prepared / "train")


@pytest.fixture(scope="module")
def pixels(train):
    return train.load().pixels


def opened(kind, train, pixels):
    return MemoryRows(pixels, CPU) if kind == "memory" else StreamedRows(train, CPU, kind)


@pytest.mark.parametrize("batch_size", [7, 64, 180, 1000])
@pytest.mark.parametrize("kind", ["memory", 540, 131, 14], ids="buffer of {}".format)
def test_an_epoch_visits_every_row_once_in_an_order_of_its_own(train, pixels, monkeypatch, batch_size, kind):
    monkeypatch.setattr(streaming, "_BLOCK_ROWS", 30)
    rows, generator = opened(kind, train, pixels), torch.Generator().manual_seed(0)
    first, second = (list(rows.shuffled(batch_size, generator)) for _ in range(2))
    again = list(rows.shuffled(batch_size, torch.Generator().manual_seed(0)))
    wanted = sorted(row.tobytes() for row in pixels)
    for epoch in (first, second):
        assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (math.ceil(540 / batch_size) - 1)
        assert sorted(row.numpy().tobytes() for batch in epoch for row in batch) == wanted
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(again))
    np.testing.assert_array_equal(torch.cat(list(rows.in_order(batch_size))).numpy(), pixels)


@pytest.mark.parametrize("kind", ["memory", 131], ids="buffer of {}".format)
def test_an_epoch_that_is_taken_up_goes_on_in_its_own_order_and_so_do_those_after_it(train, pixels, kind):
    rows, whole = opened(kind, train, pixels), Order(opened(kind, train, pixels), 64, seed=3)
    wanted = [torch.cat(list(whole.batches())) for _ in range(3)]
    order = Order(rows, 64, seed=3)
    list(order.batches())
    begun = [batch for batch, _ in zip(order.batches(), range(4), strict=False)]
    other = Order(rows, 64, seed=0)
    other.restore({**order.state(), "done": 4})
    assert torch.equal(torch.cat([*begun[:4], *other.batches()]), wanted[1])
    assert torch.equal(torch.cat(list(other.batches())), wanted[2])


def test_the_buffer_mixes_shards_and_rows_and_gives_out_what_was_read(train, pixels, monkeypatch):
    """Three shards of 200, 200 and 140 rows."""
    monkeypatch.setattr(streaming, "_BLOCK_ROWS", 30)
    number_of = {row.tobytes(): number for number, row in enumerate(pixels)}
    generator, rows = torch.Generator().manual_seed(0), StreamedRows(train, CPU, 200)
    first_shards = set()
    for _ in range(9):
        epoch = [number_of[row.numpy().tobytes()] for batch in rows.shuffled(20, generator) for row in batch]
        shards = [min(number // 200, 2) for number in epoch]
        first_shards.add(max(set(shards[:20]), key=shards[:20].count))
        # What comes out at place p was among the first 200 + p that were read.
        order = list(dict.fromkeys(sorted(range(3), key=shards.index)))
        numbers = [number for shard in order for number in range(200 * shard, min(200 * shard + 200, 540))]
        read = {number: place for place, number in enumerate(numbers)}
        assert all(read[number] < 200 + 20 + place for place, number in enumerate(epoch))
        assert len(set(shards[200:300])) > 1
        assert np.mean(np.diff(epoch) == 1) < 0.1
    assert first_shards == {0, 1, 2}


@pytest.mark.parametrize(
    ("data", "memory", "mode", "buffer"),
    [
        ("auto", None, "memory", 0),
        ("auto", 1e-4, "memory", 0),
        ("auto", 2e-5, "stream", 127),
        ("auto", 1e-9, "stream", 120),
        ("stream", None, "stream", 540),
        ("stream", 1.0, "stream", 540),
        ("memory", 1e-9, "memory", 0),
    ],
)
def test_auto_takes_memory_where_both_splits_fit_and_streams_where_they_do_not(train, data, memory, mode, buffer):
    """600 rows of 144 bytes; a place of the buffer takes 24 bytes more; it holds two batches at least."""
    params = TrainParams(data=data, memory=memory, batch_size=60)
    validation = train.only(train.shards[2])
    plan = plan_rows(train, validation, params, CPU)
    assert (plan.mode, plan.buffer_rows) == (mode, buffer)
    kind = MemoryRows if mode == "memory" else StreamedRows
    assert isinstance(open_rows(train, plan, CPU), kind)


def test_what_is_free_decides_where_no_setting_does(train, monkeypatch):
    monkeypatch.setattr(streaming, "_MEMORY_SHARE", 1e-9)
    plan = plan_rows(train, train, TrainParams(), CPU)
    assert plan.mode == "stream"
    assert plan.describe(train) == (
        "the train split is streamed: it and the validation split take 0.00 GiB, more than 0.00 GiB (0% of what is "
        "free); the shuffle buffer holds 540 of 540 rows (0.00 GiB) at a time"
    )


def test_files_that_lose_rows_while_they_are_streamed_are_named(train, tmp_path):
    shutil.copytree(train.files[0].parent, tmp_path / "train")
    samples = SampleSet.open(tmp_path / "train")
    path = samples.files[0]
    pq.write_table(pq.read_table(path)[:10], path)
    with pytest.raises(DataError, match=r"fewer rows than its files said"):
        list(StreamedRows(samples, CPU, 100).shuffled(20, torch.Generator().manual_seed(0)))


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
