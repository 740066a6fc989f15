"""Evaluation: every number agrees with an independent account of it, and the gate names every number that fails."""

import numpy as np
import pyarrow as pa
import pytest
from handmade import change_header, encode, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import GateError
from ae_pipeline.evaluation import baselines
from ae_pipeline.evaluation.baselines import build_pca_codec
from ae_pipeline.evaluation.evaluate import PICTURED_ROWS, evaluate_codec, rate_distortion
from ae_pipeline.evaluation.gate import check_gate
from ae_pipeline.params import EncodeParams, GateParams
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.encoding import encode_samples

CPU = EncodeParams(device="cpu")
BYTES = Scaling(offset=0.0, scale=255.0)


@pytest.fixture(scope="module")
def splits(synthetic_prepared):
    return {name: SampleSet.open(synthetic_prepared / name) for name in ("train", "test")}


@pytest.fixture(scope="module")
def evaluation(tiny_codec, splits):
    return evaluate_codec(tiny_codec, splits["test"], CPU, train=splits["train"])


@pytest.fixture(scope="module")
def store(tiny_codec, splits, tmp_path_factory):
    """What the evaluation writes into a temporary folder, written once more."""
    target = tmp_path_factory.mktemp("evaluation") / "store"
    return encode_samples(splits["test"], tiny_codec, target, CPU, name="test", git={})


@pytest.fixture(scope="module")
def images(splits, store, tmp_path_factory):
    """Originals and decoded rows, (rows, values) in [0, 1]."""
    decoded = decode_store(store, tmp_path_factory.mktemp("evaluation") / "decoded", device="cpu")
    return [samples.load().pixels.reshape(150, -1) / 255.0 for samples in (splits["test"], decoded)]


def file_bytes(folder, pattern):
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


def test_metrics_agree_with_the_decoded_rows(evaluation, images):
    original, decoded = images
    mse = ((decoded - original) ** 2).mean()
    clipped = np.clip(decoded, 0.5 / 255, 1 - 0.5 / 255)
    bce = -(original * np.log(clipped) + (1 - original) * np.log(1 - clipped)).mean()
    metrics = evaluation.metrics
    assert metrics["mse"] == pytest.approx(mse, rel=1e-6)
    assert metrics["mae"] == pytest.approx(np.abs(decoded - original).mean(), rel=1e-6)
    assert metrics["bce"] == pytest.approx(bce, rel=1e-5)
    assert metrics["psnr"] == pytest.approx(10 * np.log10(1 / mse), rel=1e-6)
    assert 0 < metrics["ssim"] < 1


def test_row_metrics_are_in_the_order_of_the_data_set(evaluation, images, splits):
    original, decoded = images
    assert evaluation.rows.values["mse"] == pytest.approx(((decoded - original) ** 2).mean(axis=1), rel=1e-5)
    assert evaluation.rows.attributes.equals(splits["test"].load().attributes)


def test_the_unquantised_error_is_that_of_the_network_alone(evaluation, tiny_codec, splits):
    pixels = splits["test"].load().pixels
    unquantised = Codec.load(tiny_codec).reconstruct_unquantised(pixels) / 255
    assert evaluation.metrics["unquantised_mse"] == pytest.approx(((unquantised - pixels / 255) ** 2).mean(), rel=1e-5)
    assert evaluation.metrics["unquantised_mse"] != evaluation.metrics["mse"]


def test_bits_are_those_of_real_files(evaluation, store):
    parts, codec = file_bytes(store.path, "part-*"), file_bytes(store.codec_path, "*")
    everything = file_bytes(store.path, "*")
    metrics = evaluation.metrics
    assert metrics["rows"] == 150
    assert metrics["bytes_in"] == 150 * 144
    assert metrics["bytes_out"] == everything
    assert metrics["codec_bytes"] == codec
    assert metrics["ratio"] == pytest.approx(150 * 144 / everything)
    assert metrics["bits_per_row"] == pytest.approx(8 * parts / 150)
    assert metrics["bits_per_row_with_codec"] == pytest.approx(8 * everything / 150)
    assert metrics["raw_bits_per_row"] == 8 * 144
    assert 0 < metrics["latent_bits_per_row"] < metrics["bits_per_row"]


