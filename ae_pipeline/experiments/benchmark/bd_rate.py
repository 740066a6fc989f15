"""The average difference in bits between two curves at equal quality (Bjontegaard delta rate).

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", ITU-T SG16 VCEG-M33, 2001: the mean over
PSNR of the difference of log10(bits). Curves are piecewise cubic and monotone (PCHIP) as in S. Pateux and J. Jung, "An
Excel add-in for computing Bjontegaard metric and its evolution", VCEG-AE07, 2007: one cubic through all points, as in
the first paper, can swing between them. A family's curve goes through the convex hull of its settings, as in I.
Katsavounidis and L. Guo, "Video codec comparison using the dynamic optimizer framework", SPIE 10752, 2018.
"""

import math
from dataclasses import dataclass

from scipy.interpolate import PchipInterpolator

from ae_pipeline.experiments.benchmark.measure.curves import FEWEST_POINTS, by_family, curve, hull
from ae_pipeline.experiments.benchmark.measure.points import OURS, Point

# A mean over less says nothing.
_LEAST_DB = 0.5


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
    curves = [curve(hull(points, rows), rows) for points in (anchor, tested)]
    if any(len(psnr) < FEWEST_POINTS for psnr, _ in curves):
        return None
    low, high = max(psnr[0] for psnr, _ in curves), min(psnr[-1] for psnr, _ in curves)
    if high - low < _LEAST_DB:
        return None
    before, after = (float(PchipInterpolator(psnr, logs).integrate(low, high)) for psnr, logs in curves)
    return 10 ** ((after - before) / (high - low)) - 1, float(low), float(high)


def savings(points: list[Point], rows: int) -> list[Saving]:
    """Our codecs against every other family, without the codecs' bytes and with them."""
    families = by_family(points)
    ours = families.pop(OURS, [])
    found = []
    for name, anchor in families.items():
        if all(point.psnr is None for point in anchor):
            continue  # lossless families are points
        for with_codec, sharing in ((False, math.inf), (True, rows)):
            change, low, high = bd_rate(anchor, ours, sharing) or (None, None, None)
            found.append(Saving(name, with_codec, change, low, high))
    return found
