"""What was found of a person's data as plain values, for programs."""

from collections.abc import Iterable
from typing import Any

from ae_pipeline.workspace.looking.look import Looked, training_seconds
from ae_pipeline.workspace.looking.tally import Reason
from ae_pipeline.workspace.looking.worth import Worth


def as_json(looked: Looked) -> dict[str, Any]:
    """What `inspect --json` prints. Counts of values are of the `looked_at` records; bits are a guess (worth.py)."""
    tally, choice, table, worth = looked.tally, looked.choice, looked.table, looked.worth
    sample = looked.sample
    missing = table.missing if table else {name or "records": count for name, count in tally.missing.items()}
    seconds = training_seconds(looked)
    return {
        "path": looked.path,
        "kind": looked.guess.kind,
        "why": looked.guess.why,
        "supported": table is None,
        "files": looked.files,
        "bytes": looked.nbytes,
        "fetched": {"files": sample.files, "bytes": sample.nbytes} if sample else None,
        "records": looked.records,
        "looked_at": tally.records,
        "rows": looked.rows,
        "sizes": [
            {"shape": list(spec.shape), "dtype": spec.dtype, "records": count}
            for spec, count in tally.sizes.most_common()
        ],
        "values": looked.value_range.as_metrics() if looked.value_range else None,
        "missing": dict(missing),
        "repeated": tally.repeated,
        "columns": table.columns if table else looked.columns,
        "together": {name: {"low": low, "high": high} for name, (low, high) in looked.ranges.items()},
        "problems": [
            *looked.problems,
            *([looked.fit_problem] if looked.fit_problem else []),
            *(table.broken if table else ()),
        ],
        "refused": _reasons(looked.refused),
        "cannot_be_read": _reasons(looked.left_out),
        "notes": looked.notes,
        "passed_over": list(looked.passed_over),
        "preset": choice.preset if choice else None,
        "settings": choice.settings if choice else None,
        "reasons": list(choice.reasons) if choice else [],
        "training_seconds": None if seconds is None else round(seconds, 1),
        "worth": _worth(worth, looked.rows) if worth else None,
    }


def _reasons(reasons: Iterable[Reason]) -> list[dict[str, Any]]:
    return [{"records": reason.records, "example": reason.example} for reason in reasons]


def _worth(worth: Worth, rows: int) -> dict[str, Any]:
    at = worth.break_even
    return {
        "bits_per_row": round(worth.expected.bits, 1),
        "codec_bytes": worth.expected.codec_bytes,
        "break_even_rows": at,
        "pays": at is not None and rows >= at,
        "alternatives": [
            {
                "name": other.name,
                "bits_per_row": round(other.bits, 1),
                "codec_bytes": other.codec_bytes,
                "break_even_rows": other.pays_from,
            }
            for other in worth.alternatives
        ],
    }