def test_the_layout_of_the_params_is_the_one_measured(tiny_codec, splits, tmp_path):
    metrics = evaluate_codec(tiny_codec, splits["test"], CPU.model_copy(update={"layout": "binary"})).metrics
    store = encode(splits["test"], tiny_codec, tmp_path / "store", layout="binary")
    assert metrics["bits_per_row"] == 8 * file_bytes(store.path, "part-*") / 150


def test_zstd_is_that_of_all_pixels_at_once(evaluation, splits):
    raw = splits["test"].load().pixels.tobytes()
    compressed = pa.Codec("zstd", compression_level=19).compress(raw)
    assert evaluation.metrics["zstd_bits_per_row"] == 8 * len(compressed) / 150


def test_break_even_is_where_store_and_codec_take_what_zstd_takes(evaluation):
    metrics = evaluation.metrics
    rows = metrics["break_even_rows"]

    def saved(rows):
        return rows * (metrics["zstd_bits_per_row"] - metrics["bits_per_row"]) - 8 * metrics["codec_bytes"]

    assert saved(rows) >= 0 > saved(rows - 1)


def test_there_is_no_break_even_where_zstd_takes_less(tmp_path):
    random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows.parquet", np.zeros((50, 5, 4), np.uint8), id=list(range(50)))
    metrics = evaluate_codec(tmp_path / "codec", samples, CPU).metrics
    assert metrics["zstd_bits_per_row"] < metrics["bits_per_row"]
    assert metrics["break_even_rows"] is None


# PCA.


def svd_reconstruction(train, test, size):
    mean = train.mean(axis=0)
    components = np.linalg.svd(train - mean, full_matrices=False)[2][:size]
    return (test - mean) @ components.T @ components + mean


def flat(samples):
    pixels = samples.load().pixels
    return pixels.reshape(len(pixels), -1) / 255.0


def test_pca_without_quantiser_is_the_singular_value_decomposition(splits, tmp_path):
    build_pca_codec(splits["train"], 6, 256, BYTES, tmp_path / "pca")
    test = splits["test"].load().pixels
    found = Codec.load(tmp_path / "pca").reconstruct_unquantised(test).reshape(150, -1)
    expected = svd_reconstruction(flat(splits["train"]), flat(splits["test"]), 6)
    # Decoded values are rounded to whole pixels and clipped; weights are float16.
    expected = np.clip(np.round(expected * 255), 0, 255)
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.9


def test_pca_is_that_of_scikit_learn_but_for_the_quantiser(splits, tmp_path):
    pca = pytest.importorskip("sklearn.decomposition").PCA(6).fit(flat(splits["train"]))
    random_codec(tmp_path / "codec", (12, 12), latent_size=6, levels=256)
    metrics = evaluate_codec(tmp_path / "codec", splits["test"], CPU, train=splits["train"]).metrics
    test = flat(splits["test"])
    expected = ((pca.inverse_transform(pca.transform(test)).clip(0, 1) - test) ** 2).mean()
    assert metrics["pca_mse"] == pytest.approx(expected, rel=0.02)


def test_pca_goes_through_the_same_levels_and_layout(evaluation, splits, tmp_path):
    build_pca_codec(splits["train"], 6, 16, BYTES, tmp_path / "pca")
    store = encode(splits["test"], tmp_path / "pca", tmp_path / "store")
    decoded = decode_store(store, tmp_path / "decoded", device="cpu")
    assert evaluation.metrics["pca_mse"] == pytest.approx(
        ((flat(decoded) - flat(splits["test"])) ** 2).mean(), rel=1e-6
    )
    assert evaluation.metrics["pca_bits_per_row"] == 8 * file_bytes(store.path, "part-*") / 150
    assert evaluation.metrics["pca_psnr"] == pytest.approx(-10 * np.log10(evaluation.metrics["pca_mse"]))


