"""Drift: the statistics are those of scipy, undisturbed batches pass, disturbed ones are found, references survive."""

import json
import time

import numpy as np
import pytest
from handmade import encode, random_codec, random_pixels, write_rows
from scipy.stats import binom, ks_2samp

from ae_pipeline.baselines import build_pca_codec
from ae_pipeline.codec import BLOCK_ROWS, Codec
from ae_pipeline.codec_header import Scaling, read_header
from ae_pipeline.drift import (
    BatchCounts,
    Calibrated,
    error_bins,
    ks_distance,
    measure,
    measure_store,
    read_errors,
    read_reference,
    write_reference,
)
from ae_pipeline.drift_fitting import _EDGES, _edges, _evenly, _quantile, fit_reference
from ae_pipeline.errors import CodecError, DataError, StoreError
from ae_pipeline.idx import open_idx
from ae_pipeline.latent_store import round_error
from ae_pipeline.params_operation import DriftParams
from ae_pipeline.report import draw_drift
from ae_pipeline.samples import SampleSet
from ae_pipeline.stages import run_stage
from ae_pipeline.workspace import Workspace

PARAMS = DriftParams(reference_rows=8000, confidence=0.99)


def encoded(codec_path, pixels):
    codec = Codec.load(codec_path)
    blocks = [codec.encode_block(pixels[row : row + BLOCK_ROWS], measure=True) for row in range(0, len(pixels), 1024)]
    return tuple(np.concatenate(column) for column in zip(*blocks, strict=True))


@pytest.fixture(scope="module")
def mnist(mnist_raw):
    """A shuffle of MNIST's test images (10,000, 28, 28), their labels, and 12,000 train images."""
    test = open_idx(mnist_raw / "t10k-images-idx3-ubyte")
    labels = open_idx(mnist_raw / "t10k-labels-idx1-ubyte")
    order = np.random.default_rng(0).permutation(len(test))
    return test[order], labels[order], open_idx(mnist_raw / "train-images-idx3-ubyte")[:12_000]


@pytest.fixture(scope="module")
def calibrated(mnist, tmp_path_factory):
    """PCA of 12,000 train images, and its reference, calibrated on the first 6,000 of the shuffled test images."""
    folder = tmp_path_factory.mktemp("mnist")
    test, _, train = mnist
    train = write_rows(folder / "train.parquet", train)
    held_out = write_rows(folder / "held_out.parquet", test[:6000])
    build_pca_codec(train, 16, 16, Scaling(offset=0.0, scale=255.0), folder / "codec")
    return folder / "codec", fit_reference(folder / "codec", train, held_out, PARAMS, 0, device="cpu")


@pytest.fixture(scope="module")
def fresh(mnist, calibrated):
    """Images, latents and errors of 4,000 test images that neither codec nor thresholds have seen."""
    return mnist[0][6000:], *encoded(calibrated[0], mnist[0][6000:])


@pytest.fixture(scope="module")
def tiny(synthetic_prepared, tiny_codec):
    """A reference of the tiny codec: 540 train rows, 150 held-out ones."""
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    return fit_reference(tiny_codec, *splits, DriftParams(), 0, device="cpu")


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


def test_a_batch_is_measured_as_scipy_does_it(calibrated, mnist, fresh):
    codec, reference = calibrated
    _, latents, error = fresh
    step_latents, step_error = encoded(codec, np.concatenate(list(_evenly(train_set(codec), 8000))))
    drift = measure(reference, latents[:700], error[:700])
    expected = [ks_2samp(latents[:700, d], step_latents[:, d]).statistic for d in range(16)]
    assert drift.dimensions == pytest.approx(expected)
    assert drift.latent_drift == pytest.approx(np.mean(expected))
    assert drift.error_drift == pytest.approx(exact(step_error, error[:700]), abs=1 / (_EDGES - 1))
    assert drift.most_drifted == sorted(enumerate(drift.dimensions), key=lambda pair: -pair[1])[:3]


def train_set(codec):
    return SampleSet.open(codec.parent / "train.parquet")


# Which batches have drifted.


