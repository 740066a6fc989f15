"""Every metric of decoded rows: row by row, and of all together."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.mean_answer import MeanAnswer
from ae_pipeline.evaluation.metrics import Metrics
from ae_pipeline.evaluation.neighbours import Neighbours
from ae_pipeline.evaluation.row_errors import joined, means_of, measure_rows, pairs


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

    def means(self) -> dict[str, float | None]:
        """The metrics of all rows."""
        return means_of(self.values) | ({} if self.recall is None else {"recall_at_10": self.recall})


def compare_rows(
    original: SampleSet, decoded: SampleSet, scaling: Scaling, train_means: np.ndarray | None = None
) -> RowMetrics:
    """Every metric of every row, and the error beside that of the means. Raises DataError where ids differ.

    `train_means` are `fit_means` of the train split; without them the rows' own means are compared with.
    """
    attributes: list[pa.Table] = []
    blocks: list[dict[str, np.ndarray]] = []
    answer, neighbours = MeanAnswer(train_means), Neighbours()
    for before, after in pairs(original, decoded):
        attributes.append(before.attributes)
        blocks.append(measure_rows(before.pixels, after.pixels, scaling))
        answer.add(before.pixels, after.pixels)
        neighbours.add(before.pixels, after.pixels)
    beside_mean = answer.as_metrics(scaling.scale)
    by_value = answer.by_value(scaling.scale) if len(original.spec.shape) == 1 else None
    return RowMetrics(pa.concat_tables(attributes), joined(blocks), beside_mean, neighbours.recall(), by_value)
