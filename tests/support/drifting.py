"""What the tests of drift share beside their fixtures: the parameters, and rows as a store would hold them."""

import numpy as np

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.evaluation.drift.fit import _Chosen, _evenly
from ae_pipeline.params.operation import DriftParams

DRIFT_PARAMS = DriftParams(reference_rows=8000, confidence=0.99)


def encoded(codec_path, pixels):
    """Latents and errors of all rows."""
    codec = Codec.load(codec_path)
    blocks = [codec.encode_block(pixels[row : row + BLOCK_ROWS], measure=True) for row in range(0, len(pixels), 1024)]
    return tuple(np.concatenate(column) for column in zip(*blocks, strict=True))


def train_set(codec):
    """What `calibrated` was fitted on."""
    return SampleSet.open(codec.parent / "train.parquet")


def taken(samples, most):
    """Blocks of the rows of a data set that a reference of at most `most` rows is made of."""
    return list(_evenly(map(samples.only, samples.shards), _Chosen(min(most, samples.rows), samples.rows)))