def test_undisturbed_batches_stay_within_the_thresholds_in_the_stated_share(calibrated, mnist, tmp_path):
    """On several halves: one calibration may be unlucky, and then all large batches of its other half are."""
    test = mnist[0]
    latents, error = encoded(calibrated[0], test)
    sizes = (20, 50, 150, 500, 2000)
    drifted, batches = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(test))
        held_out = write_rows(tmp_path / f"{seed}.parquet", test[order[:6000]])
        reference = fit_reference(calibrated[0], train_set(calibrated[0]), held_out, PARAMS, seed, device="cpu")
        for rows in sizes:
            for start in range(6000, 10_000 - rows + 1, rows):
                batch = order[start : start + rows]
                drifted[rows] += measure(reference, latents[batch], error[batch]).drifted
                batches[rows] += 1
    for rows in sizes:
        assert drifted[rows] <= binom.ppf(0.9999, batches[rows], 1 - PARAMS.confidence), rows
    # And none of them was far beyond what is needed: some batches do reach the thresholds.
    assert sum(drifted.values()) > 0


def test_thresholds_are_not_far_from_what_undisturbed_batches_reach(calibrated, fresh):
    _, latents, error = fresh
    random = np.random.default_rng(0)
    for rows in (50, 500):
        drifts = [
            measure(calibrated[1], latents[batch], error[batch])
            for batch in (random.choice(len(error), rows, replace=False) for _ in range(300))
        ]
        assert max(drift.error_drift / drift.error_threshold for drift in drifts) > 0.75
        assert max(drift.latent_drift / drift.latent_threshold for drift in drifts) > 0.75


DISTURBANCES = {
    "inverted": lambda images: 255 - images,
    "shifted by 4 pixels": lambda images: np.roll(images, 4, axis=2),
    "noisy": lambda images: np.clip(images + np.random.default_rng(0).normal(0, 50, images.shape), 0, 255).astype(
        np.uint8
    ),
    "transposed": lambda images: images.transpose(0, 2, 1),
    "empty": np.zeros_like,
}


@pytest.mark.parametrize("rows", [50, 1000])
@pytest.mark.parametrize("name", DISTURBANCES)
def test_disturbed_images_are_found(name, rows, calibrated, fresh):
    disturbed = encoded(calibrated[0], np.ascontiguousarray(DISTURBANCES[name](fresh[0][:rows])))
    drift = measure(calibrated[1], *disturbed)
    assert drift.drifted
    assert drift.describe().startswith(f"drifted: {rows:,} rows, error_drift {drift.error_drift:.3f} (")
    assert "\n" not in drift.describe()


def test_another_mix_of_classes_is_found_though_each_image_is_an_ordinary_one(calibrated, mnist, fresh):
    _, latents, error = fresh
    ones = mnist[1][6000:] == 1
    drift = measure(calibrated[1], latents[ones], error[ones])
    assert drift.latent_drift > 2 * drift.latent_threshold
    assert drift.drifted


def test_a_batch_of_one_row_is_measured_and_not_enough_to_tell(calibrated, fresh):
    inverted = encoded(calibrated[0], 255 - fresh[0][:4])
    one = measure(calibrated[1], inverted[0][:1], inverted[1][:1])
    assert (one.rows, one.error_drift, one.error_threshold) == (1, 1.0, 1.0)
    assert not one.drifted
    assert len(one.most_drifted) == 3


def test_an_error_that_is_no_number_counts_as_the_largest(calibrated, fresh):
    drift = measure(calibrated[1], fresh[1][:100], np.full(100, np.nan, np.float32))
    assert drift.error_drift == 1
    assert drift.drifted


# The thresholds.


def test_thresholds_fall_with_the_number_of_rows(calibrated):
    found = np.array([calibrated[1].thresholds(rows) for rows in (1, 5, 20, 50, 93, 200, 700, 3000, 10**5, 10**9)])
    assert (np.diff(found, axis=0) <= 0).all()
    assert (found[0] > 0.9).all()
    assert (found[3] > 2 * found[-1]).all()
    last = calibrated[1].calibration[-1]
    assert found[-1] == pytest.approx((last.error_drift, last.latent_drift))


def test_few_rows_have_thresholds_by_the_square_root(calibrated):
    few, fewer = (calibrated[1].thresholds(rows)[1] for rows in (40, 10))
    # Nearly: 40 and 10 rows beside 6,000 held-out ones.
    assert fewer == pytest.approx(2 * few, rel=0.01)


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


def test_more_confidence_means_higher_thresholds(tiny, tiny_codec, synthetic_prepared):
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    loose = fit_reference(tiny_codec, *splits, DriftParams(confidence=0.8), 0, device="cpu")
    for low, high in zip(loose.calibration, tiny.calibration, strict=True):
        assert low.rows == high.rows
        assert low.error_drift < high.error_drift
        assert low.latent_drift < high.latent_drift


