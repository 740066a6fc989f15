"""Numbers into words: what to use here, at which quality, and from how many rows on our codecs pay.

Nothing is known in advance: everything is read from the table's points, so other data gives another verdict. Bits are
those with the codec, for a codec is kept beside its rows.
"""

from bisect import bisect_left
from dataclasses import dataclass

from ae_pipeline.experiments.benchmark.curves import Cost, cost
from ae_pipeline.experiments.benchmark.image_formats import FORMATS
from ae_pipeline.experiments.benchmark.points import MSE, OURS, Point
from ae_pipeline.experiments.front import grouped

_IMAGE_CODECS = tuple(form.name for form in FORMATS)
# Nobody has more rows.
_MOST_ROWS = 2**50
# In fewer rows the fixed bytes of files weigh.
_FEW_ROWS = 1000
# How much better than our best codec is better.
_BEYOND_DB = 0.1


@dataclass(frozen=True)
class Choice:
    """The best at the quality of one of our codecs."""

    preset: str
    mse: float
    psnr: float | None
    recall_at_10: float | None
    snr: float | None
    log_mel_distance: float | None
    bits: float
    """Bits per row of our codec, with its own bytes."""
    better_preset: str | None
    """Another codec of ours that is as good or better and takes fewer bits at this number of rows, if there is one."""
    use: str
    """The family that takes the fewest bits: ours or another."""
    best_alternative: str | None
    best_alternative_family: str | None
    best_alternative_bits: float | None
    """Its bits per row at this quality, read off the curve between two settings if the better one takes more."""
    break_even_rows: int | None
    """Rows from which on ours takes the fewest; None if it never does."""
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What to use at `rows` rows, for each quality that our codecs offer."""

    rows: int
    summary: str
    choices: list[Choice]
    limit: str | None
    """Where our codecs stop, and what takes over there; None without codecs of ours."""


def judge(points: list[Point], rows: int, image_effort: str = "best") -> Verdict:
    """What to use when `rows` rows share the codecs; `points` are the whole table, `image_effort` as in params.yaml."""
    families = grouped(points, lambda point: point.family)
    ours = families.pop(OURS, [])
    # Layouts of one codec have the same error: the smaller one stands for it.
    layouts = grouped(sorted(ours, key=lambda point: -point.error), lambda point: point.error)
    best = [min(same, key=lambda point: point.bits_at(rows)) for same in layouts.values()]
    choices = [_choose(own, best, families, rows) for own in best]
    summary = _summary(choices, rows) if ours else _without_ours(families, rows)
    measured = min((point.measured_rows for point in ours), default=0)
    if 0 < measured < _FEW_ROWS and any(choice.use != OURS for choice in choices):
        summary += (
            f" Only {_rows(measured)} were measured: fixed bytes of files, such as page headers, count as bits of "
            "each, and shift the rows from which a codec pays; measure more to know."
        )
    if image_effort == "fast" and any(family.startswith(_IMAGE_CODECS) for family in families):
        summary += " Image codecs ran with fast settings; AVIF and JPEG XL take less with bench.image_effort: best."
    return Verdict(rows, summary, choices, _limit(ours, families, rows))


def best_alternative(families: dict[str, list[Point]], psnr: float | None, rows: float) -> Cost | None:
    """The fewest bits at this quality or a better one, whatever family it is; None if none reaches it."""
    costs = [found for points in families.values() if (found := cost(points, psnr, rows)) is not None]
    return min(costs, key=lambda found: found.bits, default=None)


def break_even_rows(own: Point, families: dict[str, list[Point]]) -> int | None:
    """The least number of rows from which on `own` takes no more than any alternative at its quality; None if never.

    Alternatives have codecs, too, and another one can be best at another number of rows: so rows are tried, doubling,
    and the last change is narrowed down.
    """

    def pays(rows: int) -> bool:
        other = best_alternative(families, own.decibel, rows)
        return other is None or own.bits_at(rows) <= other.bits

    if not pays(_MOST_ROWS):
        return None
    wins = _MOST_ROWS
    while wins > 1 and pays(wins // 2):
        wins //= 2
    return bisect_left(range(wins), True, lo=wins // 2 + 1, key=pays)


def _choose(own: Point, ours: list[Point], families: dict[str, list[Point]], rows: int) -> Choice:
    other = best_alternative(families, own.decibel, rows)
    smallest = min((point for point in ours if point.error <= own.error), key=lambda point: point.bits_at(rows))
    better = smallest if smallest.bits_at(rows) < own.bits_at(rows) else None
    even = break_even_rows(own, families)
    wins = other is None or smallest.bits_at(rows) <= other.bits
    if better and wins:
        words = _another_of_ours(own, better, rows)
    else:
        words = _compared(own, other, rows, even, families)
        if better:
            words += f" Of ours, {better.name} is as good and takes {_bits(better.bits_at(rows), better)}."
    return Choice(
        preset=own.name,
        mse=own.mse,
        psnr=own.psnr,
        **{name: own.metrics.get(name) for name in ("recall_at_10", "snr", "log_mel_distance")},
        bits=own.bits_at(rows),
        better_preset=better.name if better else None,
        use=OURS if other is None or wins else other.point.family,
        best_alternative=other.point.name if other else None,
        best_alternative_family=other.point.family if other else None,
        best_alternative_bits=other.bits if other else None,
        break_even_rows=even,
        sentence=f"At {own.quality.words(own.error)} and {_rows(rows)}: {words}",
    )


def _another_of_ours(own: Point, better: Point, rows: int) -> str:
    even = break_even_rows(own, {OURS: [better]})
    less = "at no number of rows less" if even is None else f"less than {better.name} from {even:,} rows on"
    return (
        f"use {better.name}, which takes {_bits(better.bits_at(rows), better)} at {_beside(better)}; {own.name} takes "
        f"{_bits(own.bits_at(rows), own)}, {_bits(own.bits_per_row, own)} without its codec, and {less}."
    )


def _compared(own: Point, other: Cost | None, rows: int, even: int | None, families: dict[str, list[Point]]) -> str:
    bits = own.bits_at(rows)
    if other is None:
        return f"use {own.name}, {_bits(bits, own)}; nothing else here is as good."
    if bits <= other.bits:
        since = "" if even is None else f" It pays from {even:,} rows on."
        return f"use {own.name}, {_bits(bits, own)}; the next best is {_taking(other, rows)}.{since}"
    perfect = other.point.decibel is None
    verb = "keep" if perfect else "use"
    lossless = f" and {other.point.quality.perfect}" if perfect else ""
    later = (
        f"at no number of rows is {own.name} smaller: {_always(own, families)}"
        if even is None
        else f"the codec's {own.codec_bytes:,} bytes pay for themselves from {even:,} rows on"
    )
    return (
        f"{verb} {_taking(other, rows)}{lossless}; "
        f"{own.name} takes {_bits(bits, own)}, {_bits(own.bits_per_row, own)} without its codec, and {later}."
    )


def _always(own: Point, families: dict[str, list[Point]]) -> str:
    """What is smaller however many rows share the codecs."""
    other = best_alternative(families, own.decibel, _MOST_ROWS)
    assert other is not None
    return f"{other.point.family if other.worse else other.point.name} takes {_bits(other.bits, own)} without its own"


def _without_ours(families: dict[str, list[Point]], rows: int) -> str:
    """The verdict where none of our codecs was good enough to be compared."""
    lossless = best_alternative(families, None, rows)
    taking = f" {lossless.point.name} takes {_bits(lossless.bits, lossless.point)}" if lossless else ""
    instead = f"{taking} and loses nothing." if lossless else ""
    none = "none of our codecs is better than answering each value's mean"
    return f"At {_rows(rows)}, do not use an autoencoder: {none}.{instead}"


def _limit(ours: list[Point], families: dict[str, list[Point]], rows: int) -> str | None:
    best = min(ours, key=lambda point: point.error, default=None)
    if best is None or best.decibel is None:
        return None
    lossy = {name: [point for point in points if point.decibel is not None] for name, points in families.items()}
    beyond = best_alternative(lossy, best.decibel + _BEYOND_DB, rows)
    lossless = best_alternative(families, None, rows)
    found = []
    if beyond and (lossless is None or beyond.bits < lossless.bits):
        found.append(f"use {_taking(beyond, rows)}")
    if lossless:
        found.append(f"{lossless.point.name}, {_bits(lossless.bits, lossless.point)}, {best.quality.perfect}")
    rest = "; ".join(found) or "nothing else here does either"
    return f"Beyond {_limit_words(best)} none of these codecs goes: {rest}."


def _limit_words(best: Point) -> str:
    return f"{best.psnr:.1f} dB (MSE {best.mse:.5f})" if best.quality is MSE else best.quality.words(best.error)


def _beside(better: Point) -> str:
    return f"an MSE of {better.mse:.5f}" if better.quality is MSE else f"a {better.quality.words(better.error)}"


def _taking(other: Cost, rows: int) -> str:
    """What it is, and takes. Between two settings that is a reading; what the better one takes was measured."""
    point, worse = other.point, other.worse
    bits = _bits(other.bits, point)
    if worse is None:
        return f"{point.name}, which takes {bits}"
    ends = [_bits(end.bits_at(rows), end) for end in (worse, point)]
    measured = f"{worse.setting} takes {ends[0]}, {point.setting} {ends[1]}"
    return f"{point.family}, about {bits} (read between two settings: {measured})"


def _rows(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _bits(bits: float, point: Point) -> str:
    """Bits per row; of sound kbit/s, too."""
    words = f"{bits:,.0f} bits per row" if bits >= 10 else f"{bits:.2g} bits per row"
    if point.rows_per_second is None:
        return words
    return f"{bits * point.rows_per_second / 1000:,.1f} kbit/s ({words})"


def _summary(choices: list[Choice], rows: int) -> str:
    won = list(dict.fromkeys(choice.better_preset or choice.preset for choice in choices if choice.use == OURS))
    if won:
        elsewhere = any(choice.use != OURS for choice in choices)
        rest = " Elsewhere, use what its line names." if elsewhere else ""
        return f"At {_rows(rows)}, the autoencoder is the smallest at the quality of: {'; '.join(won)}.{rest}"
    uses = sorted({choice.use for choice in choices})
    later = [choice.break_even_rows for choice in choices if choice.break_even_rows is not None]
    never = "none of our codecs pays at any number"
    ending = f"the first of our codecs pays from {min(later):,} rows on" if later else never
    return f"At {_rows(rows)}, do not use an autoencoder: use {', '.join(uses)}; {ending}."
