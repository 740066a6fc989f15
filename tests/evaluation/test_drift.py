"""Drift: the statistics are those of scipy, undisturbed batches pass, disturbed ones are found, stores are measured."""

import numpy as np
import pytest
from drifting import DRIFT_PARAMS, encoded, taken, train_set
from handmade import encode, random_codec, write_rows
from scipy.stats import binom, ks_2samp

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, StoreError
from ae_pipeline.evaluation.drift.fit import _EDGES, _edges, fit_reference
from ae_pipeline.evaluation.drift.measure import (
    BatchCounts,
    error_bins,
    ks_distance,
    measure,
    measure_store,
    read_errors,
)
from ae_pipeline.evaluation.pictures import draw_drift
from ae_pipeline.store.format.part_writer import round_error

# The statistics.


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_the_distance_of_histograms_is_that_of_scipy(rows):
    random = np.random.default_rng(rows)
    one, other = random.integers(0, 16, rows), random.binomial(15, 0.4, 200)
    found = ks_distance(np.bincount(one, minlength=16), np.bincount(other, minlength=16))
    assert found == pytest.approx(ks_2samp(one, other).statistic)


@pytest.mark.parametrize("batch", ["same", "shifted", "wide", "zeros", "beyond", "one row"])
def test_the_drift_of_errors_is_that_of_scipy_to_one_part_in_the_edges(batch):
    random = np.random.default_rng(0)
    train = random.lognormal(-5, 0.7, 20_000).astype(np.float32)
    error = {
        "same": random.lognormal(-5, 0.7, 500),
        "shifted": random.lognormal(-4.8, 0.7, 500),
        "wide": random.lognormal(-5, 1.5, 2000),
        "zeros": np.zeros(50),
        "beyond": np.full(50, 9.0),
        "one row": random.lognormal(-5, 0.7, 1),
    }[batch].astype(np.float32)
    assert drift_of_errors(train, error) == pytest.approx(exact(train, error), abs=1 / (_EDGES - 1))


def test_errors_that_are_all_equal_are_told_from_those_beside_them():
    train = np.full(1000, 0.5, np.float32)
    assert drift_of_errors(train, train[:10]) == 0
    for beside in (0.49, 0.51):
        assert drift_of_errors(train, np.full(10, beside, np.float32)) == 1


def test_an_error_is_rounded_like_those_of_a_store():
    train = np.random.default_rng(0).lognormal(-5, 0.7, 500).astype(np.float32)
    assert np.array_equal(error_bins(train, _edges(train)), error_bins(round_error(train), _edges(train)))


def drift_of_errors(train, error):
    edges = _edges(train)
    counts = [np.bincount(error_bins(values, edges), minlength=2 * len(edges) + 1) for values in (train, error)]
    return float(ks_distance(*counts))


def exact(train, error):
    return ks_2samp(round_error(train), round_error(error)).statistic


@pytest.mark.slow
def test_a_batch_is_measured_as_scipy_does_it(calibrated, shuffled_mnist, fresh):
    codec, reference = calibrated
    _, latents, error = fresh
    step_latents, step_error = encoded(codec, np.concatenate(taken(train_set(codec), 8000)))
    drift = measure(reference, [(latents[:700], error[:700])])
    expected = [ks_2samp(latents[:700, d], step_latents[:, d]).statistic for d in range(16)]
    assert drift.dimensions == pytest.approx(expected)
    assert drift.latent_drift == pytest.approx(np.mean(expected))
    assert drift.error_drift == pytest.approx(exact(step_error, error[:700]), abs=1 / (_EDGES - 1))
    assert drift.most_drifted == sorted(enumerate(drift.dimensions), key=lambda pair: -pair[1])[:3]


def test_counts_may_come_in_pieces(tiny_reference, tiny_codec, synthetic_prepared):
    latents, error = encoded(tiny_codec, SampleSet.open(synthetic_prepared / "test").load().pixels)
    whole, pieces = (BatchCounts(np.array(tiny_reference.error_edges, np.float32), 6, 16) for _ in range(2))
    whole.add(latents, error)
    for start in (0, 1, 100):
        stop = {0: 1, 1: 100, 100: 150}[start]
        pieces.add(latents[start:stop], error[start:stop])
    assert np.array_equal(whole.latents, pieces.latents)
    assert np.array_equal(whole.error, pieces.error)
    assert pieces.rows == 150


# Which batches have drifted.


@pytest.mark.slow
def test_undisturbed_batches_stay_within_the_thresholds_in_the_stated_share(calibrated, shuffled_mnist, tmp_path):
    """On several halves: one calibration may be unlucky, and then all large batches of its other half are."""
    test = shuffled_mnist[0]
    latents, error = encoded(calibrated[0], test)
    sizes = (20, 50, 150, 500, 2000)
    drifted, batches = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(test))
        held_out = write_rows(tmp_path / f"{seed}.parquet", test[order[:6000]])
        reference = fit_reference(calibrated[0], train_set(calibrated[0]), held_out, DRIFT_PARAMS, seed, device="cpu")
        for rows in sizes:
            for start in range(6000, 10_000 - rows + 1, rows):
                batch = order[start : start + rows]
                drifted[rows] += measure(reference, [(latents[batch], error[batch])]).drifted
                batches[rows] += 1
    for rows in sizes:
        assert drifted[rows] <= binom.ppf(0.9999, batches[rows], 1 - DRIFT_PARAMS.confidence), rows
    # And none of them was far beyond what is needed: some batches do reach the thresholds.
    assert sum(drifted.values()) > 0


