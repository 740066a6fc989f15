"""Some whole records for the pictures of a report: by chance, and those that came back best and worst."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.measures.metrics import METRICS
from ae_pipeline.evaluation.measures.records.errors import Pair, RecordMetrics, restored, several_kind, split_records
from ae_pipeline.evaluation.measures.row_errors import pairs

_RANDOM = 2
# Samples of a clip, or lines of a picture: who wants more opens the decoded file.
_MOST = 1 << 18


@dataclass(frozen=True)
class PicturedRecord:
    """The beginning of a record and of what came back of it, as `Kind.restored` gives them."""

    title: str
    """Why it is here: `random`, `best` or `worst`."""
    columns: dict[str, Any]
    """The columns of its first row, and its line of the metrics."""
    original: np.ndarray
    """(n, ...) float64, as `decoded` is."""
    decoded: np.ndarray


def picture_records(
    original: SampleSet, decoded: SampleSet, entry: KindEntry | None, found: RecordMetrics, metric: str, seed: int
) -> list[PicturedRecord]:
    """Random records, and the best and the worst by `metric`, in the order of the data set.

    Those to which the metric does not apply are none of them. Raises DataError where ids differ.
    """
    chosen = _choose(found.table.column(metric).to_pylist(), metric, seed)
    numbers = {found.places[number]: number for number in chosen}
    known = several_kind(entry)
    assert known is not None
    taken = []
    for place, pieces in enumerate(split_records(pairs(original, decoded)) if chosen else ()):
        if place in numbers:
            number = numbers[place]
            columns: dict[str, Any] = {}
            before, after = _beginning(restored(_noting(pieces, columns), *known))
            columns |= {name: found.table.column(name)[number].as_py() for name in found.table.column_names}
            taken.append(PicturedRecord(chosen[number], columns, before, after))
    return taken


def _beginning(pieces: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    before, after, count = [], [], 0
    for original, decoded in pieces:
        before.append(original)
        after.append(decoded)
        count += len(original)
        if count >= _MOST:
            break
    return np.concatenate(before)[:_MOST], np.concatenate(after)[:_MOST]


def _choose(values: list[float], metric: str, seed: int) -> dict[int, str]:
    """Which of the records with these values, and why."""
    losses = np.array([METRICS[metric].loss(value) for value in values], float)
    there = np.flatnonzero(np.isfinite(losses))
    if not len(there):
        return {}
    order = there[np.argsort(losses[there], kind="stable")]
    random = np.random.default_rng(seed).permutation(there)[:_RANDOM]
    return {**dict.fromkeys(random.tolist(), "random"), int(order[-1]): "worst", int(order[0]): "best"}


def _noting(pieces: Iterator[Pair], columns: dict[str, Any]) -> Iterator[Pair]:
    """Gives the pieces on, and puts the columns of the first row into `columns`."""
    for before, after in pieces:
        if not columns:
            columns |= {name: before.attributes.column(name)[0].as_py() for name in before.attributes.column_names}
        yield before, after
