"""float32 or bfloat16 autocast: measured on this machine, on the first steps of the training that is to come.

bfloat16 has float32's range and 8 bits of precision. Processors with AMX or AVX512-BF16 and GPUs multiply it several
times faster, others slower than float32. What is trained is a float32 model either way.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

# Steps in a round and rounds; the first round loads kernels and does not count.
_STEPS, _ROUNDS = 6, 5
# How many times faster it must be, and how much larger the loss of the last round may be.
_LEAST_SPEEDUP, _MOST_LOSS = 1.15, 1.02

Trial = Callable[[bool], Iterator[float]]


@dataclass(frozen=True)
class Precision:
    """What a training computes in, and why."""

    autocast: bool
    measured: bool = False
    speedup: float | None = None
    """Times that steps were faster with autocast."""
    loss_ratio: float | None = None
    """Loss with autocast over loss without, after the same steps."""


def choose_precision(
    setting: Literal["auto", True, False], trial: Trial, clock: Callable[[], float] = time.perf_counter
) -> Precision:
    """`setting`, or what pays off by measurement; `trial(autocast)` gives the losses of steps as they are made.

    Too little data for a measurement gives float32.
    """
    if setting != "auto":
        return Precision(setting)
    found = {False: trial(False), True: trial(True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    losses = {False: 0.0, True: 0.0}
    for number in range(_ROUNDS):
        for autocast, steps in found.items():
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(number)
                start = clock()
                made = [loss for _, loss in zip(range(_STEPS), steps, strict=False)]
                seconds[autocast].append(clock() - start)
            if len(made) < _STEPS:
                return Precision(autocast=False)
            losses[autocast] = sum(made)
    speedup = min(seconds[False][1:]) / min(seconds[True][1:])
    loss_ratio = losses[True] / losses[False]
    pays = speedup >= _LEAST_SPEEDUP and loss_ratio <= _MOST_LOSS
    return Precision(pays, True, round(speedup, 2), round(loss_ratio, 4))
