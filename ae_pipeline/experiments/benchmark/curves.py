"""The curve of a family of points: what it takes at a given quality, and how two differ on average.

That is the Bjontegaard delta rate: G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", ITU-T
SG16 VCEG-M33, 2001: the mean over PSNR of the difference of log10(bits). Curves are piecewise cubic and monotone
(PCHIP) as in S. Pateux and J. Jung, "An Excel add-in for computing Bjontegaard metric and its evolution", VCEG-AE07,
2007: one cubic through all points, as in the first paper, can swing between them. There, a family's curve goes through
the convex hull of its settings, as in I. Katsavounidis and L. Guo, "Video codec comparison using the dynamic optimizer
framework", SPIE 10752, 2018.

Where vectors are judged by their neighbours, the same is done with what their recall lacks in place of the MSE.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from ae_pipeline.experiments.benchmark.points import OURS, Point
from ae_pipeline.experiments.front import front, grouped

# A curve through fewer points is none.
_FEWEST_POINTS = 2
# A mean over less, dB, says nothing.
_LEAST_COMMON = 0.5
# Between settings that are further apart, dB, nobody knows what another one would take; but rows can be divided between
# the two.
_WIDEST_GAP = 4.0


@dataclass(frozen=True)
class Cost:
    """What a quality takes in one family, and the point that stands for it."""

    bits: float
    point: Point
    worse: Point | None = None
    """The other point, if `bits` were read off the curve between two; `point`, the better one, takes more."""


def _hull(points: Iterable[Point], rows: float) -> list[Point]:
    """The lossy front without settings that a mixture of two others beats: some rows in one, the rest in the other.

    Such a one, which nobody needs, would bend the curve: the family would seem worse for offering it.
    """
    best: list[Point] = []
    for point in _lossy_front(points, rows):
        while len(best) > 1 and _is_beaten_by_mixing(best[-1], best[-2], point, rows):
            best.pop()
        best.append(point)
    return best


def _is_beaten_by_mixing(point: Point, fewer: Point, more: Point, rows: float) -> bool:
    start, end = fewer.bits_at(rows), more.bits_at(rows)
    share = (point.bits_at(rows) - start) / (end - start)
    return point.error >= (1 - share) * fewer.error + share * more.error


def _curve(best: list[Point], rows: float) -> tuple[np.ndarray, np.ndarray]:
    """Decibel (PSNR), rising, and the logarithm to base 10 of bits per row, of points on the front."""
    psnr = np.array([point.decibel for point in best], float)
    return psnr, np.log10([max(point.bits_at(rows), 1e-9) for point in best])


def _lossy_front(points: Iterable[Point], rows: float) -> list[Point]:
    best = front(points, lambda point: point.bits_at(rows), lambda point: point.error)
    return [point for point in best if point.decibel is not None]


def cost(points: list[Point], psnr: float | None, rows: float) -> Cost | None:
    """The fewest bits per row of one family at this quality or a better one; None if it does not reach it.

    Between two points, where a setting in between would lie, the curve counts: piecewise cubic and monotone, as in
    `bd_rate`; where they are more than 4 dB apart, some rows in one setting and the rest in the other. `psnr` None asks
    for lossless points.
    """
    wanted = math.inf if psnr is None else psnr
    good = [point for point in points if point.decibel is None or point.decibel >= wanted]
    if not good:
        return None
    best = min(good, key=lambda point: (point.bits_at(rows), point.error))
    bits, worse = best.bits_at(rows), None
    lossy = _lossy_front(points, rows)
    reached, logs = _curve(lossy, rows)
    place = int(np.searchsorted(reached, wanted))
    if 0 < place < len(reached) and wanted < reached[place]:
        fewer, more = lossy[place - 1 : place + 1]
        if reached[place] - reached[place - 1] <= _WIDEST_GAP:
            read = 10 ** float(PchipInterpolator(reached, logs)(wanted))
        else:
            share = (fewer.error - 10 ** (-wanted / 10)) / (fewer.error - more.error)
            read = fewer.bits_at(rows) + share * (more.bits_at(rows) - fewer.bits_at(rows))
        if read < bits:
            bits, worse = read, fewer
    return Cost(bits, best, worse)


@dataclass(frozen=True)
class Saving:
    """`change` -0.3: on average 30% fewer bits than the anchor; None without enough qualities in common."""

    anchor: str
    with_codec: bool
    change: float | None
    psnr_from: float | None
    psnr_to: float | None


def bd_rate(anchor: list[Point], tested: list[Point], rows: float) -> tuple[float, float, float] | None:
    """Relative change in bits from `anchor` to `tested` when `rows` rows share each codec, and the PSNR it is over.

    None if a curve has fewer than two points, or they have less than half a decibel in common.
    """
    curves = [_curve(_hull(points, rows), rows) for points in (anchor, tested)]
    if any(len(psnr) < _FEWEST_POINTS for psnr, _ in curves):
        return None
    low, high = max(psnr[0] for psnr, _ in curves), min(psnr[-1] for psnr, _ in curves)
    if high - low < _LEAST_COMMON:
        return None
    before, after = (float(PchipInterpolator(psnr, logs).integrate(low, high)) for psnr, logs in curves)
    return 10 ** ((after - before) / (high - low)) - 1, float(low), float(high)


def savings(points: list[Point], rows: int) -> list[Saving]:
    """Our codecs against every other family, without the codecs' bytes and with them."""
    families = grouped(points, lambda point: point.family)
    ours = families.pop(OURS, [])
    found = []
    for name, anchor in families.items():
        if all(point.decibel is None for point in anchor):
            continue  # lossless families are points
        for with_codec, sharing in ((False, math.inf), (True, rows)):
            change, low, high = bd_rate(anchor, ours, sharing) or (None, None, None)
            found.append(Saving(name, with_codec, change, low, high))
    return found