@pytest.mark.parametrize("count", [40, 1100])
def test_pca_of_rows_of_many_values_is_the_singular_value_decomposition_too(tmp_path, monkeypatch, count):
    monkeypatch.setattr(baselines, "_LARGEST_COVARIANCE", 15)  # a row has 16
    monkeypatch.setattr(baselines, "_GRAM_ROWS", 500)
    few = np.random.default_rng(5).normal(size=(count, 3)) @ np.random.default_rng(6).normal(size=(3, 16))
    rows = (128 + 20 * few).clip(0, 255).astype(np.uint8).reshape(count, 4, 4)
    samples = write_rows(tmp_path / "rows.parquet", rows)
    mean, components = baselines.fit_pca(samples, BYTES, 4)
    x = rows[:: -(-count // 500)].reshape(-1, 16) / 255
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-6)
    _, _, wanted = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(components @ wanted[:4].T), np.eye(4), atol=1e-3)


def test_pca_of_rows_that_are_all_alike_answers_them(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "_LARGEST_COVARIANCE", 15)
    samples = write_rows(tmp_path / "rows.parquet", np.full((9, 4, 4), 7, np.uint8))
    header = build_pca_codec(samples, 6, 16, BYTES, tmp_path / "pca")
    assert header.model.latent_size == 1
    assert (Codec.load(tmp_path / "pca").reconstruct_unquantised(samples.load().pixels).round() == 7).all()


def test_more_latents_than_values_are_cut_for_pca(tmp_path):
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((60, 2, 2), "uint8"), id=list(range(60)))
    assert build_pca_codec(samples, 32, 256, BYTES, tmp_path / "pca").model.latent_size == 4


def test_without_train_data_there_is_no_pca(tiny_codec, splits):
    evaluation = evaluate_codec(tiny_codec, splits["test"], CPU)
    assert evaluation.pca_rows is None
    assert not [name for name in evaluation.metrics if name.startswith("pca_")]
    assert [point["name"] for point in rate_distortion(evaluation.metrics)] == ["autoencoder"]
    assert "pca_mse" not in evaluation.per_class()[0]


def test_rate_distortion_has_a_point_for_each(evaluation):
    own, pca = rate_distortion(evaluation.metrics)
    assert (own["name"], own["mse"]) == ("autoencoder", evaluation.metrics["mse"])
    assert (pca["name"], pca["bits_per_row"]) == ("PCA", evaluation.metrics["pca_bits_per_row"])


# Classes, pictures, provenance.


def test_classes_are_means_over_their_rows(evaluation, splits):
    labels = splits["test"].load().attributes["label"].to_numpy()
    for line in evaluation.per_class():
        chosen = labels == line["label"]
        assert line["rows"] == chosen.sum() > 0
        assert line["mse"] == pytest.approx(evaluation.rows.values["mse"][chosen].mean())
        assert line["pca_mse"] == pytest.approx(evaluation.pca_rows.values["mse"][chosen].mean())
    assert [line["label"] for line in evaluation.per_class()] == [0, 1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", None, "b"], {"a": 1, "b": 2}),
        ([True, False, True, None], {False: 1, True: 2}),
        ([None] * 4, {}),
        ([[1], [2], [1], []], {}),
        (pa.array(["x", "y", "x", "x"]).dictionary_encode(), {"x": 3, "y": 1}),
    ],
    ids=["strings", "booleans", "nulls", "lists", "dictionary"],
)
def test_rows_without_a_label_are_in_no_class(labels, expected, tmp_path):
    random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((4, 5, 4), "uint8"), id=[3, 1, 2, 0], label=labels)
    classes = evaluate_codec(tmp_path / "codec", samples, CPU).per_class()
    assert {line["label"]: line["rows"] for line in classes} == expected


