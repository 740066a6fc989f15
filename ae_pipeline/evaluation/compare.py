"""Every metric of decoded rows: row by row, record by record, and of all together."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.mean_answer import MeanAnswer
from ae_pipeline.evaluation.measures.metrics import Metrics
from ae_pipeline.evaluation.measures.records.errors import RecordMetrics, measure_records, several_kind
from ae_pipeline.evaluation.measures.row_errors import joined, means_of, measure_rows, pairs
from ae_pipeline.evaluation.neighbours import Neighbours
from ae_pipeline.kinds import build_kind


@dataclass(frozen=True)
class RowMetrics:
    """Every metric of every row, in the order of the data set."""

    attributes: pa.Table
    values: dict[str, np.ndarray]
    beside_mean: Metrics
    """How the error compares with answering each value's mean; see mean_answer.py."""
    recall: float | None = None
    """`recall_at_10` of vectors; see neighbours.py."""
    by_value: np.ndarray | None = None
    """Error and deviation of each value of vectors, (2, values): see `MeanAnswer.by_value`."""

    records: RecordMetrics | None = None
    """What whole records lost, where they have several rows."""

    def means(self) -> Metrics:
        """The metrics of all rows, and of all records."""
        beside: Metrics = {} if self.recall is None else {"recall_at_10": self.recall}
        return means_of(self.values) | beside | (self.records.means() if self.records else {})


def compare_rows(
    original: SampleSet,
    decoded: SampleSet,
    scaling: Scaling,
    train_means: np.ndarray | None = None,
    *,
    kind: KindEntry | None = None,
) -> RowMetrics:
    """Every metric of every row and record, and the error beside that of the means. Raises DataError where ids differ.

    `train_means` are `fit_means` of the train split; without them the rows' own means are compared with. `kind` is the
    codec's: it says which rows are a record.
    """
    vectors = len(original.spec.shape) == 1 and several_kind(kind) is None
    searched = vectors and (kind is None or build_kind(kind.name).points_somewhere)
    attributes: list[pa.Table] = []
    blocks: list[dict[str, np.ndarray]] = []
    answer, neighbours = MeanAnswer(train_means), Neighbours()
    for before, after in pairs(original, decoded):
        attributes.append(before.attributes)
        blocks.append(measure_rows(before.pixels, after.pixels, scaling, vectors=searched))
        answer.add(before.pixels, after.pixels)
        if searched:
            neighbours.add(before.pixels, after.pixels)
    return RowMetrics(
        attributes=pa.concat_tables(attributes),
        values=joined(blocks),
        beside_mean=answer.as_metrics(scaling.scale),
        recall=neighbours.recall(),
        by_value=answer.by_value(scaling.scale) if vectors else None,
        records=measure_records(original, decoded, scaling, kind),
    )
