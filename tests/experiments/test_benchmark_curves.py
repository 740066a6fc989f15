"""The benchmark's curves: fronts, readings between settings, BD-rate."""

import math

import pytest
from test_benchmark_verdict import point

from ae_pipeline.evaluation.measures.metrics import psnr_of
from ae_pipeline.experiments.benchmark.curves import bd_rate, cost, savings
from ae_pipeline.experiments.benchmark.points import OURS
from ae_pipeline.experiments.front import front


def curve_of(family, bits, codec_bytes=0):
    return [point(family, b, mse, codec_bytes, str(b)) for b, mse in zip(bits, (0.02, 0.01, 0.004, 0.001), strict=True)]


BITS = [50.0, 90.0, 200.0, 400.0]


def test_the_front_has_no_point_that_another_one_beats():
    points = [*curve_of("a", BITS), point("a", 95.0, 0.01), point("a", 60.0, 0.03), point("a", 50.0, 0.05)]
    assert front(points, lambda found: found.bits_per_row) == points[:4]


def test_half_the_bits_everywhere_is_a_bd_rate_of_minus_one_half():
    halved = curve_of("b", [bits / 2 for bits in BITS])
    change, low, high = bd_rate(curve_of("a", BITS), halved, math.inf)
    assert change == pytest.approx(-0.5)
    assert (low, high) == pytest.approx((10 * math.log10(50), 30))
    assert bd_rate(halved, curve_of("a", BITS), math.inf)[0] == pytest.approx(1.0)


def test_a_setting_that_a_mixture_beats_does_not_bend_the_curve():
    """Between two settings in bits and error: what mixing them beats changes nothing."""
    anchor = [point("a", bits, error) for bits, error in ((100.0, 1e-1), (10_000.0, 1e-3))]
    family = [point("b", 60.0, 8e-3), point("b", 300.0, 2e-3)]
    between = [point("b", 180.0, error) for error in (7e-3, 5.01e-3, 2.5e-3)]  # the line is at 5e-3
    rates = [bd_rate(anchor, [*family, more], math.inf)[0] for more in between]
    without = bd_rate(anchor, family, math.inf)[0]
    assert rates[:2] == [without, without]
    assert rates[2] < without
    assert bd_rate([*family, between[0]], anchor, math.inf) == bd_rate(family, anchor, math.inf)


def test_bd_rate_is_the_area_between_straight_lines_over_what_both_cover():
    """Two points each: lines in log10(bits) over PSNR, whose mean difference is that in the middle."""
    anchor = [point("a", 100.0, 1e-1), point("a", 10_000.0, 1e-3)]  # 10 to 30 dB: log10 is 1 + psnr / 10
    tested = [point("b", 1000.0, 1e-2), point("b", 10_000.0, 1e-4)]  # 20 to 40 dB: log10 is 2 + psnr / 20
    change, low, high = bd_rate(anchor, tested, math.inf)
    assert (low, high) == pytest.approx((20, 30))
    assert change == pytest.approx(10 ** ((2 + 25 / 20) - (1 + 25 / 10)) - 1)


@pytest.mark.parametrize(
    "tested",
    [curve_of("b", BITS)[:1], [], [point("b", 1.0, 0.5), point("b", 2.0, 0.4)], [point("b", 9.0, 0.0)] * 2],
    ids=["one point", "none", "no quality in common", "lossless"],
)
def test_there_is_no_bd_rate_without_two_curves_over_the_same_qualities(tested):
    assert bd_rate(curve_of("a", BITS), tested, math.inf) is None


def test_savings_are_told_with_the_codec_and_without():
    points = [*curve_of(OURS, BITS, 1000), *curve_of("PCA", BITS), point("zstd", 900.0, 0.0)]
    without, counted = savings(points, 100)
    assert (without.anchor, without.with_codec, without.change) == ("PCA", False, pytest.approx(0, abs=1e-12))
    assert (counted.with_codec, counted.change > 0.1) == (True, True)


def test_a_curve_costs_no_more_than_the_next_better_point_and_is_not_extended():
    points = curve_of("a", BITS)
    between = cost(points, 22.0, math.inf)
    assert (between.worse.bits_per_row, between.point.bits_per_row) == (90.0, 200.0)
    assert 90 < between.bits < 200
    assert cost(points, 5.0, math.inf).bits == 50
    assert cost(points, 30.1, math.inf) is None
    assert cost(points, None, math.inf) is None
    assert cost([*points, point("a", 900.0, 0.0)], 30.1, math.inf).bits == 900


def test_between_settings_that_are_far_apart_rows_are_divided():
    points = [point("a", bits, mse, 0, str(bits)) for bits, mse in ((50.0, 0.01), (200.0, 0.002))]  # 7 dB
    found = cost(points, psnr_of(0.004), math.inf)
    assert found.bits == pytest.approx(50 + 0.75 * 150)
    assert (found.point, found.worse) == (points[1], points[0])


def test_less_than_half_a_decibel_in_common_is_no_bd_rate():
    anchor = [point("a", 100.0, 1e-2), point("a", 200.0, 1e-3)]  # 20 to 30 dB
    tested = [[point("b", 100.0, 10 ** -(start / 10)), point("b", 200.0, 1e-4)] for start in (29.6, 29.4)]
    assert [bd_rate(anchor, points, math.inf) is None for points in tested] == [True, False]
