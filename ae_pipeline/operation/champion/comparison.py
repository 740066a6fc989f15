"""Whether a challenger should take the champion's place: both measured on the same held-out rows.

Knows no MLflow and moves nothing; moves.py does. Every number and every condition that decided is in the verdict.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import first_rows
from ae_pipeline.errors import CodecError, DataError, GateError
from ae_pipeline.evaluation.compare import compare_rows
from ae_pipeline.evaluation.gate import check_gate
from ae_pipeline.evaluation.mean_answer import not_better_than_mean
from ae_pipeline.evaluation.measures.metrics import Metrics, reported
from ae_pipeline.evaluation.speed import measure_speeds
from ae_pipeline.evaluation.through_store import make_trip, store_metrics
from ae_pipeline.params import EncodeParams, GateParams
from ae_pipeline.params.operation import PromotionParams


@dataclass(frozen=True)
class Measured:
    """One codec on the held-out rows."""

    fingerprint: str
    mse: float
    """Mean over rows, of values in the champion's [0, 1] (without one: the codec's own)."""
    bits_per_row: float
    """Bits of the Parquet parts; the codec is not in it."""
    codec_bytes: int
    encode_rows_per_s: float
    """Speed of the arithmetic on one thread, the error column included; files take the same time with every codec."""
    decode_rows_per_s: float
    beside_mean: Metrics
    """How its error compares with answering each value's mean over the held-out rows (mean_answer.py)."""
    metrics: Metrics = field(default_factory=dict, repr=False)
    """All of the table, which the gate judges."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values: the fields, and the metrics that this report has."""
        values = asdict(self)
        metrics = values.pop("metrics")
        found = {metric.name: metrics[metric.name] for metric in reported("promotion") if metric.name in metrics}
        return {**values, **found}


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences of the rows' MSE, challenger minus champion, and its confidence interval."""

    mean: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Condition:
    """One thing that must hold. `found` and `limit` are null where it is not about one number."""

    name: str
    found: float | None
    limit: float | None
    holds: bool
    text: str
    """Found and limit for people."""


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger should be champion, why, and everything that was measured."""

    promote: bool
    reason: str
    conditions: tuple[Condition, ...]
    champion_codec: str | None
    """Fingerprint; null: there is no champion."""
    challenger_codec: str
    rows: int = 0
    """Held-out rows that were compared; 0: the comparison was not needed, or not possible."""
    data_digest: str | None = None
    champion: Measured | None = None
    challenger: Measured | None = None
    difference: Difference | None = None
    bits_ratio: float | None = None
    """Bits per row, challenger divided by champion."""

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        codecs = {"champion": self.champion, "challenger": self.challenger}
        return asdict(self) | {name: codec and codec.as_dict() for name, codec in codecs.items()}

    def as_markdown(self) -> str:
        """A page for people: the reason, the conditions, the numbers."""
        lines = [f"# {'Promote' if self.promote else 'Keep the champion'}", "", self.reason, ""]
        lines += ["| condition | holds | |", "|---|---|---|"]
        lines += [f"| {item.name} | {'yes' if item.holds else 'no'} | {item.text} |" for item in self.conditions]
        if self.challenger is not None:
            lines += ["", f"Measured on {self.rows:,} held-out rows.", ""]
            lines += ["| | champion | challenger |", "|---|---|---|"]
            before = _flat(self.champion) if self.champion else {}
            for name, value in _flat(self.challenger).items():
                # 12 digits of a fingerprint, as everywhere for people
                cells = (f"{x:.6g}" if isinstance(x, float) else str(x)[:12] for x in (before.get(name, "-"), value))
                lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def withheld(self, name: str, text: str) -> "Verdict":
        """One that says the same, but is not to be acted on, for a reason outside the numbers."""
        condition = Condition(name, None, None, holds=False, text=text)
        return replace(
            self,
            promote=False,
            reason=f"{text}. The comparison alone says: {self.reason}",
            conditions=(*self.conditions, condition),
        )


def compare_codecs(
    champion: Path | None,
    challenger: Path,
    held_out: SampleSet,
    params: PromotionParams,
    encode: EncodeParams,
    *,
    gate: GateParams | None = None,
    evaluated: Mapping[str, float | None] | None = None,
) -> Verdict:
    """Measure both codec folders on the first `max_rows` of `held_out` and say whether the challenger should win.

    Without a champion `gate` alone decides (None: nothing is asked for), on `evaluated`, the metrics of `evaluate`;
    what is missing there is taken from what is measured here. Constant memory, but for one number per row.
    Raises CodecError, DataError, StoreError.
    """
    header = read_header(challenger)
    current = read_header(champion) if champion else None
    if current is not None:
        settled = _settled_without_measuring(current, header)
        if settled is not None:
            return settled
    paths = {"challenger": challenger} | ({"champion": champion} if champion else {})
    with tempfile.TemporaryDirectory() as folder:
        rows = first_rows(held_out, params.max_rows, Path(folder, "held_out"))
        row_mse, measured = _measure(paths, rows, encode, current or header, Path(folder))
        facts: dict[str, Any] = {
            "champion_codec": current.fingerprint if current else None,
            "challenger_codec": header.fingerprint,
            "rows": rows.rows,
            "data_digest": rows.digest,
            **measured,
        }
    if current is None:
        found = measured["challenger"].metrics
        condition = _gate(gate or GateParams(beat_pca=False), {**found, **(evaluated or {})})
        reason = f"there is no champion yet, and the challenger {'passes' if condition.holds else 'fails'} the gate"
        return Verdict(condition.holds, f"{reason}: {condition.text}", (condition,), **facts)
    difference = paired_difference(row_mse["champion"], row_mse["challenger"], params.confidence)
    conditions = _conditions(measured["champion"], measured["challenger"], difference, params)
    ratio = measured["challenger"].bits_per_row / measured["champion"].bits_per_row
    promote = all(condition.holds for condition in conditions)
    verdict = Verdict(promote, _reason(conditions), conditions, **facts, difference=difference, bits_ratio=ratio)
    # Better than a champion that knows nothing is not good enough.
    worthless = not_better_than_mean(measured["challenger"].metrics)
    if worthless and promote:
        return verdict.withheld("better_than_mean", f"the champion stays: {worthless}")
    return verdict


def paired_difference(champion: np.ndarray, challenger: np.ndarray, confidence: float) -> Difference:
    """Mean of d = challenger - champion, (n,) each, with its two-sided Student's t interval.

    mean(d) +- t(1 - alpha / 2, n - 1) * s(d) / sqrt(n), alpha = 1 - confidence: NIST/SEMATECH e-Handbook of
    Statistical Methods, 1.3.5.2 (the interval of a mean) on the differences, as in 7.3.1.1 (paired observations).
    Pairing removes what makes a row hard for both codecs. The rows must be drawn independently; of so many the mean
    is nearly normal whatever each is. Raises DataError for fewer than two rows.
    """
    from scipy.stats import t

    differences = challenger.astype(np.float64) - champion.astype(np.float64)
    rows = len(differences)
    if rows < 2:
        raise DataError(f"{rows} held-out row(s), expected at least 2 to compare codecs on; give a larger held-out set")
    mean = float(differences.mean())
    half = float(t.ppf((1 + confidence) / 2, rows - 1) * differences.std(ddof=1) / math.sqrt(rows))
    return Difference(mean, mean - half, mean + half, confidence)


def _settled_without_measuring(champion: CodecHeader, challenger: CodecHeader) -> Verdict | None:
    if champion.fingerprint == challenger.fingerprint:
        condition = Condition("another_codec", None, None, False, "the challenger is the champion's own codec")
        reason = f"nothing to do: {condition.text} ({champion.fingerprint[:12]})"
    elif champion.spec != challenger.spec:
        text = f"the champion is for {champion.spec.describe()}, the challenger for {challenger.spec.describe()}"
        condition = Condition("same_samples", None, None, False, text)
        reason = f"not comparable: {text}; if the data changed for good, `ae-pipeline promote` promotes by hand"
    else:
        return None
    return Verdict(False, reason, (condition,), champion.fingerprint, challenger.fingerprint)


def _measure(
    paths: dict[str, Path], rows: SampleSet, encode: EncodeParams, header: CodecHeader, work: Path
) -> tuple[dict[str, np.ndarray], dict[str, Measured]]:
    """MSE of each row (n,) and the numbers of every codec, all errors in units of `header`'s scaling."""
    device = choose_device(encode.device)
    speeds = measure_speeds({name: Codec.load(path, device) for name, path in paths.items()}, rows)
    row_mse: dict[str, np.ndarray] = {}
    measured: dict[str, Measured] = {}
    for name, path in paths.items():
        trip = make_trip(path, rows, encode, work / name)
        found = compare_rows(rows, trip.decoded, header.scaling, kind=header.kind)
        row_mse[name], metrics = found.values["mse"], store_metrics(trip.store, found)
        mse = float(row_mse[name].mean())
        if not math.isfinite(mse):
            raise CodecError(f"{path} decodes held-out rows to values that are not numbers; train it again")
        measured[name] = Measured(
            fingerprint=trip.store.manifest.codec.fingerprint,
            mse=mse,
            bits_per_row=float(metrics["bits_per_row"] or 0),
            codec_bytes=int(metrics["codec_bytes"] or 0),
            encode_rows_per_s=speeds[name, "encode"],
            decode_rows_per_s=speeds[name, "decode"],
            beside_mean=found.beside_mean,
            metrics=metrics,
        )
    return row_mse, measured


