"""What drift compares with: which rows are taken, and thresholds that are neither too low nor too high."""

import time

import numpy as np
import pytest
from drifting import encoded, taken, train_set
from handmade import random_codec, random_pixels, write_rows

from ae_pipeline.cli.stages import run_stage
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, WorkspaceError
from ae_pipeline.evaluation.drift.fit import _quantile, fit_reference
from ae_pipeline.evaluation.drift.measure import measure
from ae_pipeline.evaluation.drift.reference import read_reference
from ae_pipeline.operation.tracking.workspace import Workspace
from ae_pipeline.params.operation import DriftParams

# The thresholds.


def test_thresholds_are_not_far_from_what_undisturbed_batches_reach(calibrated, fresh):
    _, latents, error = fresh
    random = np.random.default_rng(0)
    for rows in (50, 500):
        drifts = [
            measure(calibrated[1], [(latents[batch], error[batch])])
            for batch in (random.choice(len(error), rows, replace=False) for _ in range(300))
        ]
        assert max(drift.error_drift / drift.error_threshold for drift in drifts) > 0.75
        assert max(drift.latent_drift / drift.latent_threshold for drift in drifts) > 0.75


def test_a_quantile_far_in_the_tail_is_that_of_kolmogorovs_distribution():
    random = np.random.default_rng(0)
    rows = 200
    uniform = np.sort(random.random((2000, rows)), axis=1)
    steps = np.arange(rows + 1) / rows
    distances = np.maximum(uniform - steps[:-1], steps[1:] - uniform).max(axis=1)
    # 2 exp(-2 n x^2) = 1 - 0.9995
    expected = np.sqrt(np.log(2 / 0.0005) / (2 * rows))
    assert _quantile(distances, 0.9995) == pytest.approx(expected, rel=0.06)
    assert _quantile(distances, 0.8) == pytest.approx(np.quantile(distances, 0.8))


def test_more_confidence_means_higher_thresholds(tiny_reference, tiny_codec, synthetic_prepared):
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    loose = fit_reference(tiny_codec, *splits, DriftParams(confidence=0.8), 0, device="cpu")
    for low, high in zip(loose.calibration, tiny_reference.calibration, strict=True):
        assert low.rows == high.rows
        assert low.error_drift < high.error_drift
        assert low.latent_drift < high.latent_drift


def test_a_seed_gives_the_same_reference_and_another_seed_other_thresholds(
    tiny_reference, tiny_codec, synthetic_prepared
):
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    assert fit_reference(tiny_codec, *splits, DriftParams(), 0, device="cpu") == tiny_reference
    other = fit_reference(tiny_codec, *splits, DriftParams(), 1, device="cpu")
    assert other.error_counts == tiny_reference.error_counts
    assert other.calibration != tiny_reference.calibration


@pytest.mark.slow
def test_a_reference_is_fitted_and_a_batch_measured_quickly(calibrated, shuffled_mnist, tmp_path):
    test, _, train = shuffled_mnist
    sets = [write_rows(tmp_path / f"{name}.parquet", rows) for name, rows in (("train", train), ("test", test))]
    start = time.perf_counter()
    fit_reference(calibrated[0], *sets, DriftParams(), 0, device="cpu")
    # 1.2 s where it was written; the limit is for busy machines.
    assert time.perf_counter() - start < 10
    latents, error = encoded(calibrated[0], test)
    start = time.perf_counter()
    measure(calibrated[1], [(latents, error)])
    assert time.perf_counter() - start < 0.5


# Which rows.


@pytest.mark.parametrize("most", [1, 7, 300, 540, 10_000])
def test_rows_are_taken_evenly_over_all_shards(most, synthetic_prepared):
    samples = SampleSet.open(synthetic_prepared / "train")
    everything = samples.load().pixels
    count = min(most, 540)
    chosen = [row for row in range(540) if (row + 1) * count // 540 > row * count // 540]
    rows = np.concatenate(taken(samples, most))
    assert len(rows) == len(chosen) == count
    assert np.array_equal(rows, everything[chosen])


def test_blocks_are_never_larger_than_the_codecs(shuffled_mnist, calibrated):
    blocks = taken(train_set(calibrated[0]), 5000)
    assert [len(block) for block in blocks] == [1024] * 4 + [5000 - 4 * 1024]


def test_a_single_row_is_enough_for_a_reference(tmp_path):
    random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((1, 5, 4), "uint8"))
    reference = fit_reference(tmp_path / "codec", samples, samples, DriftParams(), 0, device="cpu")
    latents, error = encoded(tmp_path / "codec", samples.load().pixels)
    drift = measure(reference, [(latents, error)])
    assert (drift.error_drift, drift.latent_drift, drift.drifted) == (0, 0, False)
    assert drift.error_threshold > 0


def test_samples_of_another_shape_are_refused(tiny_codec, synthetic_prepared, tmp_path):
    train = SampleSet.open(synthetic_prepared / "train")
    other = write_rows(tmp_path / "rows.parquet", random_pixels((5, 3, 3), "uint8"))
    with pytest.raises(CodecError, match="uint8 12x12, but the data set has uint8 3x3"):
        fit_reference(tiny_codec, train, other, DriftParams(), 0)


# The stage.


@pytest.mark.slow
def test_evaluate_writes_the_reference_of_its_codec_and_it_is_attached_to_the_run(tiny_params, tmp_path):
    gate = tiny_params.evaluate.model_validate({"gate": {"beat_pca": False}})
    params = tiny_params.model_copy(update={"evaluate": gate, "drift": DriftParams(reference_rows=300)})
    for stage in ("download", "prepare", "train", "evaluate"):
        run_stage(stage, params, tmp_path)
    header = read_header(tmp_path / "data" / "codec")
    path = tmp_path / "reports" / "drift_reference.json"
    reference = read_reference(path, header.fingerprint)
    assert (reference.train_rows, reference.held_out_rows, reference.confidence) == (300, 150, 0.999)
    assert (path, None) in Workspace(params, tmp_path, {}, header, {}, []).files()
    # Without the training's history it has nothing to draw, and says so before it measures.
    (tmp_path / "reports" / "metrics.json").unlink()
    history = tmp_path / "reports" / "history.csv"
    history.write_text("epoch,loss\n1,2\n")
    with pytest.raises(WorkspaceError, match=r"history\.csv has no column train_loss, validation_loss, learning_rate"):
        run_stage("evaluate", params, tmp_path)
    history.unlink()
    with pytest.raises(WorkspaceError, match=r"history\.csv is missing; run `dvc repro` first"):
        run_stage("evaluate", params, tmp_path)
    assert not (tmp_path / "reports" / "metrics.json").exists()
