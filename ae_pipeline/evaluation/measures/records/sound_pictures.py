"""A picture of clips (matplotlib): waves and spectra of the original, and of what was decoded, beside each other."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ae_pipeline.evaluation.measures.records.pictured import PicturedRecord
from ae_pipeline.kinds.sound.clips import RATE

_BLUE, _ORANGE, _GREY = "#2463a8", "#d9730d", "#8a8a8a"
_SECONDS = 4.0
_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.01
# Decibel below the loudest of the original at which a spectrum is black.
_RANGE = 80.0
_LEAST = 1e-12
_LONGEST_NAME = 34


def draw_sounds(clips: list[PicturedRecord]) -> Figure:
    """The first seconds of each clip, the mean of its channels: waves, their difference, and both spectra."""
    figure = Figure(figsize=(3.6 * len(clips) + 0.8, 8.4), layout="constrained", dpi=110)
    panels = figure.subplots(4, len(clips), squeeze=False, sharex="col")
    for column, clip in zip(panels.T, clips, strict=True):
        rate = clip.columns[RATE]
        before, after = (some[: round(_SECONDS * rate)].mean(axis=1) for some in (clip.original, clip.decoded))
        column[0].set_title(_title(clip), fontsize=9)
        limit = 1.05 * max(np.abs(before).max(initial=0), np.abs(after).max(initial=0)) or 1.0
        for axis, drawn, name in zip(column[:2], (before, after), ("original", "decoded"), strict=True):
            _draw_wave(axis, drawn, rate, limit, _GREY if name == "original" else _BLUE, name)
        _draw_wave(column[1], after - before, rate, limit, _ORANGE, "difference")
        top = _spectrum(before, rate).max(initial=-np.inf)
        for axis, drawn in zip(column[2:], (before, after), strict=True):
            extent = (0, max(len(drawn), 1) / rate, 0, rate / 2000)
            power = _spectrum(drawn, rate).T
            axis.imshow(power, origin="lower", aspect="auto", cmap="magma", vmin=top - _RANGE, vmax=top, extent=extent)
        column[3].set_xlabel("seconds", fontsize=9)
    for axis, name in zip(panels[:, 0], ("original", "decoded", "original, kHz", "decoded, kHz"), strict=True):
        axis.set_ylabel(name, fontsize=9)
    panels[1, 0].legend(fontsize=7, loc="lower right")
    return figure


def _title(clip: PicturedRecord) -> str:
    name = str(clip.columns.get("source_file") or clip.columns.get("record"))
    name = name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"
    snr, distance = clip.columns["clip_snr"], clip.columns["log_mel_distance"]
    lost = f"SNR {snr:.1f} dB" if np.isfinite(snr) else "silent" if np.isnan(snr) else "lossless"
    return f"{clip.title}: {name}\n{lost}, log-mel distance {distance:.1f} dB"


def _draw_wave(axis: Any, samples: np.ndarray, rate: int, limit: float, colour: str, name: str) -> None:
    axis.plot(np.arange(len(samples)) / rate, samples, color=colour, linewidth=0.5, label=name)
    axis.set_ylim(-limit, limit)
    axis.tick_params(labelsize=7)


def _spectrum(samples: np.ndarray, rate: int) -> np.ndarray:
    """Power in dB, (windows, bins), of windows of 25 ms every 10 ms."""
    window, hop = (max(1, round(rate * seconds)) for seconds in (_WINDOW_SECONDS, _HOP_SECONDS))
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    power: np.ndarray = 10 * np.log10(np.square(np.abs(np.fft.rfft(windows))) + _LEAST)
    return power