def _conditions(
    champion: Measured, challenger: Measured, difference: Difference, params: PromotionParams
) -> tuple[Condition, ...]:
    """The thresholds of `promotion` in params.yaml, all relative to the champion."""
    # A champion without any error leaves nothing to be relative to: the challenger must have none, either.
    increase = difference.high / champion.mse if champion.mse else (0.0 if difference.high <= 0 else None)
    bits = challenger.bits_per_row / champion.bits_per_row - 1
    most_error, most_bits = params.max_mse_increase, params.max_bits_increase
    error_text = (
        f"MSE {challenger.mse:.6g} against {champion.mse:.6g}: the {100 * difference.confidence:.4g}% interval of its "
        f"change ends at {'any' if increase is None else f'{increase:+.2%}'} (limit {most_error:+.2%})"
    )
    bits_text = (
        f"bits per row {challenger.bits_per_row:.4g} against {champion.bits_per_row:.4g}: {bits:+.2%} "
        f"(limit {most_bits:+.2%})"
    )
    no_worse = increase is not None and increase <= most_error
    conditions = [
        Condition("mse_increase", increase, most_error, no_worse, error_text),
        Condition("bits_increase", bits, most_bits, bits <= most_bits, bits_text),
    ]
    for work in ("encode", "decode"):
        speed = getattr(challenger, f"{work}_rows_per_s") / getattr(champion, f"{work}_rows_per_s")
        text = f"{work}s at {speed:.2f} of the champion's speed (limit {params.min_speed:g})"
        conditions.append(Condition(f"{work}_speed", speed, params.min_speed, speed >= params.min_speed, text))
    return tuple(conditions)


def _gate(gate: GateParams, metrics: Metrics) -> Condition:
    try:
        check_gate(metrics, gate)
    except GateError as error:
        return Condition("gate", None, None, holds=False, text=str(error))
    mse, bits = metrics["mse"] or 0.0, metrics["bits_per_row"] or 0.0
    return Condition("gate", None, None, holds=True, text=f"MSE {mse:.6g} at {bits:.4g} bits per row (evaluate.gate)")


def _flat(measured: Measured) -> dict[str, Any]:
    """The lines of the table; the comparison with the mean has lines of its own."""
    values = measured.as_dict()
    beside_mean = values.pop("beside_mean")
    return {**values, **beside_mean}


def _reason(conditions: tuple[Condition, ...]) -> str:
    """What decided, in words: the conditions that fail, or all of them."""
    failed = [condition.text for condition in conditions if not condition.holds]
    if failed:
        return f"the champion stays: {'; '.join(failed)}"
    return f"the challenger is good enough: {'; '.join(condition.text for condition in conditions)}"