def test_a_reference_is_fitted_and_a_batch_measured_quickly(calibrated, mnist, tmp_path):
    test, _, train = mnist
    sets = [write_rows(tmp_path / f"{name}.parquet", rows) for name, rows in (("train", train), ("test", test))]
    start = time.perf_counter()
    fit_reference(calibrated[0], *sets, DriftParams(), 0, device="cpu")
    # 1.2 s where it was written; the limit is for busy machines.
    assert time.perf_counter() - start < 10
    latents, error = encoded(calibrated[0], test)
    start = time.perf_counter()
    measure(calibrated[1], latents, error)
    assert time.perf_counter() - start < 0.5


# Which rows.


@pytest.mark.parametrize("most", [1, 7, 300, 540, 10_000])
def test_rows_are_taken_evenly_over_all_shards(most, synthetic_prepared):
    samples = SampleSet.open(synthetic_prepared / "train")
    everything = samples.load().pixels
    count = min(most, 540)
    chosen = [row for row in range(540) if (row + 1) * count // 540 > row * count // 540]
    taken = np.concatenate(list(_evenly(samples, most)))
    assert len(taken) == len(chosen) == count
    assert np.array_equal(taken, everything[chosen])


def test_blocks_are_never_larger_than_the_codecs(mnist, calibrated):
    blocks = list(_evenly(train_set(calibrated[0]), 5000))
    assert [len(block) for block in blocks] == [1024] * 4 + [5000 - 4 * 1024]


def test_a_single_row_is_enough_for_a_reference(tmp_path):
    random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((1, 5, 4), "uint8"))
    reference = fit_reference(tmp_path / "codec", samples, samples, DriftParams(), 0, device="cpu")
    latents, error = encoded(tmp_path / "codec", samples.load().pixels)
    drift = measure(reference, latents, error)
    assert (drift.error_drift, drift.latent_drift, drift.drifted) == (0, 0, False)
    assert drift.error_threshold > 0


# Stores.


def test_a_store_is_measured_as_its_rows_are(tiny, tiny_codec, synthetic_prepared, tmp_path):
    store = encode(synthetic_prepared / "train", tiny_codec, tmp_path / "store")
    parts = [list(store.read_part(part, 64)) for part in store.manifest.parts]
    assert len(parts) == 3

    def expected(chosen):
        rows = [block for part in chosen for block in part]
        return measure(tiny, np.concatenate([r.latents for r in rows]), np.concatenate([r.error for r in rows]))

    names = [part.name for part in store.manifest.parts]
    assert measure_store(store, tiny) == expected(parts)
    assert measure_store(store, tiny, names[1:2]) == expected(parts[1:2])
    assert measure_store(store, tiny).rows == 540
    errors = np.concatenate([r.error for r in parts[1]])
    assert np.array_equal(read_errors(store, names[1:2]), errors)
    with pytest.raises(StoreError, match=r"has no part part-9.*name one of its manifest"):
        measure_store(store, tiny, ["part-9"])
    with pytest.raises(DataError, match="batch without rows has no drift"):
        measure_store(store, tiny, [])


def test_the_train_rows_themselves_have_no_drift(tiny, tiny_codec, synthetic_prepared, tmp_path):
    store = encode(synthetic_prepared / "train", tiny_codec, tmp_path / "store")
    drift = measure_store(store, tiny)
    assert (drift.error_drift, drift.latent_drift) == (0, 0)
    assert drift.describe().startswith("no drift: 540 rows, error_drift 0.000 (within ")


def test_a_store_of_another_codec_is_refused(tiny, synthetic_prepared, tmp_path):
    other = random_codec(tmp_path / "codec", (12, 12), latent_size=6)
    store = encode(synthetic_prepared / "test", tmp_path / "codec", tmp_path / "store")
    with pytest.raises(CodecError) as caught:
        measure_store(store, tiny)
    assert other.fingerprint[:12] in str(caught.value)
    assert tiny.codec_fingerprint[:12] in str(caught.value)
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
def test_latents_that_do_not_fit_are_refused(latents, rows, message, tiny):
    with pytest.raises(DataError, match=message):
        measure(tiny, latents, np.zeros(rows, np.float32))


def test_samples_of_another_shape_are_refused(tiny_codec, synthetic_prepared, tmp_path):
    train = SampleSet.open(synthetic_prepared / "train")
    other = write_rows(tmp_path / "rows.parquet", random_pixels((5, 3, 3), "uint8"))
    with pytest.raises(CodecError, match="uint8 12x12, but the data set has uint8 3x3"):
        fit_reference(tiny_codec, train, other, DriftParams(), 0)


