"""Where values lie, what decides the scaling, and what a codec was not trained for: counted, and said."""

import numpy as np
import pytest
from handmade import random_codec, write_rows

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.idx import write_idx
from ae_pipeline.data.pixels import DTYPES
from ae_pipeline.data.value_range import RangeWatch, range_of, scaled_by
from ae_pipeline.params import Params
from ae_pipeline.training.batches import fit_scaling


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_and_percentiles_are_those_of_numpy(dtype, tmp_path):
    random = np.random.default_rng(0)
    pixels = np.clip(random.normal(60, 20, (5000, 3, 7)), 0, 127).astype(dtype)
    pixels[4321, 2, 6] = 127  # an end that no sample of rows need hold
    found = write_rows(tmp_path / "rows.parquet", pixels).measure_range()
    assert (found.minimum, found.maximum) == (pixels.min(), pixels.max())
    assert (found.low, found.high) == pytest.approx(np.quantile(pixels, [0.001, 0.999]))


def test_percentiles_of_many_rows_are_those_of_evenly_spaced_ones():
    """3 million values in blocks: every third row is sampled, wherever blocks begin; the ends are those of all."""
    pixels = np.arange(300_000, dtype=np.float32)[:, None] + np.linspace(0, 0.9, 10, dtype=np.float32)
    pixels[100_001] = -5e6
    blocks = [pixels[start : start + 777] for start in range(0, len(pixels), 777)]
    found = range_of(blocks, pixels.size)
    assert (found.minimum, found.maximum) == (-5e6, pixels.max())
    assert (found.low, found.high) == pytest.approx(np.quantile(np.delete(pixels, 100_001, 0), [0.001, 0.999]), abs=9)


@pytest.mark.parametrize(
    ("pixels", "warned"),
    [
        (np.random.default_rng(0).uniform(0, 0.73, (200, 8)).astype(np.float32), False),
        (np.random.default_rng(0).integers(0, 256, (200, 8)).astype(np.uint8), False),
        (np.random.default_rng(0).integers(0, 900, (200, 8)).astype(np.uint16), True),
        (np.random.default_rng(0).normal(0, 500, (200, 8)).astype(np.int16), True),
        (np.full((200, 8), 3.5, np.float32), False),
    ],
    ids=["float", "uint8", "dark uint16", "quiet int16", "constant"],
)
def test_values_that_use_little_of_the_scaling_are_warned_of(pixels, warned, tmp_path):
    samples = write_rows(tmp_path / "rows.parquet", pixels)
    found = samples.measure_range()
    scaling = fit_scaling(samples)
    assert scaled_by(samples.spec.dtype, found) == (scaling.offset, scaling.scale)
    assert bool(found.warnings("the data", scaling.offset, scaling.scale)) == warned


def test_one_outlier_is_named_with_the_range_of_the_others(tmp_path):
    pixels = np.random.default_rng(0).uniform(0, 0.73, (2000, 8)).astype(np.float32)
    pixels[1234, 5] = -9999
    found = write_rows(tmp_path / "rows.parquet", pixels).measure_range()
    (warning,) = found.warnings("train", *scaled_by("float32", found))
    assert "train has values from -9999 to 0.7" in warning
    assert "99.8% of them within 0.00" in warning
    assert "0.0073% of the range" in warning


# New data beside a codec's range.


def test_rows_outside_the_range_are_counted_once_each():
    watch = RangeWatch(-1.0, 3.0)
    watch.add(np.array([[-1, 2], [0, 1]], np.float32))
    assert watch.warnings("new") == []
    watch.add(np.array([[-1.5, 9], [0, 2.1], [0, 0]], np.float32))
    (warning,) = watch.warnings("new")
    assert "2 of 5 rows have values outside -1 to 2" in warning
    assert "found: -1.5 to 9" in warning


@pytest.fixture
def float_codec(tmp_path):
    """A codec for float rows from -3 to 5."""
    random_codec(tmp_path / "codec", (6,), "float32")
    return tmp_path / "codec"


def test_encode_and_append_say_how_many_rows_the_codec_was_not_trained_for(ae, float_codec, tmp_path):
    header = read_header(float_codec)
    pixels = np.random.default_rng(0).uniform(-2, 4, (50, 6)).astype(np.float32)
    write_rows(tmp_path / "within.parquet", pixels)
    pixels[3, 2], pixels[7], pixels[9, 0] = -9999, 12, 100
    write_rows(tmp_path / "outside.parquet", pixels + 0)
    code, _, err = ae("encode", tmp_path / "within.parquet", "--codec", float_codec, "--store", tmp_path / "store")
    assert (code, "warning" in err) == (0, False)
    code, _, err = ae("append", tmp_path / "store", tmp_path / "outside.parquet")
    assert code == 0
    said = f"3 of 50 rows have values outside {header.scaling.offset:g} to "
    assert said in err
    code, _, err = ae("encode", tmp_path / "outside.parquet", "--codec", float_codec, "--store", tmp_path / "other")
    assert code == 0
    assert said in err
    assert "found: -9999 to 100" in err


def test_integers_are_never_outside():
    watch = RangeWatch(0.0, 1.0)
    watch.add(np.array([[200]], np.uint8))
    assert watch.warnings("new") == []


# The stages say it first.


def test_prepare_reports_every_splits_range(tmp_path, capsys, tiny_params):
    params = Params.model_validate(tiny_params.model_dump())
    for stage in ("download", "prepare"):
        run_stage(stage, params, tmp_path)
    out, err = capsys.readouterr()
    for split in ("train", "validation", "test"):
        assert f"{split}: values from 0 to 255, 99.8% of them within 0 to " in out
    assert "warning" not in err


def test_prepare_warns_of_a_split_with_outliers_that_the_train_split_lacks(tmp_path, capsys, tiny_params):
    """Training then never lowers the validation loss, whatever its settings."""
    train, test = (np.random.default_rng(seed).uniform(0, 0.73, (60, 4, 4)).astype(np.float32) for seed in (0, 1))
    test[3, 0, 0] = -9999
    (tmp_path / "data" / "idx").mkdir(parents=True)
    for name, pixels in {"train": train, "t10k": test}.items():
        write_idx(tmp_path / "data" / "idx" / f"{name}-images-idx3-ubyte", pixels)
    source = {"name": "idx", "idx": {"folder": str(tmp_path / "data" / "idx")}}
    params = Params.model_validate(tiny_params.model_dump() | {"source": source})
    for stage in ("download", "prepare"):
        run_stage(stage, params, tmp_path)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: test has values from -9999 to 0.7")
    assert "but the train split, by which values are scaled, only 0.0" in warning
    assert warning.endswith("If they are outliers, remove or repair them")