def test_pictured_rows_are_the_best_the_worst_and_some_by_seed(evaluation, tiny_codec, splits):
    row_mse = evaluation.rows.values["mse"]
    ids = splits["test"].load().attributes["id"].to_numpy()
    random, best, worst = evaluation.pictured
    assert [group.title for group in evaluation.pictured] == ["random", "best", "worst"]
    assert best.mse.tolist() == sorted(row_mse)[:PICTURED_ROWS]
    assert worst.mse.tolist() == sorted(row_mse, reverse=True)[:PICTURED_ROWS]
    for group in evaluation.pictured:
        rows = [int(np.flatnonzero(ids == id_)[0]) for id_ in group.ids]
        assert np.array_equal(group.mse, row_mse[rows])
        assert group.original.reshape(PICTURED_ROWS, -1) == pytest.approx(flat(splits["test"])[rows], abs=1e-6)
        assert ((group.decoded - group.original) ** 2).mean(axis=(1, 2)) == pytest.approx(group.mse, rel=1e-5)
    again = evaluate_codec(tiny_codec, splits["test"], CPU, seed=0).pictured[0]
    other = evaluate_codec(tiny_codec, splits["test"], CPU, seed=1).pictured[0]
    assert again.ids == random.ids != other.ids


def test_a_single_row_of_one_dimension_can_be_evaluated(tmp_path):
    random_codec(tmp_path / "codec", (9,), "float32")
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((1, 9), "float32"), id=["only"])
    evaluation = evaluate_codec(tmp_path / "codec", samples, CPU, train=samples)
    assert evaluation.metrics["ssim"] is None
    assert evaluation.metrics["mse"] > 0
    assert [group.ids for group in evaluation.pictured] == [["only"]] * 3


def test_the_codecs_own_metrics_are_added_but_never_replace_measured_ones(tiny_codec, splits, tmp_path, evaluation):
    assert evaluation.metrics["best_epoch"] == Codec.load(tiny_codec).header.provenance["metrics"]["best_epoch"]
    random_codec(tmp_path / "codec", (12, 12))
    change_header(tmp_path / "codec", provenance={"metrics": {"mse": 0.0, "epochs": 3}})
    metrics = evaluate_codec(tmp_path / "codec", splits["test"], CPU).metrics
    assert metrics["epochs"] == 3
    assert metrics["mse"] > 0.01


# The gate.

PASSING = {"mse": 0.01, "psnr": 20.0, "bits_per_row": 100.0, "pca_mse": 0.02}


@pytest.mark.parametrize(
    "gate",
    [
        GateParams(),
        GateParams(beat_pca=False),
        GateParams(max_mse=0.01, min_psnr=20.0, max_bits_per_row=100.0),
        GateParams(max_mse=0.011, min_psnr=19.9, max_bits_per_row=100.1),
    ],
)
def test_a_codec_that_meets_every_condition_passes(gate):
    check_gate(PASSING, gate)


def test_a_codec_that_fails_is_told_every_number():
    gate = GateParams(max_mse=0.005, min_psnr=30.5, max_bits_per_row=64)
    with pytest.raises(GateError) as caught:
        check_gate({**PASSING, "pca_mse": 0.0099}, gate)
    message = str(caught.value)
    assert "mse is 0.01, the gate asks for at most 0.005" in message
    assert "psnr is 20, the gate asks for at least 30.5" in message
    assert "bits_per_row is 100, the gate asks for at most 64" in message
    assert "mse is 0.01, not below PCA's 0.0099 at the same latent size" in message
    assert "\n" not in message


def test_conditions_are_judged_one_by_one():
    with pytest.raises(GateError) as caught:
        check_gate(PASSING, GateParams(max_mse=1.0, min_psnr=20.1))
    assert "psnr is 20," in str(caught.value)
    assert "mse is" not in str(caught.value)


def test_nothing_lost_passes_every_psnr():
    check_gate({**PASSING, "mse": 0.0, "psnr": None}, GateParams(min_psnr=99.0))


def test_beating_pca_without_pca_says_so():
    with pytest.raises(GateError, match=r"PCA was not computed, .*no train rows.*beat_pca: false"):
        check_gate({"mse": 0.01, "psnr": 20.0, "bits_per_row": 100.0}, GateParams())
    check_gate({"mse": 0.01, "psnr": 20.0, "bits_per_row": 100.0}, GateParams(beat_pca=False))


def test_an_evaluation_is_the_same_every_time(evaluation, tiny_codec, splits):
    again = evaluate_codec(tiny_codec, splits["test"], CPU, train=splits["train"])
    assert again.metrics == evaluation.metrics
    assert again.per_class() == evaluation.per_class()