def test_counts_may_come_in_pieces(tiny, tiny_codec, synthetic_prepared):
    latents, error = encoded(tiny_codec, SampleSet.open(synthetic_prepared / "test").load().pixels)
    whole, pieces = (BatchCounts(np.array(tiny.error_edges, np.float32), 6, 16) for _ in range(2))
    whole.add(latents, error)
    for start in (0, 1, 100):
        stop = {0: 1, 1: 100, 100: 150}[start]
        pieces.add(latents[start:stop], error[start:stop])
    assert np.array_equal(whole.latents, pieces.latents)
    assert np.array_equal(whole.error, pieces.error)
    assert pieces.rows == 150


# The file.


def test_a_reference_survives_its_file_and_is_small(calibrated, tmp_path):
    path = tmp_path / "reports" / "drift_reference.json"
    write_reference(path, calibrated[1])
    assert read_reference(path) == calibrated[1]
    assert read_reference(path, calibrated[1].codec_fingerprint) == calibrated[1]
    assert path.stat().st_size < 40_000


def test_a_seed_gives_the_same_reference_and_another_seed_other_thresholds(tiny, tiny_codec, synthetic_prepared):
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    assert fit_reference(tiny_codec, *splits, DriftParams(), 0, device="cpu") == tiny
    other = fit_reference(tiny_codec, *splits, DriftParams(), 1, device="cpu")
    assert other.error_counts == tiny.error_counts
    assert other.calibration != tiny.calibration


def test_the_reference_of_another_codec_is_refused(tiny, tmp_path):
    write_reference(tmp_path / "reference.json", tiny)
    with pytest.raises(CodecError, match=f"is of the codec {tiny.codec_fingerprint[:12]}.*expected 000000000000"):
        read_reference(tmp_path / "reference.json", "0" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, expected 1"),
        ({"levels": 17}, "latent_counts must have one count for each of the levels"),
        ({"train_rows": 5}, "counts must sum to train_rows"),
        ({"error_edges": [2.0, 1.0]}, "error_edges must rise"),
        ({"error_counts": [1, 2]}, "error_counts must have two values"),
        ({"calibration": []}, "calibration: "),
        ({"calibration": [{"rows": 9, "error_drift": 0.1, "latent_drift": 1.5}]}, "less than or equal to 1"),
        ({"calibration": [{"rows": 9, "error_drift": 0.1, "latent_drift": 0.1}] * 2}, "must rise in rows"),
        ({"codec_fingerprint": "abc"}, "codec_fingerprint: "),
        ({"more": 1}, "more: "),
    ],
)
def test_a_damaged_reference_says_what_is_wrong(change, message, tiny, tmp_path):
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({**tiny.model_dump(mode="json"), **change}))
    with pytest.raises(DataError, match=message) as caught:
        read_reference(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_reference_is_refused(content, tmp_path):
    path = tmp_path / "reference.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        read_reference(path)


def test_a_missing_reference_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"no drift reference at .*dvc repro evaluate"):
        read_reference(tmp_path / "none.json")


def test_thresholds_between_calibrated_sizes_lie_between_theirs(tiny):
    lines = [Calibrated(rows=100, error_drift=0.4, latent_drift=0.2)]
    lines.append(Calibrated(rows=400, error_drift=0.2, latent_drift=0.1))
    reference = tiny.model_copy(update={"calibration": lines, "held_out_rows": 10**9})
    assert reference.thresholds(200) == pytest.approx((0.3, 0.15))
    assert reference.thresholds(25) == pytest.approx((0.8, 0.4))
    assert reference.thresholds(4000) == pytest.approx((0.2, 0.1))


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


# The picture.


@pytest.mark.parametrize("name", ["undisturbed", "inverted", "empty", "nan"])
def test_a_drift_can_be_drawn(name, calibrated, fresh, tmp_path):
    latents, error = encoded(calibrated[0], DISTURBANCES.get(name, lambda images: images)(fresh[0][:200]))
    if name == "nan":
        error = np.full_like(error, np.nan)
    drift = measure(calibrated[1], latents, error)
    figure = draw_drift(calibrated[1], error, drift)
    figure.savefig(tmp_path / "drift.png")
    assert (tmp_path / "drift.png").stat().st_size > 20_000
    assert figure.get_suptitle() == drift.describe()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["Error of each row", f"error_drift {drift.error_drift:.3f}", "Drift of each latent"]
