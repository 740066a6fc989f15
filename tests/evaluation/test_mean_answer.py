"""Errors beside answering each value's mean: the numbers are NumPy's, and what knows nothing fails the gate."""

import json

import numpy as np
import pytest
from documents import DOCUMENTS
from handmade import random_codec, write_rows

from ae_pipeline.codec.header import Scaling, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import GateError
from ae_pipeline.evaluation.baselines import build_pca_codec
from ae_pipeline.evaluation.evaluate import evaluate_codec
from ae_pipeline.evaluation.gate import check_gate
from ae_pipeline.evaluation.mean_answer import MeanAnswer, fit_means, not_better_than_mean, warnings_of
from ae_pipeline.operation.champion.comparison import compare_codecs
from ae_pipeline.params import EncodeParams, GateParams, Params
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.training.batches import fit_scaling
from ae_pipeline.training.build import build_codec

CPU = EncodeParams(device="cpu")
NO_LIMITS = GateParams(beat_pca=False)


def measured(original, decoded, train_means=None, *, scale=1.0, cut=7):
    answer = MeanAnswer(train_means)
    for start in range(0, len(original), cut):
        answer.add(original[start : start + cut], decoded[start : start + cut])
    return answer.as_metrics(scale)


def by_numpy(original, decoded, train=None, scale=1.0):
    """The same with all rows in memory."""
    x, y = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (original, decoded))
    variance = x.var(axis=0, ddof=1)
    if train is not None:
        means = train.reshape(len(train), -1).astype(np.float64).mean(axis=0)
        variance = np.minimum(variance, ((x - means) ** 2).mean(axis=0))
    error, varies = ((x - y) ** 2).mean(axis=0), (x != x[0]).any(axis=0)
    return {
        "mean_mse": variance.mean() / scale**2,
        "r2": 1 - error.mean() / variance.mean(),
        "snr": 10 * np.log10(variance.mean() / error.mean()),
        "mean_of_train": int(train is not None),
        "values_with_variance": varies.sum(),
        "values_worse_than_mean": (varies & (error > variance)).sum(),
        "values_decoded_constant": (varies & (y == y[0]).all(axis=0)).sum(),
    }


def rows_of(dtype, rows=61, seed=0):
    """Rows (n, 3, 4) around 1000, and a noisy copy; one value never varies, and another is decoded as a constant."""
    random = np.random.default_rng(seed)
    original = random.normal(1000, np.linspace(0.5, 40, 12).reshape(3, 4), (rows, 3, 4))
    decoded = original + random.normal(0, 9, original.shape)
    original[:, 0, 1], decoded[:, 2, 2] = 7, 1003
    return original.astype(dtype), decoded.astype(dtype)


# The numbers.


@pytest.mark.parametrize("cut", [1, 7, 61])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_the_numbers_are_those_of_numpy_however_the_rows_come(dtype, cut):
    original, decoded = rows_of(dtype)
    expected = by_numpy(original, decoded, scale=50)
    assert measured(original, decoded, scale=50, cut=cut) == pytest.approx(expected, rel=1e-9)
    assert expected["values_with_variance"] == 11
    assert 0 < expected["values_worse_than_mean"] < 11
    assert expected["values_decoded_constant"] == 1


@pytest.mark.parametrize("rows", [1, 2, 61])
def test_the_mean_is_that_of_the_train_rows_or_a_nearer_one(rows, tmp_path):
    train, (original, decoded) = rows_of("float32", 200, seed=3)[0], rows_of("float32", rows)
    train[:100, 1, 1] += 500  # here the rows measured have a nearer mean of their own
    means = fit_means(write_rows(tmp_path / "train.parquet", train))
    assert means == pytest.approx(train.reshape(200, -1).mean(axis=0, dtype=np.float64), rel=1e-12)
    if rows == 1:
        found = measured(original, decoded, means)
        assert found["mean_mse"] == pytest.approx(np.square(original.reshape(-1) - means).mean())
        assert found["values_with_variance"] == 0
    else:
        assert measured(original, decoded, means) == pytest.approx(by_numpy(original, decoded, train), rel=1e-9)