DISTURBANCES = {
    "inverted": lambda images: 255 - images,
    "shifted by 4 pixels": lambda images: np.roll(images, 4, axis=2),
    "noisy": lambda images: np.clip(images + np.random.default_rng(0).normal(0, 50, images.shape), 0, 255).astype(
        np.uint8
    ),
    "transposed": lambda images: images.transpose(0, 2, 1),
    "empty": np.zeros_like,
}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [50, 1000])
@pytest.mark.parametrize("name", DISTURBANCES)
def test_disturbed_images_are_found(name, rows, calibrated, fresh):
    disturbed = encoded(calibrated[0], np.ascontiguousarray(DISTURBANCES[name](fresh[0][:rows])))
    drift = measure(calibrated[1], [disturbed])
    assert drift.drifted
    assert drift.describe().startswith(f"drifted: {rows:,} rows, error_drift {drift.error_drift:.3f} (")
    assert "\n" not in drift.describe()


def test_another_mix_of_classes_is_found_though_each_image_is_an_ordinary_one(calibrated, shuffled_mnist, fresh):
    _, latents, error = fresh
    ones = shuffled_mnist[1][6000:] == 1
    drift = measure(calibrated[1], [(latents[ones], error[ones])])
    assert drift.latent_drift > 2 * drift.latent_threshold
    assert drift.drifted


def test_a_batch_of_one_row_is_measured_and_not_enough_to_tell(calibrated, fresh):
    inverted = encoded(calibrated[0], 255 - fresh[0][:4])
    one = measure(calibrated[1], [(inverted[0][:1], inverted[1][:1])])
    assert (one.rows, one.error_drift, one.error_threshold) == (1, 1.0, 1.0)
    assert not one.drifted
    assert len(one.most_drifted) == 3


def test_an_error_that_is_no_number_counts_as_the_largest(calibrated, fresh):
    drift = measure(calibrated[1], [(fresh[1][:100], np.full(100, np.nan, np.float32))])
    assert drift.error_drift == 1
    assert drift.drifted


# Stores.


def test_a_store_is_measured_as_its_rows_are(tiny_reference, tiny_codec, synthetic_prepared, tmp_path):
    store = encode(synthetic_prepared / "train", tiny_codec, tmp_path / "store")
    parts = [list(store.read_part(part, 64)) for part in store.manifest.parts]
    assert len(parts) == 3

    def expected(chosen):
        rows = [block for part in chosen for block in part]
        return measure(
            tiny_reference, [(np.concatenate([r.latents for r in rows]), np.concatenate([r.error for r in rows]))]
        )

    names = [part.name for part in store.manifest.parts]
    assert measure_store(store, tiny_reference) == expected(parts)
    assert measure_store(store, tiny_reference, names[1:2]) == expected(parts[1:2])
    assert measure_store(store, tiny_reference).rows == 540
    errors = np.concatenate([r.error for r in parts[1]])
    assert np.array_equal(read_errors(store, names[1:2]), errors)
    with pytest.raises(StoreError, match=r"has no part part-9.*name one of its manifest"):
        measure_store(store, tiny_reference, ["part-9"])
    with pytest.raises(DataError, match="batch without rows has no drift"):
        measure_store(store, tiny_reference, [])


def test_the_train_rows_themselves_have_no_drift(tiny_reference, tiny_codec, synthetic_prepared, tmp_path):
    store = encode(synthetic_prepared / "train", tiny_codec, tmp_path / "store")
    drift = measure_store(store, tiny_reference)
    assert (drift.error_drift, drift.latent_drift) == (0, 0)
    assert drift.describe().startswith("no drift: 540 rows, error_drift 0.000 (within ")


def test_a_store_of_another_codec_is_refused(tiny_reference, synthetic_prepared, tmp_path):
    other = random_codec(tmp_path / "codec", (12, 12), latent_size=6)
    store = encode(synthetic_prepared / "test", tmp_path / "codec", tmp_path / "store")
    with pytest.raises(CodecError) as caught:
        measure_store(store, tiny_reference)
    assert other.fingerprint[:12] in str(caught.value)
    assert tiny_reference.codec_fingerprint[:12] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("latents", "rows", "message"),
    [
        (np.zeros((5, 7), np.int8), 5, r"latents are int8 \(7,\), expected int8 \(6,\)"),
        (np.zeros((5, 6), np.int16), 5, r"latents are int16 \(6,\), expected int8 \(6,\)"),
        (np.full((5, 6), 8, np.int8), 5, r"reach from 8 to 8, .* 16 levels"),
        (np.full((5, 6), -9, np.int8), 5, r"reach from -9 to -9, .* 16 levels"),
        (np.zeros((5, 6), np.int8), 4, r"errors have shape \(4,\), expected one for each of 5 rows"),
        (np.zeros((0, 6), np.int8), 0, r"batch without rows"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latents, rows, message, tiny_reference):
    with pytest.raises(DataError, match=message):
        measure(tiny_reference, [(latents, np.zeros(rows, np.float32))])


# The picture.


@pytest.mark.parametrize("name", ["undisturbed", "inverted", "empty", "nan"])
def test_a_drift_can_be_drawn(name, calibrated, fresh, tmp_path):
    latents, error = encoded(calibrated[0], DISTURBANCES.get(name, lambda images: images)(fresh[0][:200]))
    if name == "nan":
        error = np.full_like(error, np.nan)
    drift = measure(calibrated[1], [(latents, error)])
    figure = draw_drift(calibrated[1], error, drift)
    figure.savefig(tmp_path / "drift.png")
    assert (tmp_path / "drift.png").stat().st_size > 20_000
    assert figure.get_suptitle() == drift.describe()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["Error of each row", f"error_drift {drift.error_drift:.3f}", "Drift of each latent"]
