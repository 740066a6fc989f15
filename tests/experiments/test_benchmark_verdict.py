"""The verdict is read from numbers: the autoencoder loses where it must, wins where it must, and the words say so."""

import math
from dataclasses import replace

import numpy as np
import pytest
from handmade import write_rows

from ae_pipeline.evaluation.measures.metrics import psnr_of
from ae_pipeline.experiments.benchmark.points import OURS, Point, take_rows
from ae_pipeline.experiments.benchmark.run import better_than_mean, measure
from ae_pipeline.experiments.benchmark.verdict import break_even_rows, judge
from ae_pipeline.params import Params
from ae_pipeline.training.batches import fit_scaling
from ae_pipeline.training.build import build_codec

pytestmark = pytest.mark.slow

SIDE = 16


def point(family, bits, mse, codec_bytes=0, setting="a"):
    """A line of the table made by hand, with the codec shared by 1,000 rows."""
    return Point(
        name=f"{family} {setting}",
        family=family,
        setting=setting,
        bits_per_row=bits,
        bits_per_row_with_codec=bits + 8 * codec_bytes / 1000,
        metrics={"mse": mse, "psnr": psnr_of(mse), "ssim": None},
        encode_rows_per_s=1.0,
        decode_rows_per_s=1.0,
        codec_bytes=codec_bytes,
    )


OWN = point(OURS, 100.0, 0.005, codec_bytes=100_000)
ZSTD = point("zstd", 1100.0, 0.0, setting="19")
PCA = [point("PCA", 300.0, 0.004, 10_000, "large"), point("PCA", 150.0, 0.02, 5_000, "small")]
WEBP = [point("WebP mosaic", 400.0, 0.003, setting="q9"), point("WebP mosaic", 250.0, 0.0075, setting="q1")]


def test_the_smallest_at_the_quality_wins_and_the_codec_counts():
    few, many = judge([OWN, ZSTD], 700), judge([OWN, ZSTD], 900)
    # 100 bits and 800,000 for the codec against 1,100.
    assert few.choices[0].use == "zstd"
    assert many.choices[0].use == OURS
    assert many.choices[0].bits == pytest.approx(100 + 800_000 / 900)


def test_where_none_of_our_codecs_is_better_than_the_mean_the_verdict_names_what_loses_nothing():
    useful = better_than_mean([OWN, ZSTD, *PCA], OWN.mse)
    assert useful == [ZSTD, PCA[0]]
    verdict = judge(useful, 1000)
    assert verdict.choices == []
    assert verdict.summary == (
        "At 1,000 rows, do not use an autoencoder: none of our codecs is better than answering each value's mean. "
        "zstd 19 takes 1,100 bits per row and loses nothing."
    )
    assert judge(PCA, 1000).summary.endswith("is better than answering each value's mean.")


def test_break_even_is_the_first_row_count_that_pays():
    assert break_even_rows(OWN, {"zstd": [ZSTD]}) == 800
    # PCA with its codec: 300 bits and 80,000; ours pays when 200 bits a row have saved the other 720,000.
    assert break_even_rows(OWN, {"PCA": PCA[:1]}) == 3600
    assert break_even_rows(OWN, {"zstd": [ZSTD], "PCA": PCA[:1]}) == 3600


def test_from_the_break_even_on_ours_is_no_larger():
    points = [OWN, ZSTD, *PCA, *WEBP]
    even = judge(points, 1000).choices[0].break_even_rows
    assert judge(points, even).choices[0].use == OURS
    assert judge(points, even - 1).choices[0].use != OURS
    for rows in (2 * even, 10 * even, 10**9):
        assert judge(points, rows).choices[0].use == OURS


def test_there_is_no_break_even_where_something_smaller_needs_no_codec():
    choice = judge([OWN, point("WebP mosaic", 90.0, 0.005)], 1000).choices[0]
    assert choice.break_even_rows is None
    assert choice.use == "WebP mosaic"
    assert "at no number of rows" in choice.sentence


def test_what_does_not_reach_the_quality_is_no_alternative():
    assert judge([OWN, point("JPEG files", 1.0, 0.006)], 1).choices[0].use == OURS
    assert judge([OWN], 1).choices[0].best_alternative is None


def test_it_says_where_our_codecs_stop_and_what_takes_over():
    limit = judge([OWN, ZSTD, *PCA, *WEBP], 10**9).limit
    assert limit.startswith("Beyond 23.0 dB (MSE 0.00500) none of these codecs goes")
    # Nothing is as small as PCA there, at rows without number; the lossless point is named as well.
    assert "use PCA" in limit
    assert "zstd 19, 1,100 bits per row, loses nothing" in limit


def test_where_only_lossless_is_better_it_says_so():
    assert judge([OWN, ZSTD], 10**9).limit.endswith("zstd 19, 1,100 bits per row, loses nothing.")
    assert "nothing else here does either" in judge([OWN], 10**9).limit


def test_without_codecs_there_is_no_limit():
    assert judge([ZSTD], 10).limit is None


