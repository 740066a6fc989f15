"""Clips of sound put together again from the rows of the kind `audio`, and the columns that say how."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.errors import DataError, IncompleteRecordError
from ae_pipeline.kinds.sound.files import as_written, write_wav
from ae_pipeline.kinds.sound.lapped import frames_of, unlap

FRAME, CHANNEL, SAMPLES, RATE, CHANNELS, SUBTYPE = (
    *("frame", "channel", "clip_samples", "clip_rate", "clip_channels", "clip_subtype"),
)


def turned(samples: np.ndarray) -> np.ndarray:
    """Left and right, (n, 2), to middle and side, and back: it is its own inverse. One channel stays as it is."""
    if samples.shape[1] == 1:
        return samples
    return np.stack([samples[:, 0] + samples[:, 1], samples[:, 0] - samples[:, 1]], axis=1) * np.sqrt(0.5)


class Clip:
    """A clip that rows are put together to; `line` are the columns of its first row.

    `frame` and `block` are in samples, as the kind's state has them. Raises DataError for columns that no clip has.
    """

    def __init__(self, line: pa.Table, frame: int, block: int):
        self._frame, self._block = frame, block
        self._line = line.select([SAMPLES, RATE, CHANNELS, SUBTYPE])
        values = self._line.to_pylist()[0]
        self.samples, self.rate, self.channels, self.subtype = (values[name] for name in self._line.column_names)
        if self.samples < 0 or self.channels not in (1, 2) or not 0 < self.rate < 1 << 31:
            raise DataError(
                f"the rows' columns say that a clip has {self.samples} samples of {self.channels} channels, "
                f"{self.rate} a second; restore the store"
            )
        self.rows = frames_of(self.samples, frame) * self.channels

    def write(self, file: Any, pieces: Iterable[tuple[np.ndarray, pa.Table]]) -> None:
        """All rows, piece by piece, as a WAV file."""
        values = {"channels": self.channels, "rate": self.rate, "subtype": self.subtype}
        write_wav(file, self._sounds(pieces), samples=self.samples, **values)

    def as_written(self, pieces: Iterable[tuple[np.ndarray, pa.Table]]) -> Iterator[np.ndarray]:
        """The samples (n, channels) that this file has, float64 of full scale 1."""
        left = self.samples
        for piece in self._sounds(pieces):
            yield as_written(piece[:left], self.subtype)
            left -= min(left, len(piece))

    def _sounds(self, pieces: Iterable[tuple[np.ndarray, pa.Table]]) -> Iterator[np.ndarray]:
        return (turned(piece) for piece in unlap(self._frames(pieces), self._block))

    def _frames(self, pieces: Iterable[tuple[np.ndarray, pa.Table]]) -> Iterator[np.ndarray]:
        """(k, frame, channels) of rows in order. Raises IncompleteRecordError where one is missing."""
        done = 0
        held = np.zeros((0, self._frame), np.float32)
        for rows, attributes in pieces:
            self._check(attributes, done)
            done += len(rows)
            joined = np.concatenate([held, rows]) if len(held) else rows
            whole = len(joined) // self.channels * self.channels
            held = joined[whole:]
            if whole:
                yield joined[:whole].reshape(-1, self.channels, self._frame).transpose(0, 2, 1)
        if done != self.rows:
            what = f"a clip has {done:,} of its {self.rows:,} rows; decode all rows of its record"
            raise IncompleteRecordError(what)

    def _check(self, attributes: pa.Table, done: int) -> None:
        numbers = np.arange(done, done + len(attributes))
        frames, channels = (attributes.column(name).to_numpy() for name in (FRAME, CHANNEL))
        same = attributes.select(self._line.column_names)
        expected = self._line.take(pa.array(np.zeros(len(same), np.int64)))
        if not (
            np.array_equal(frames, numbers // self.channels)
            and np.array_equal(channels, numbers % self.channels)
            and same.equals(expected)
        ):
            what = "a clip's rows are not all there, or not in order; decode all rows of its record"
            raise IncompleteRecordError(what)
