"""Logits as chances of any number of symbols, in whole shares of 2 ** 15: integers alone, the same on every machine.

A logit is in sixteenths of an octave: 16 more is twice as likely. The largest of a row stands for 2 ** 15 parts, times
2 ** 12; each of the others for as many halvings less, and nothing below 16 octaves.
"""

import numpy as np

from ae_pipeline.codec.context.rans import ONE

_TOP = 255
_FRACTIONS = np.rint(2.0 ** (np.arange(16) / 16 + 12)).astype(np.int64)
"""round(4096 * 2 ** (i / 16)): 4096, 4277, 4467, ..., 7844. No value is near a half, so every machine has the same."""
_PARTS = _FRACTIONS[np.arange(_TOP + 1) & 15] << (np.arange(_TOP + 1) >> 4)


def edges_of(logits: np.ndarray) -> np.ndarray:
    """Integers (n, symbols) to int32 (symbols + 1, n): where the share of each symbol begins, and last, ONE."""
    below = np.minimum(logits.max(axis=1, keepdims=True) - logits, _TOP)
    parts = _PARTS[_TOP - below].T
    sums = np.cumsum(parts, axis=0)
    symbols, rows = parts.shape
    edges = np.empty((symbols + 1, rows), np.int32)
    edges[0] = 0
    # Each symbol has one share of its own; the rest goes by parts.
    edges[1:] = sums * (ONE - symbols) // sums[-1] + np.arange(1, symbols + 1)[:, np.newaxis]
    return edges


def even_edges(bits: int, rows: int) -> np.ndarray:
    """int32 (2 ** bits + 1, rows): all numbers of so many bits, each as likely."""
    edges = np.arange((1 << bits) + 1, dtype=np.int32) << (15 - bits)
    return np.repeat(edges[:, np.newaxis], rows, 1)