def test_an_alternative_between_two_settings_is_read_off_its_curve():
    choice = judge([OWN, *WEBP], 1000).choices[0]
    assert choice.use == "WebP mosaic"
    assert 250 < choice.best_alternative_bits < 400
    reached = psnr_of(0.005)
    ends = psnr_of(0.0075), psnr_of(0.003)
    share = (reached - ends[0]) / (ends[1] - ends[0])
    # Two points: the monotone cubic is a line in log(bits).
    assert choice.best_alternative_bits == pytest.approx(250 * (400 / 250) ** share)
    better, worse = sorted(WEBP, key=lambda point: point.mse)
    assert f"{worse.setting} takes 250 bits per row, {better.setting} 400 bits per row" in choice.sentence


def test_few_measured_rows_are_said_to_weigh():
    few, many = (replace(OWN, measured_rows=rows) for rows in (999, 1000))
    assert "Only 999 rows were measured" in judge([few, ZSTD], 10).summary
    assert "were measured" not in judge([many, ZSTD], 10).summary
    assert "were measured" not in judge([few], 10).summary


def test_a_lossless_one_is_to_be_kept_and_nothing_lossy_is():
    kept = judge([OWN, ZSTD, point("WebP mosaic", 1200.0, 0.001)], 500).choices[0].sentence
    assert "keep zstd 19" in kept
    assert "loses nothing" in kept
    used = judge([OWN, point("WebP mosaic", 250.0, 0.005)], 500).choices[0].sentence
    assert "use WebP mosaic a" in used
    assert "loses nothing" not in used


def test_every_quality_of_ours_has_a_line_and_a_layout_is_no_quality():
    small, fine = point(OURS, 60.0, 0.008, 1000, "small"), point(OURS, 300.0, 0.0025, 1000, "fine")
    larger_layout = point(OURS, 70.0, 0.008, 1000, "small, other layout")
    verdict = judge([larger_layout, small, fine, point("AVIF mosaic", 250.0, 0.0025)], 10_000)
    assert [choice.preset for choice in verdict.choices] == [small.name, fine.name]
    assert [choice.use for choice in verdict.choices] == [OURS, "AVIF mosaic"]
    assert small.name in verdict.summary
    assert fine.name not in verdict.summary


def test_a_smaller_codec_of_ours_that_is_as_good_is_the_one_to_use():
    large, compact = point(OURS, 60.0, 0.008, 100_000, "large"), point(OURS, 70.0, 0.007, 5_000, "compact")
    avif = point("AVIF mosaic", 200.0, 0.006)
    few, many = judge([large, compact, avif], 10_000), judge([large, compact, avif], 76_000)
    first, second = few.choices
    assert (first.preset, first.better_preset, first.use) == (large.name, compact.name, OURS)
    assert f"use {compact.name}, which takes 74 bits per row at an MSE of 0.00700" in first.sentence
    # 760,000 bits of codec more, and 10 a row less.
    assert f"{large.name} takes 140 bits per row, 60 bits per row without its codec, and less than" in first.sentence
    assert "from 76,000 rows on" in first.sentence
    assert (second.preset, second.better_preset) == (compact.name, None)
    assert f"at the quality of: {compact.name}." in few.summary
    assert many.choices[0].better_preset is None
    assert f"use {large.name}" in many.choices[0].sentence


def test_a_codec_of_ours_that_is_never_the_smaller_one_is_told():
    large, compact = point(OURS, 60.0, 0.008, 100_000, "large"), point(OURS, 59.0, 0.007, 5_000, "compact")
    assert "at no number of rows less" in judge([large, compact, ZSTD], 10_000).choices[0].sentence


def test_a_worse_codec_of_ours_is_none_to_use_instead():
    fine, compact = point(OURS, 60.0, 0.0069, 100_000, "fine"), point(OURS, 70.0, 0.007, 5_000, "compact")
    assert [choice.better_preset for choice in judge([fine, compact, ZSTD], 10_000).choices] == [None, None]


def test_where_others_are_smaller_than_all_of_ours_the_line_is_theirs():
    large, compact = point(OURS, 60.0, 0.008, 100_000, "large"), point(OURS, 70.0, 0.007, 5_000, "compact")
    first, second = judge([large, compact, point("AVIF mosaic", 72.0, 0.006)], 10_000).choices
    assert (first.use, second.use) == ("AVIF mosaic", "AVIF mosaic")
    assert "use AVIF mosaic" in first.sentence
    assert first.better_preset == compact.name
    assert first.sentence.endswith(f" Of ours, {compact.name} is as good and takes 74 bits per row.")


def test_fast_settings_of_image_codecs_are_told():
    assert "bench.image_effort: best" in judge([OWN, *WEBP], 1000, "fast").summary
    assert "image_effort" not in judge([OWN, *WEBP], 1000).summary
    assert "image_effort" not in judge([OWN, ZSTD, *PCA], 1000, "fast").summary


def test_far_from_a_setting_rows_are_divided_between_its_neighbours():
    far = [point("AVIF mosaic", 48.0, 0.006, setting="q1"), point("AVIF mosaic", 66.0, 0.001, setting="q2")]
    choice = judge([OWN, *far], 1000).choices[0]
    assert (choice.use, choice.best_alternative) == ("AVIF mosaic", far[1].name)
    assert choice.best_alternative_bits == pytest.approx(48 + 0.2 * 18)  # a fifth of the way in MSE, from .006 to .001
    assert "q1 takes 48 bits per row, q2 66 bits per row" in choice.sentence


