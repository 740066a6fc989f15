"""Whether a challenger should be champion: real codecs of different quality on the same held-out rows."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet, ShardWriter
from ae_pipeline.errors import DataError
from ae_pipeline.evaluation.evaluate import evaluate_codec
from ae_pipeline.operation.champion.comparison import compare_codecs, paired_difference
from ae_pipeline.params import EncodeParams, GateParams, Params
from ae_pipeline.params.operation import PromotionParams
from ae_pipeline.training.build import build_codec

pytestmark = pytest.mark.slow

ENCODE = EncodeParams(device="cpu")
# Time is not what most tests are about; with this nothing fails for it.
ANY_SPEED = 1e-6


def train(prepared, params, folder, **changes):
    tree = params.model_dump()
    tree["train"] |= changes
    nothing = {"commit": None, "dirty": None}
    splits = [SampleSet.open(prepared / split) for split in ("train", "validation")]
    build_codec(*splits, Params.model_validate(tree), folder, nothing, lambda epoch: None)
    return folder


@pytest.fixture(scope="module")
def good(synthetic_prepared, tiny_params, tmp_path_factory):
    return train(synthetic_prepared, tiny_params, tmp_path_factory.mktemp("good") / "codec", epochs=30)


@pytest.fixture(scope="module")
def held_out(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "test")


def judged(champion, challenger, held_out, **limits):
    params = PromotionParams(**{"min_speed": ANY_SPEED, "max_bits_increase": 1.0, **limits})
    return compare_codecs(champion, challenger, held_out, params, ENCODE)


def failing(verdict):
    return [condition.name for condition in verdict.conditions if not condition.holds]


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize("rows", [2, 17, 1000])
def test_the_interval_is_that_of_a_paired_t_test(rows, confidence):
    random = np.random.default_rng(rows)
    champion = random.gamma(2, 0.01, rows)
    challenger = champion + random.normal(0.001, 0.003, rows)
    found = paired_difference(champion, challenger, confidence)
    expected = stats.ttest_rel(challenger, champion).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    difference = challenger - champion
    assert found.mean == pytest.approx(difference.sum() / rows)
    s = np.sqrt(((difference - difference.mean()) ** 2).sum() / (rows - 1))
    half = stats.t(rows - 1).isf((1 - confidence) / 2) * s / np.sqrt(rows)
    assert found.high - found.mean == pytest.approx(half)


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        hard = random.gamma(2, 1, 30)
        found = paired_difference(hard, hard + random.normal(0.1, 0.2, 30), 0.9)
        covered += found.low <= 0.1 <= found.high
    assert stats.binomtest(covered, 2000, 0.9).pvalue > 1e-4


def test_equal_rows_have_an_interval_of_no_width_and_one_row_has_none():
    rows = np.full(9, 0.25)
    found = paired_difference(rows, rows, 0.95)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    with pytest.raises(DataError, match=r"1 held-out row\(s\), expected at least 2.*larger"):
        paired_difference(rows[:1], rows[:1], 0.95)


def test_a_better_challenger_is_promoted_and_the_other_way_round_it_is_not(tiny_codec, good, held_out):
    better, worse = judged(tiny_codec, good, held_out), judged(good, tiny_codec, held_out)
    assert better.promote
    assert not failing(better)
    assert better.difference.high < 0
    assert better.challenger.mse < better.champion.mse
    assert failing(worse) == ["mse_increase"]
    assert "MSE" in worse.reason
    assert worse.difference.mean == pytest.approx(-better.difference.mean)
    assert (better.rows, better.data_digest) == (150, held_out.digest)


def test_the_numbers_are_those_of_evaluate(tiny_codec, good, held_out):
    verdict = judged(tiny_codec, good, held_out)
    for path, measured in ((tiny_codec, verdict.champion), (good, verdict.challenger)):
        expected = evaluate_codec(path, held_out, ENCODE).metrics
        for name in ("mse", "bits_per_row", "codec_bytes"):
            assert getattr(measured, name) == pytest.approx(expected[name])
        assert measured.fingerprint == Codec.load(path).fingerprint
        assert measured.encode_rows_per_s > 0
        assert measured.decode_rows_per_s > 0
    assert verdict.bits_ratio == pytest.approx(verdict.challenger.bits_per_row / verdict.champion.bits_per_row)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_mse_increase": -0.99}, "mse_increase"),
        ({"max_bits_increase": -0.9}, "bits_increase"),
        ({"min_speed": 1e6}, "speed"),
    ],
)
def test_each_threshold_alone_decides(tiny_codec, good, held_out, limits, name):
    verdict = judged(tiny_codec, good, held_out, **limits)
    assert not verdict.promote
    expected = ["encode_speed", "decode_speed"] if name == "speed" else [name]
    assert failing(verdict) == expected
    for condition in verdict.conditions:
        assert (condition.text in verdict.reason) == (condition.name in expected)
    limit = next(condition.limit for condition in verdict.conditions if condition.name == expected[0])
    assert limit == next(iter(limits.values()))


def test_a_slightly_worse_one_passes_with_a_limit_that_allows_it(tiny_codec, good, held_out):
    strict = judged(good, tiny_codec, held_out)
    allowed = next(condition.found for condition in strict.conditions if condition.name == "mse_increase")
    assert allowed == pytest.approx(strict.difference.high / strict.champion.mse)
    assert judged(good, tiny_codec, held_out, max_mse_increase=allowed + 1e-6).promote
    assert not judged(good, tiny_codec, held_out, max_mse_increase=allowed - 1e-6).promote


def test_the_same_codec_is_nothing_to_do_and_nothing_is_measured(tiny_codec, held_out):
    verdict = judged(tiny_codec, tiny_codec, held_out)
    assert not verdict.promote
    assert "nothing to do" in verdict.reason
    assert (verdict.rows, verdict.champion) == (0, None)


def test_codecs_of_different_samples_are_refused(tiny_codec, tiny_params, tmp_path, held_out):
    from ae_pipeline.data.splits import write_splits
    from ae_pipeline.sources import build_source

    tree = tiny_params.model_dump()
    tree["source"]["synthetic"] |= {"height": 8, "width": 8, "train_rows": 100, "test_rows": 20}
    params = Params.model_validate(tree)
    source = build_source(params.source)
    (tmp_path / "raw").mkdir()
    source.fetch(tmp_path / "raw")
    write_splits(source.read(tmp_path / "raw"), tmp_path / "prepared", params.prepare)
    other = train(tmp_path / "prepared", params, tmp_path / "codec", epochs=1)
    verdict = judged(tiny_codec, other, SampleSet.open(tmp_path / "prepared/test"))
    assert not verdict.promote
    assert "12x12" in verdict.reason
    assert "8x8" in verdict.reason
    assert "by hand" in verdict.reason


@pytest.mark.parametrize("most", [1, 2, 149, 150, 151])
def test_the_first_rows_are_compared(tiny_codec, good, held_out, most):
    if most == 1:
        with pytest.raises(DataError, match="at least 2"):
            judged(tiny_codec, good, held_out, max_rows=most)
        return
    verdict = judged(tiny_codec, good, held_out, max_rows=most)
    pixels = held_out.load().pixels[:most]
    codec = Codec.load(good)
    error = (codec.decode(codec.encode(pixels)) / 255.0 - pixels / 255.0) ** 2
    assert verdict.rows == min(most, 150)
    assert verdict.challenger.mse == pytest.approx(error.mean(), rel=1e-5)


def test_errors_of_both_are_in_the_champions_units(tiny_params, tmp_path):
    """Float samples are scaled by the range of the train split: one outlier there would make every error look small."""
    random = np.random.default_rng(0)
    pixels = random.normal(0, 1, (300, 4, 4)).astype(np.float32)
    outlier = pixels.copy()
    outlier[0, 0, 0] = 100.0
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    codecs = {}
    for name, rows in (("champion", pixels), ("challenger", outlier)):
        for split in ("train", "validation"):
            with ShardWriter(tmp_path / name / split / "part-00000.parquet", schema, spec_of(rows)) as writer:
                writer.write(pa.table({"id": np.arange(len(rows))}, schema=schema), rows)
        codecs[name] = train(tmp_path / name, tiny_params, tmp_path / name / "codec", epochs=2)
    held_out = SampleSet.open(tmp_path / "champion/validation")
    scaling = {name: Codec.load(path).header.scaling.scale for name, path in codecs.items()}
    assert scaling["challenger"] > 5 * scaling["champion"]
    verdict = judged(codecs["champion"], codecs["challenger"], held_out)
    codec = Codec.load(codecs["challenger"])
    error = np.square((codec.decode(codec.encode(pixels)) - pixels) / scaling["champion"]).mean()
    assert verdict.challenger.mse == pytest.approx(error, rel=1e-4)
    assert failing(verdict) == ["mse_increase"]


def spec_of(rows):
    from ae_pipeline.data.pixels import SampleSpec

    return SampleSpec(rows.shape[1:], str(rows.dtype))


def test_without_a_champion_the_gate_alone_decides(tiny_codec, held_out):
    def first(**arguments):
        return compare_codecs(None, tiny_codec, held_out, PromotionParams(min_speed=1e9), ENCODE, **arguments)

    passed = first()
    assert passed.promote
    assert "no champion yet" in passed.reason
    assert (passed.champion, passed.champion_codec, passed.difference) == (None, None, None)
    assert passed.challenger.mse > 0
    failed = first(gate=GateParams(max_mse=1e-6, beat_pca=False))
    assert not failed.promote
    assert failing(failed) == ["gate"]
    assert "the gate asks for at most 1e-06" in failed.reason
    # What `evaluate` measured counts, and only it knows PCA.
    assert first(gate=GateParams(max_mse=1e-6, beat_pca=False), evaluated={"mse": 1e-7}).promote
    assert first(gate=GateParams(), evaluated={"pca_mse": 1.0}).promote
    assert not first(gate=GateParams(), evaluated={"pca_mse": 1e-9}).promote
    assert "PCA was not computed" in first(gate=GateParams()).reason


def test_the_verdict_is_json_and_a_page(tiny_codec, good, held_out):
    verdict = judged(tiny_codec, good, held_out)
    values = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert values["conditions"][0]["name"] == "mse_increase"
    assert values["challenger"] == verdict.challenger.as_dict()
    page = verdict.as_markdown()
    assert verdict.reason in page
    assert "| mse |" in page
    assert "| r2 |" in page
    assert "beside_mean" not in page
    withheld = verdict.withheld("not_taken_back", "somebody took it back")
    assert not withheld.promote
    assert withheld.reason.startswith("somebody took it back. The comparison alone says: ")
    assert failing(withheld) == ["not_taken_back"]