def test_r2_is_that_of_scikit_learn():
    r2_score = pytest.importorskip("sklearn.metrics").r2_score
    original, decoded = (rows.reshape(61, -1) for rows in rows_of("float32"))
    decoded[:, 1] = original[:, 1]  # errors in values without variance do not count there
    expected = r2_score(original, decoded, multioutput="variance_weighted")
    # The sample variance divides by n - 1.
    assert 1 - measured(original, decoded)["r2"] == pytest.approx((1 - expected) * 60 / 61)


def test_of_one_row_alone_no_mean_is_known():
    found = measured(*rows_of("float32", 1))
    assert (found["mean_mse"], found["r2"], found["snr"], found["values_worse_than_mean"]) == (None,) * 4
    assert not_better_than_mean({**found, "mse": 0.1}) is None


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_without_variance_are_judged_by_whether_they_come_back(dtype):
    rows = np.full((20, 3), 77, dtype)
    whole, other = measured(rows, rows), measured(rows, rows - dtype_step(dtype))
    assert (whole["r2"], whole["snr"]) == (1.0, None)
    assert (other["r2"], other["snr"]) == (0.0, None)
    assert not_better_than_mean({**whole, "mse": 0.0}) is None
    assert "do not vary and do not come back" in not_better_than_mean({**other, "mse": 0.1})


def dtype_step(dtype):
    return np.array(1 if dtype == "uint8" else 0.001, dtype)


def test_an_outlier_among_train_rows_makes_no_constant_look_good(tmp_path):
    random = np.random.default_rng(0)
    train, test = random.uniform(0, 0.73, (2, 400, 16)).astype(np.float32)
    train[5, 3] = -9999
    constant = np.full_like(test, 0.36)
    constant[0] += 0.01
    found = measured(test, constant, fit_means(write_rows(tmp_path / "train.parquet", train)))
    assert found["r2"] < 0.01  # against the train means alone, of which one is -24.6, it would be 0.998
    assert measured(test, test, None)["r2"] == 1


def test_numbers_that_are_not_numbers_pass_no_gate():
    original, decoded = rows_of("float32")
    decoded[3, 0, 0] = np.nan
    found = measured(original, decoded)
    assert found["r2"] is None
    with pytest.raises(GateError, match="not numbers"):
        check_gate({"mse": None, "psnr": None, "bits_per_row": 8.0, **found}, NO_LIMITS)


# One value decides the scaling.


def outlier_params(epochs=40):
    return Params.model_validate(
        {
            "model": {"dense": {"hidden_sizes": [16]}},
            "train": {"latent_size": 3, "epochs": epochs, "batch_size": 16, "learning_rate": 0.05, "device": "cpu"},
            "encode": {"device": "cpu"},
        }
    )


@pytest.fixture(scope="module")
def outlier(tmp_path_factory):
    """Float rows in 0..0.73 with one pixel of -9999 among the train rows, and a codec trained on them."""
    folder = tmp_path_factory.mktemp("outlier")
    random = np.random.default_rng(1)
    spread = random.normal(0, 1, (3, 16))
    splits = {}
    for name, rows in (("train", 600), ("validation", 100), ("test", 200)):
        pixels = random.normal(0, 1, (rows, 3)) @ spread
        pixels = (0.73 / (1 + np.exp(-pixels))).astype(np.float32)
        if name == "train":
            pixels[17, 5] = -9999
        splits[name] = write_rows(folder / f"{name}.parquet", pixels, id=list(range(rows)))
    build_codec(splits["train"], splits["validation"], outlier_params(), folder / "codec", {}, lambda epoch: None)
    return folder, splits


@pytest.mark.slow
def test_a_codec_scaled_by_an_outlier_fails_the_gate_whatever_its_psnr(outlier):
    folder, splits = outlier
    metrics = evaluate_codec(folder / "codec", splits["test"], CPU, train=splits["train"]).metrics
    assert metrics["psnr"] > 60
    assert metrics["r2"] < 0
    pixels = splits["test"].load().pixels.astype(np.float64)
    assert metrics["mean_mse"] == pytest.approx(pixels.var(axis=0, ddof=1).mean() / 9999.73**2, rel=0.01)
    for gate in (NO_LIMITS, GateParams(), GateParams(max_mse=1.0, min_psnr=20, beat_pca=False)):
        with pytest.raises(GateError, match="answering each value's mean"):
            check_gate(metrics, gate)
    assert metrics["pca_r2"] < 0.5  # PCA in the same scaling is no better judge: beating it proves nothing
    first, *others = warnings_of(metrics, read_header(folder / "codec").scaling, "the test split")
    assert "the range by which values are scaled, -9999 to 0.7" in first
    assert any("answering each value's mean (r2" in warning for warning in others)
    assert any("PCA is not better" in warning for warning in others) == (metrics["pca_r2"] <= 0)


