"""How fast codecs are, side by side in one process: the arithmetic alone, on one thread."""

import math
from collections.abc import Callable
from functools import partial
from timeit import timeit

import numpy as np

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.codec.devices import one_torch_thread
from ae_pipeline.data.samples import SampleSet

_TIMED_BLOCKS = 4
_TIMED_BYTES = 256 << 20
_TIMED_SECONDS = 0.03
_ROUNDS = 3


def measure_speeds(codecs: dict[str, Codec], samples: SampleSet) -> dict[tuple[str, str], float]:
    """Rows per second of each codec's `encode` and `decode`: best of three rounds after one that warms up.

    The codecs take turns, so that a machine that slows down or gets busy does so for all of them. A turn repeats its
    work until it is long enough to be timed; how often is found in the warm-up.
    """
    blocks = _timed_blocks(samples)
    work: dict[tuple[str, str], Callable[[], object]] = {}
    for name, codec in codecs.items():
        work[name, "encode"] = partial(_each, partial(codec.encode_block, measure=True), blocks)
        work[name, "decode"] = partial(_each, codec.decode_block, [codec.encode(rows) for rows in blocks])
    with one_torch_thread():
        turns = {key: math.ceil(_TIMED_SECONDS / max(timeit(job, number=1), 1e-6)) for key, job in work.items()}
        best = dict.fromkeys(work, math.inf)
        for _ in range(_ROUNDS):
            for key, job in work.items():
                best[key] = min(best[key], timeit(job, number=turns[key]) / turns[key])
    rows = sum(len(block) for block in blocks)
    return {key: rows / seconds for key, seconds in best.items()}


def _timed_blocks(samples: SampleSet) -> list[np.ndarray]:
    """A few blocks of pixels, (at most BLOCK_ROWS, *shape) each, that are held in memory while time is taken."""
    count = max(1, min(_TIMED_BLOCKS, _TIMED_BYTES // (BLOCK_ROWS * samples.spec.nbytes)))
    return [block.pixels for _, block in zip(range(count), samples.blocks(samples.shards[0], BLOCK_ROWS), strict=False)]


def _each(work: Callable[[np.ndarray], object], blocks: list[np.ndarray]) -> None:
    for block in blocks:
        work(block)
