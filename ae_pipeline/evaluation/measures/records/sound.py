"""Metrics of clips of sound: samples (n, channels), float64 of full scale 1, as the decoded file has them.

- `SoundSnr`: energy of the clip by that of the error, in dB.
- `SegmentalSnr`: mean over segments of 20 ms of the SNR of each, kept between -10 and 35 dB, so that neither silence
  nor a segment without an error decides (Quackenbush, Barnwell and Clements, "Objective Measures of Speech Quality",
  1988; the limits: Hansen and Pellom, "An effective quality evaluation protocol for speech enhancement algorithms",
  ICSLP 1998).
- `LogMelDistance`: mean absolute difference, in dB, of the energies in 40 mel bands (Davis and Mermelstein, "Comparison
  of parametric representations for monosyllabic word recognition", IEEE Trans. ASSP 28, 1980), over windows of 25 ms
  (Hann) every 10 ms: a log spectral distance (Gray and Markel, "Distance measures for speech processing", IEEE Trans.
  ASSP 24, 1976) as coarse as hearing is. Bands are triangles from 0 Hz to half the rate, 20 kHz at most, on the scale
  2595 log10(1 + f / 700). Energies below those of a sine at -80 dB of full scale count as that: nobody hears them.

What codecs for listeners leave out, phases and noise, is an error to the first two and next to none to the last.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

_RATE = "clip_rate"
_SEGMENT_SECONDS = 0.02
_LEAST_DB, _MOST_DB = -10.0, 35.0
_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.01
_BANDS = 40
_HIGHEST_HZ = 20_000.0
_FLOOR = 1e-8
# Windows whose spectra are in memory at once.
_WINDOWS = 256


class SoundSnr:
    """SNR of a clip in dB: NaN without any sound, infinite without any error."""

    def __init__(self, line: Mapping[str, Any]):  # noqa: ARG002
        self._sound = self._error = 0.0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        self._sound += float(np.square(original).sum())
        self._error += float(np.square(decoded - original).sum())

    def value(self) -> float:
        if not self._sound:
            return float("nan")
        return float(10 * np.log10(self._sound / self._error)) if self._error else float("inf")


class SegmentalSnr:
    """Mean SNR of segments, dB. What is left at the end is a segment if the clip has no other one."""

    def __init__(self, line: Mapping[str, Any]):
        self._segment = max(1, round(line[_RATE] * _SEGMENT_SECONDS))
        self._held = _Held()
        self._sum, self._segments = 0.0, 0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        pair = self._held.joined(original, decoded)
        whole = pair.shape[1] // self._segment * self._segment
        self._measure(pair[:, :whole].reshape(2, -1, self._segment, pair.shape[2]))
        self._held.keep(pair[:, whole:])

    def value(self) -> float:
        if not self._segments and self._held.samples:
            self._measure(self._held.rest()[:, None])
        return self._sum / self._segments if self._segments else float("nan")

    def _measure(self, segments: np.ndarray) -> None:
        """(2, n, samples, channels); without an error a segment has the most, whatever it holds."""
        sound = np.square(segments[0]).sum(axis=(1, 2))
        error = np.square(segments[1] - segments[0]).sum(axis=(1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(error > 0, 10 * np.log10(sound / error), _MOST_DB)
        self._sum += float(np.clip(found, _LEAST_DB, _MOST_DB).sum())
        self._segments += len(found)


class LogMelDistance:
    """Mean over windows, bands and channels of the difference of the energies in dB.

    Silence fills a clip shorter than a window; what is left behind the last window of a longer one is not counted.
    """

    def __init__(self, line: Mapping[str, Any]):
        rate = line[_RATE]
        self._window, self._hop = (max(1, round(rate * seconds)) for seconds in (_WINDOW_SECONDS, _HOP_SECONDS))
        self._shape, self._bands = _analysis(rate, self._window)
        self._held = _Held()
        self._sum, self._windows = 0.0, 0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        pair = self._held.joined(original, decoded)
        count = max(0, (pair.shape[1] - self._window) // self._hop + 1)
        for start in range(0, count, _WINDOWS):
            windows = min(_WINDOWS, count - start)
            end = (start + windows - 1) * self._hop + self._window
            self._measure(pair[:, start * self._hop : end])
        self._held.keep(pair[:, count * self._hop :])

    def value(self) -> float:
        if not self._windows and self._held.samples:
            rest = self._held.rest()
            self._measure(np.pad(rest, ((0, 0), (0, self._window - rest.shape[1]), (0, 0))))
        return self._sum / self._windows if self._windows else float("nan")

    def _measure(self, pair: np.ndarray) -> None:
        """(2, samples, channels) whose windows end where the samples do."""
        windows = np.lib.stride_tricks.sliding_window_view(pair, self._window, axis=1)[:, :: self._hop]
        size = 2 * (self._bands.shape[1] - 1)
        power = np.square(np.abs(np.fft.rfft(windows * self._shape, size)))
        energies = 10 * np.log10(np.maximum(power @ self._bands.T, _FLOOR))
        self._sum += float(np.abs(energies[1] - energies[0]).mean(axis=(1, 2)).sum())
        self._windows += windows.shape[1]


class _Held:
    """The samples of both clips, (2, n, channels), that wait for more."""

    def __init__(self) -> None:
        self._pair: np.ndarray | None = None

    @property
    def samples(self) -> int:
        return 0 if self._pair is None else self._pair.shape[1]

    def joined(self, original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        pair = np.stack([original, decoded])
        return np.concatenate([self._pair, pair], axis=1) if self.samples else pair

    def keep(self, pair: np.ndarray) -> None:
        self._pair = pair.copy()

    def rest(self) -> np.ndarray:
        assert self._pair is not None
        return self._pair


@lru_cache(maxsize=8)
def _analysis(rate: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The window's shape (window,), and the bands (bands, bins) that make of a sine of full scale an energy of 1."""
    size = 1 << (2 * window - 1).bit_length()
    shape = np.hanning(window + 2)[1:-1]
    highest = 2595 * np.log10(1 + min(rate / 2, _HIGHEST_HZ) / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, _BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(size, 1 / rate)
    low, middle, high = (edges[place : place + _BANDS, None] for place in range(3))
    bands = np.maximum(0, np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)))
    # Parseval: the power of a sine's main lobe, of the half of the spectrum that is looked at.
    return shape, bands / (size * np.square(shape).sum() / 4)
