"""Logits of bytes as chances of 16 symbols, in whole shares of 2 ** 15: exact on every machine.

A logit is in sixteenths of an octave: 16 more is twice as likely. 2 ** (l / 16) is taken piecewise linear between
powers of two, which is what the bits of a float32 say if `l` is shifted into them: no table, no exponential. All sums
are multiples of 1/16 below 2 ** 20 and thus exact in float32, and one division and one product of floats that are
rounded as IEEE 754 says give the rest.
"""

import numpy as np

from ae_pipeline.codec.context.rans import ONE, picked

SYMBOLS = 16
LOGIT_UNIT = 16
"""Logits per octave."""
_EXPONENT_BITS, _EXPONENT_ZERO = 19, 127 * LOGIT_UNIT
_AT_ONCE = 4096  # as many stay in the cache
_OWN = np.arange(1, SYMBOLS, dtype=np.int32)[:, np.newaxis]  # no symbol has less than one share


def edges_of(logits: np.ndarray) -> np.ndarray:
    """uint8 (n, 16) to int32 (17, n): where the share of each symbol begins, and last, ONE."""
    bits = np.ascontiguousarray(logits.T).astype(np.uint32)
    bits += np.uint32(_EXPONENT_ZERO)
    bits <<= np.uint32(_EXPONENT_BITS)
    sums = bits.view(np.float32)
    for symbol in range(1, SYMBOLS):
        sums[symbol] += sums[symbol - 1]
    shares = sums[:-1] * (np.float32(ONE - SYMBOLS) / sums[-1])
    edges = np.empty((SYMBOLS + 1, len(logits)), np.int32)
    edges[0], edges[-1] = 0, ONE
    np.copyto(edges[1:-1], shares, casting="unsafe")
    edges[1:-1] += _OWN
    return edges


def shares_of(logits: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and width, int32 (n,) each, of uint8 symbols (n,) by uint8 logits (n, 16)."""
    starts, widths = np.empty(len(symbols), np.int32), np.empty(len(symbols), np.int32)
    for first in range(0, len(symbols), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        columns = np.arange(len(symbols[some]))
        starts[some], widths[some] = picked(edges_of(logits[some]), symbols[some], columns)
    return starts, widths