def test_the_summary_says_when_none_of_ours_ever_pays():
    assert "none of our codecs pays at any number" in judge([OWN, point("zstd", 50.0, 0.0)], 10).summary
    assert "from 800 rows on" in judge([OWN, ZSTD], 10).summary


# Real data.


def settings(latent_size, levels, hidden_size, epochs):
    train = {"latent_size": latent_size, "epochs": epochs, "batch_size": 64, "learning_rate": 0.005, "device": "cpu"}
    return Params.model_validate(
        {
            "model": {"dense": {"hidden_sizes": [hidden_size]}},
            "train": train,
            "quantiser": {"levels": levels},
            "encode": {"device": "cpu"},
            "bench": {
                "image_effort": "fast",
                "single_files": 10,
                "pca_sizes": [1, 2, 4, 8, 16, 32],
                "pca_levels": [4, 8, 16, 32],
            },
        }
    )


def benchmark(tmp_path, pixels, params, tested):
    """Train on all but the last `tested` rows and 200 for validation; measure on the last."""
    cuts = {"train": pixels[: -tested - 200], "validation": pixels[-tested - 200 : -tested], "test": pixels[-tested:]}
    sets = {
        name: write_rows(tmp_path / f"{name}.parquet", rows, id=list(range(len(rows)))) for name, rows in cuts.items()
    }
    build_codec(sets["train"], sets["validation"], params, tmp_path / "codec", {}, lambda epoch: None)
    rows = take_rows(sets["test"], tested, fit_scaling(sets["train"]), tmp_path / "rows")
    return measure(rows, sets["train"], {"tiny": tmp_path / "codec"}, params)[0]


def test_the_autoencoder_loses_on_noise(tmp_path):
    """Nothing can be learned, so the cheapest way to say little wins, however many rows there are."""
    noise = np.random.default_rng(0).integers(0, 256, (900, SIDE, SIDE), np.uint8)
    points = benchmark(tmp_path, noise, settings(8, 16, 16, 3), 300)
    for rows in (300, 10**6):
        assert {choice.use for choice in judge(points, rows).choices}.isdisjoint({OURS})
    assert {choice.break_even_rows for choice in judge(points, 300).choices} == {None}


def test_the_autoencoder_loses_on_a_linear_subspace(tmp_path):
    """Where PCA is optimal, it takes as many numbers as there are dimensions, and a network adds only error."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(SIDE * SIDE, 4)))[0].T
    values = 128 + random.uniform(-1, 1, (1500, 4)) @ basis * 300
    pixels = np.round(values.clip(0, 255)).astype(np.uint8).reshape(-1, SIDE, SIDE)
    points = benchmark(tmp_path, pixels, settings(4, 16, 32, 10), 300)
    assert {choice.use for choice in judge(points, 300).choices} == {"PCA"}
    assert {choice.use for choice in judge(points, 10**9).choices} == {"PCA"}


@pytest.fixture(scope="module")
def hidden_disc(tmp_path_factory):
    """One round spot at any place, seen through a fixed shuffle of all pixels: two numbers make a picture.

    Image codecs see noise, PCA needs a component for each place; the network can learn both.
    """
    random = np.random.default_rng(0)
    centre = random.uniform(3, SIDE - 3, (2, 4000, 1, 1))
    places = np.arange(SIDE)
    distance = (places[:, None] - centre[0]) ** 2 + (places - centre[1]) ** 2
    spots = np.round(255 * np.exp(-distance / (2 * 1.3**2))).astype(np.uint8)
    order = random.permutation(SIDE * SIDE)
    shuffled = spots.reshape(len(spots), -1)[:, order].reshape(spots.shape)
    return benchmark(tmp_path_factory.mktemp("disc"), shuffled, settings(4, 64, 24, 30), 600)


def test_the_autoencoder_wins_on_a_curved_manifold(hidden_disc):
    (choice,) = judge(hidden_disc, 50_000).choices
    assert choice.use == OURS
    assert choice.bits < choice.best_alternative_bits
    assert 200 < choice.break_even_rows < 50_000


def test_the_autoencoder_loses_with_200_rows_of_the_same_data(hidden_disc):
    (choice,) = judge(hidden_disc, 200).choices
    assert choice.use != OURS
    assert choice.break_even_rows > 200
    assert f"from {choice.break_even_rows:,} rows on" in choice.sentence


def test_every_point_agrees_with_its_own_numbers(hidden_disc):
    assert len({found.name for found in hidden_disc}) == len(hidden_disc)
    for found in hidden_disc:
        assert found.bits_per_row_with_codec == pytest.approx(found.bits_at(600))
        assert (found.psnr is None) == (found.mse == 0)
        assert min(found.encode_rows_per_s, found.decode_rows_per_s) > 0
        assert found.bits_at(math.inf) == found.bits_per_row > 0