def test_the_error_of_floats_far_from_an_outlier_is_not_rounded_away(tmp_path):
    """Scaled by 1e30, all usual values are the same float32: nothing seemed to be lost."""
    pixels = np.random.default_rng(0).uniform(0, 1, (50, 9)).astype(np.float32)
    train = pixels.copy()
    train[0, 0] = -1e30
    splits = [write_rows(tmp_path / f"{name}.parquet", rows) for name, rows in (("train", train), ("test", pixels))]
    scaling = fit_scaling(splits[0])
    build_pca_codec(splits[0], 2, 16, scaling, tmp_path / "codec")
    metrics = evaluate_codec(tmp_path / "codec", splits[1], CPU).metrics
    store = encode_samples(splits[1], tmp_path / "codec", tmp_path / "store", CPU, name="t", git={})
    decoded = decode_store(store, tmp_path / "decoded", device="cpu").load().pixels
    difference = (decoded.astype(np.float64) - pixels) / scaling.scale
    assert np.abs(difference).max() > 0
    assert metrics["mse"] == pytest.approx(np.square(difference).mean(), rel=1e-9, abs=0)
    assert metrics["mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-9, abs=0)
    with pytest.raises(GateError, match=r"r2 -|every decoded row is the same"):
        check_gate(metrics, NO_LIMITS)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_a_constant_output_never_passes(dtype, tmp_path):
    """Also one that is nearer to the test rows than the train rows' mean is."""
    random = np.random.default_rng(0)
    train, test = random.integers(0, 50, (2, 90, 12)).astype(dtype)
    test += np.array(3, dtype)
    constant = np.broadcast_to(test.mean(axis=0).astype(dtype), test.shape)
    metrics = measured(test, constant, fit_means(write_rows(tmp_path / "train.parquet", train)))
    with pytest.raises(GateError, match="every decoded row is the same, though 12 values of the rows vary"):
        check_gate({"mse": 1e-9, "psnr": 90.0, "bits_per_row": 1.0, **metrics}, NO_LIMITS)


@pytest.mark.slow
def test_without_a_champion_a_codec_that_knows_nothing_is_not_promoted(outlier):
    folder, splits = outlier
    params = Params().promotion
    verdict = compare_codecs(None, folder / "codec", splits["test"], params, CPU, gate=NO_LIMITS)
    assert not verdict.promote
    assert "answering each value's mean" in verdict.reason
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_better_than_a_worthless_champion_is_not_good_enough(outlier, tmp_path):
    folder, splits = outlier
    params = Params.model_validate(
        {"promotion": {"min_speed": 1e-6, "max_bits_increase": 1e6, "max_mse_increase": 1e9}}
    )
    build_codec(splits["train"], splits["validation"], outlier_params(1), tmp_path / "codec", {}, lambda epoch: None)
    verdict = compare_codecs(folder / "codec", tmp_path / "codec", splits["test"], params.promotion, CPU)
    assert [condition.name for condition in verdict.conditions if not condition.holds] == ["better_than_mean"]
    assert not verdict.promote
    assert "values_with_variance | 16 | 16" in verdict.as_markdown()


# One scale for values of many kinds.


def compare(codec, train, test, tmp_path):
    """Metrics of `evaluate`, and the same by NumPy from decoded rows."""
    metrics = evaluate_codec(codec, test, CPU, train=train).metrics
    store = encode_samples(test, codec, tmp_path / "store", CPU, name="t", git={})
    decoded = decode_store(store, tmp_path / "decoded", device="cpu").load().pixels
    scale = read_header(codec).scaling.scale
    expected = by_numpy(test.load().pixels, decoded, train.load().pixels, scale)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    return metrics, warnings_of(metrics, read_header(codec).scaling, "the table")


def test_a_table_says_how_many_columns_are_worse_than_their_mean(tmp_path):
    """11 columns of other scales: PSNR is that of the large ones."""
    random = np.random.default_rng(0)
    scales = 10.0 ** -np.arange(11)
    train, test = (
        write_rows(tmp_path / f"{name}.parquet", (random.normal(5, 1, (rows, 11)) * scales).astype(np.float32))
        for name, rows in (("train", 800), ("test", 300))
    )
    build_pca_codec(train, 4, 64, fit_scaling(train), tmp_path / "codec")
    metrics, warnings = compare(tmp_path / "codec", train, test, tmp_path)
    assert metrics["psnr"] > 40
    assert metrics["values_with_variance"] == 11
    assert metrics["values_worse_than_mean"] >= 4
    count = metrics["values_worse_than_mean"]
    assert any(f"{count} of the 11 values of a row that vary come back worse" in warning for warning in warnings)


def test_a_quiet_sound_has_a_high_psnr_and_a_low_snr(tmp_path):
    random = np.random.default_rng(0)
    time = np.arange(64) / 64

    def tones(rows):
        phase, pitch = random.uniform(0, 2 * np.pi, (2, rows, 1))
        wave = 900 * np.sin(2 * np.pi * (2 + pitch) * time + phase) + random.normal(0, 300, (rows, 64))
        return np.round(wave).astype(np.int16)

    train, test = (
        write_rows(tmp_path / f"{name}.parquet", tones(rows)) for name, rows in (("train", 800), ("test", 300))
    )
    build_pca_codec(train, 6, 16, Scaling(offset=-32768.0, scale=65535.0), tmp_path / "codec")
    metrics, warnings = compare(tmp_path / "codec", train, test, tmp_path)
    assert metrics["psnr"] > 35
    assert 0 < metrics["snr"] < 12
    assert any("so judge by snr and r2" in warning for warning in warnings)
    assert any("of the range by which values are scaled, -32768 to 32767" in warning for warning in warnings)


# Where it is told.


def test_every_metric_of_evaluate_is_explained(tiny_codec, synthetic_prepared):
    splits = {name: SampleSet.open(synthetic_prepared / name) for name in ("train", "test")}
    metrics = evaluate_codec(tiny_codec, splits["test"], CPU, train=splits["train"]).metrics
    assert {"mean_mse", "r2", "snr", "pca_r2", "value_low"} < metrics.keys()
    page = DOCUMENTS["docs/metrics.md"].read_text(encoding="utf-8")
    assert [name for name in metrics if f"`{name}`" not in page] == []
    assert all(value is None or np.isfinite(float(value)) for value in metrics.values())  # as MLflow takes them


def test_evaluate_warns_on_standard_error_and_prints_json_alone(ae, outlier, tmp_path):
    folder, _ = outlier
    code, out, err = ae("evaluate", folder / "test.parquet", "--codec", folder / "codec", "--json")
    of_codec = json.loads(out)
    assert (code, of_codec["mean_of_train"]) == (0, 0)
    assert err.count("warning: ") >= 2
    assert "answering each value's mean" in err
    assert ae("encode", folder / "test.parquet", "--codec", folder / "codec", "--store", tmp_path / "store")[0] == 0
    code, out, err = ae("evaluate", folder / "test.parquet", "--store", tmp_path / "store", "--json")
    of_store = json.loads(out)
    assert "answering each value's mean" in err
    for name in ("mean_mse", "r2", "values_with_variance", "value_min"):
        assert of_store[name] == pytest.approx(of_codec[name])


def test_a_good_codec_is_not_warned_of(ae, synthetic_prepared, tmp_path):
    train = SampleSet.open(synthetic_prepared / "train")
    build_pca_codec(train, 60, 64, fit_scaling(train), tmp_path / "codec")
    code, _, err = ae("evaluate", synthetic_prepared / "test", "--codec", tmp_path / "codec")
    assert (code, err) == (0, "")


def test_metrics_of_before_there_was_this_have_no_warnings_and_are_judged_as_before(tmp_path):
    random_codec(tmp_path / "codec")
    old = {"mse": 0.01, "psnr": 20.0, "bits_per_row": 100.0, "pca_mse": 0.02}
    assert warnings_of(old, read_header(tmp_path / "codec").scaling, "x") == []
    check_gate(old, GateParams())
