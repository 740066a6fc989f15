"""preparation.py: splits are disjoint, complete, seeded, and the same bytes every time."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ae_pipeline.data.pixels import RawSplit
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import DataError
from ae_pipeline.files import sha256_file
from ae_pipeline.params import PrepareParams, SourceParams
from ae_pipeline.sources import build_source
from ae_pipeline.sources.mnist import Mnist


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """What the source `synthetic` reads: 90 train rows, 25 test rows."""
    raw = tmp_path_factory.mktemp("raw")
    source = build_source(
        SourceParams.model_validate({"name": "synthetic", "synthetic": {"train_rows": 90, "test_rows": 25}})
    )
    source.fetch(raw)
    return source.read(raw)


def ids_of(samples):
    return samples.load().attributes.column("id").to_pylist()


def digests(folder):
    return {str(file.relative_to(folder)): sha256_file(file) for file in sorted(folder.rglob("*.parquet"))}


def test_splits_have_the_sizes_asked_for_and_share_no_row(splits, tmp_path):
    written = write_splits(splits, tmp_path, PrepareParams(validation_fraction=0.2))
    assert {name: samples.rows for name, samples in written.items()} == {"train": 72, "validation": 18, "test": 25}
    train, validation, test = (ids_of(written[name]) for name in ("train", "validation", "test"))
    assert sorted(train + validation) == list(range(90))
    assert test == list(range(90, 115))
    assert train == sorted(train)
    assert validation == sorted(validation)


def test_every_row_keeps_its_pixels_and_label(splits, tmp_path):
    for name, samples in write_splits(splits, tmp_path, PrepareParams()).items():
        source = splits["test" if name == "test" else "train"]
        block = samples.load()
        rows = np.array(block.attributes.column("id")) - source.first_id
        np.testing.assert_array_equal(block.pixels, source.pixels[rows])
        np.testing.assert_array_equal(block.attributes.column("label"), source.attributes["label"][rows])
        assert samples.spec.describe() == "uint8 12x12"


def test_one_seed_gives_the_same_bytes_and_another_one_other_rows(splits, tmp_path):
    for folder, seed in (("one", 0), ("again", 0), ("other", 1)):
        write_splits(splits, tmp_path / folder, PrepareParams(seed=seed))
    assert digests(tmp_path / "one") == digests(tmp_path / "again")
    one, other = (ids_of(SampleSet.open(tmp_path / folder / "validation")) for folder in ("one", "other"))
    assert one != other
    assert len(one) == len(other)
    test = "test/part-00000.parquet"
    assert digests(tmp_path / "one")[test] == digests(tmp_path / "other")[test]


def test_shards_are_cut_where_asked_and_hold_the_same_rows(splits, tmp_path):
    one = write_splits(splits, tmp_path / "one", PrepareParams())["train"]
    many = write_splits(splits, tmp_path / "many", PrepareParams(rows_per_shard=30))["train"]
    assert [file.name for file in many.files] == [f"part-{number:05d}.parquet" for number in range(3)]
    assert [shard.rows for shard in many.shards] == [30, 30, 21]
    assert many.load().attributes == one.load().attributes
    np.testing.assert_array_equal(many.load().pixels, one.load().pixels)


def test_big_endian_and_signed_sources_become_little_endian_samples(tmp_path):
    pixels = np.arange(-12, 12, dtype=">i2").reshape(6, 2, 2) * 1000
    split = RawSplit(pixels, {"weight": np.arange(6, dtype=">f4")}, 0)
    written = write_splits({"train": split, "test": split}, tmp_path, PrepareParams())["test"]
    assert written.spec.dtype == "int16"
    np.testing.assert_array_equal(written.load().pixels, pixels)
    assert written.load().attributes.column("weight").to_pylist() == [0, 1, 2, 3, 4, 5]


def test_a_split_that_would_be_empty_is_refused_before_anything_is_written(tmp_path):
    split = RawSplit(np.zeros((1, 2, 2), np.uint8), {}, 0)
    with pytest.raises(DataError, match=r"has 1 train row, expected at least 2: .*; name more data"):
        write_splits({"train": split, "test": split}, tmp_path, PrepareParams(validation_fraction=0.5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fraction", "validation"), [(0.1, 1), (0.5, 2), (0.95, 3)])
def test_of_few_rows_each_split_gets_one_at_least(tmp_path, fraction, validation):
    split = RawSplit(np.zeros((4, 2, 2), np.uint8), {}, 0)
    written = write_splits({"train": split, "test": split}, tmp_path, PrepareParams(validation_fraction=fraction))
    assert {name: samples.rows for name, samples in written.items()} == {
        "train": 4 - validation, "validation": validation, "test": 4,
    }  # fmt: skip


def test_real_mnist_is_split_as_documented(mnist_raw, tmp_path):
    splits = Mnist().read(mnist_raw)
    few = {
        name: RawSplit(split.pixels[:300], {"label": split.attributes["label"][:300]}, split.first_id)
        for name, split in splits.items()
    }
    written = write_splits(few, tmp_path, PrepareParams())
    assert {name: samples.rows for name, samples in written.items()} == {"train": 270, "validation": 30, "test": 300}
    test = written["test"].load()
    assert test.attributes.column("id").to_pylist() == list(range(60_000, 60_300))
    assert test.attributes.column("label").to_pylist()[:5] == [7, 2, 1, 0, 4]
    np.testing.assert_array_equal(test.pixels, splits["test"].pixels[:300])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_rows_that_are_written_no_longer_take_memory(tmp_path):
    """A map's pages stay in memory once they were read, which grows with the rows; the kernel tells how many do."""
    rows = np.memmap(tmp_path / "rows", np.uint8, "w+", shape=(1000, 128, 128))
    rows.flush()
    split = RawSplit(np.memmap(tmp_path / "rows", np.uint8, "r", shape=rows.shape), {}, 0)
    del rows
    written = write_splits({"train": split, "test": split}, tmp_path / "out", PrepareParams())
    assert written["test"].rows == 1000
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags")
    (found,) = (text for text in maps if str(tmp_path / "rows") in text)
    resident = next(line for line in found.splitlines() if line.startswith("Rss:"))
    assert int(resident.split()[1]) < 1 << 10, resident  # KiB, of 16,000
