"""What a family of points takes at a given quality: the best points, and a curve through them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from scipy.interpolate import PchipInterpolator

from ae_pipeline.experiments.benchmark.measure.points import Point

# A curve through fewer points is none.
FEWEST_POINTS = 2
# Between settings that are further apart, dB, nobody knows what another one would take; but rows can be divided between
# the two.
_WIDEST_GAP = 4.0


class Lossy(Protocol):
    """Whatever has an error."""

    @property
    def mse(self) -> float:
        """Mean squared error of values in [0, 1]."""


_Lossy = TypeVar("_Lossy", bound=Lossy)


@dataclass(frozen=True)
class Cost:
    """What a quality takes in one family, and the point that stands for it."""

    bits: float
    point: Point
    worse: Point | None = None
    """The other point, if `bits` were read off the curve between two; `point`, the better one, takes more."""


def by_family(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Points in the order of the table, by the name of their family."""
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    return families


def front(points: Iterable[_Lossy], bits: Callable[[_Lossy], float]) -> list[_Lossy]:
    """The points that no other one beats in both bits and error, by rising bits and falling error."""
    best: list[_Lossy] = []
    for point in sorted(points, key=lambda point: (bits(point), point.mse)):
        if not best or point.mse < best[-1].mse:
            best.append(point)
    return best


def hull(points: Iterable[Point], rows: float) -> list[Point]:
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
    return point.mse >= (1 - share) * fewer.mse + share * more.mse


def curve(points: Iterable[Point], rows: float) -> tuple[np.ndarray, np.ndarray]:
    """PSNR in dB, rising, and the logarithm to base 10 of bits per row: the front, without lossless points."""
    best = _lossy_front(points, rows)
    psnr = np.array([point.psnr for point in best], float)
    return psnr, np.log10([max(point.bits_at(rows), 1e-9) for point in best])


def _lossy_front(points: Iterable[Point], rows: float) -> list[Point]:
    return [point for point in front(points, lambda point: point.bits_at(rows)) if point.psnr is not None]


def cost(points: list[Point], psnr: float | None, rows: float) -> Cost | None:
    """The fewest bits per row of one family at this quality or a better one; None if it does not reach it.

    Between two points, where a setting in between would lie, the curve counts: piecewise cubic and monotone, as in
    `bd_rate`; where they are more than 4 dB apart, some rows in one setting and the rest in the other. `psnr` None asks
    for lossless points.
    """
    wanted = math.inf if psnr is None else psnr
    good = [point for point in points if point.psnr is None or point.psnr >= wanted]
    if not good:
        return None
    best = min(good, key=lambda point: (point.bits_at(rows), point.mse))
    bits, worse = best.bits_at(rows), None
    reached, logs = curve(points, rows)
    place = int(np.searchsorted(reached, wanted))
    if 0 < place < len(reached) and wanted < reached[place]:
        fewer, more = _lossy_front(points, rows)[place - 1 : place + 1]
        if reached[place] - reached[place - 1] <= _WIDEST_GAP:
            read = 10 ** float(PchipInterpolator(reached, logs)(wanted))
        else:
            share = (fewer.mse - 10 ** (-wanted / 10)) / (fewer.mse - more.mse)
            read = fewer.bits_at(rows) + share * (more.bits_at(rows) - fewer.bits_at(rows))
        if read < bits:
            bits, worse = read, fewer
    return Cost(bits, best, worse)
