"""Kind `audio`: a record is a clip of sound, its rows are its frames.

A frame is `frame` samples of one channel, made of blocks that lap over each other (lapped.py): as many values as
samples, and no clicks where one ends. Two channels are turned into their middle and their side, (left + right) / √2
and (left - right) / √2, which loses nothing and leaves little in the side of most recordings; they are rows of their
own, so that one codec takes mono and stereo. Values are floats, full scale is 1.

A clip keeps its length, rate and number of channels, and how its file had its samples (16 bits, 24, floats). All clips
of a data set have one rate; `rate` asks for resampling, and then they keep the new one. A decoded clip is a WAV file,
whatever it was before. Refused by name: more than two channels, files that were cut short, NaN, floats far beyond full
scale. A clip without samples has one frame of silence, and comes back without samples.
"""

import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Piece, Place, Row, Several, Source
from ae_pipeline.kinds.encoded import ENCODED, as_column, bytes_of, is_encoded, kept_path, paths_of
from ae_pipeline.kinds.sound.clips import CHANNEL, CHANNELS, FRAME, RATE, SAMPLES, SUBTYPE, Clip, turned
from ae_pipeline.kinds.sound.files import (
    SOUND_SUFFIXES,
    BadValuesError,
    Sound,
    SoundFile,
    look_at,
    look_through,
    read,
)
from ae_pipeline.kinds.sound.lapped import frames_of, lap
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.params.base import Section

Rate = Annotated[int, Field(ge=100, le=1_000_000)]
BlockSize = Annotated[int, Field(ge=16, le=1 << 16, multiple_of=2)]
FrameSize = Annotated[int, Field(ge=16, le=1 << 20)]
_COLUMNS = pa.schema(
    [
        pa.field(FRAME, pa.int32(), nullable=False),
        pa.field(CHANNEL, pa.int8(), nullable=False),
        pa.field(SAMPLES, pa.int64(), nullable=False),
        pa.field(RATE, pa.int32(), nullable=False),
        pa.field(CHANNELS, pa.int8(), nullable=False),
        pa.field(SUBTYPE, pa.string(), nullable=False),
    ]
)
# Values of the frames that are made at once, of all channels.
_PIECE_VALUES = 1 << 19
_BLOCK_SECONDS, _LEAST_BLOCK = 0.016, 16
_USUAL_RATE = 8000
_NAMED = 3


class AudioOptions(Section):
    """`source.files.settings` of this kind."""

    block: BlockSize | None = None
    """Samples from one lapped block to the next; null: about 16 ms, a power of two."""
    blocks: Annotated[int, Field(ge=1, le=1024)] = 1
    """Blocks in a frame, which is one row."""
    rate: Rate | None = None
    """Samples a second that all clips are brought to; null: they have one rate, and keep it."""


class AudioState(KindState):
    """What the codec keeps."""

    block: BlockSize
    frame: FrameSize
    rate: Rate
    """Samples a second of all clips."""
    resample: bool = False
    """Whether clips of other rates are resampled; otherwise they are refused."""

    @model_validator(mode="after")
    def _is_of_whole_blocks(self) -> "AudioState":
        if self.frame % self.block:
            raise ValueError("frame must be a multiple of block")
        return self


class AudioKind(Kind):
    """Clips as files, or as the bytes of files in a column (binary, or Hugging Face's struct of bytes and path)."""

    State, Options = AudioState, AudioOptions
    several = True
    suffixes = SOUND_SUFFIXES
    block_records = 16
    column = "audio"

    def fit(self, form: Form, settings: Section, records: Iterator[Source]) -> AudioState:
        assert isinstance(settings, AudioOptions)
        rate = settings.rate or _rate_of(records)
        block = settings.block or max(_LEAST_BLOCK, 2 ** round(math.log2(rate * _BLOCK_SECONDS)))
        frame = block * settings.blocks
        return AudioState(form=form, block=block, frame=frame, rate=rate, resample=settings.rate is not None)

    def takes(self, column: pa.DataType) -> bool:
        return is_encoded(column)

    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:  # noqa: ARG002
        advice = "write WAV files, which say the rate, or set source.files.kind: vector for rows of numbers"
        raise DataError("is an array, expected sound files", place=place, advice=advice)

    def rows_of_array(self, records: np.ndarray, place: Place, state: KindState | None) -> Iterator[Row]:  # noqa: ARG002
        self.refuse_array(records.shape, records.dtype, place(0))
        yield from ()

    def rows_of_column(self, records: pa.Array, place: Place, state: KindState | None) -> Iterator[Row]:
        for number, data in enumerate(bytes_of(records)):
            if data.is_valid:
                yield self._rows_of(data.as_py(), place(number), state)
            else:
                yield DataError("has no sound", place=place(number), advice="put its bytes there, or remove it")

    def read_file(self, path: Path, state: KindState | None = None) -> Row:
        return self._rows_of(path, str(path), state)

    def _rows_of(self, file: SoundFile, place: str, state: KindState | None) -> Several | DataError:
        assert isinstance(state, AudioState)
        try:
            sound = look_through(file, state.rate if state.resample else None, place)
            if sound.rate != state.rate:
                what = f"has {sound.rate:,} samples a second, expected {state.rate:,}"
                advice = "resample it, or set source.files.settings: {rate: ...} and train with it"
                raise DataError(what, place=place, advice=advice)
        except BadValuesError:
            raise
        except DataError as error:
            return error
        rows = frames_of(sound.samples, state.frame) * sound.channels
        return Several(rows, _pieces(file, sound, place, state))

    def beside(self, records: pa.Array) -> dict[str, pa.Array]:
        return paths_of(records)

    def row_columns(self, state: KindState) -> pa.Schema:  # noqa: ARG002
        return _COLUMNS

    def usual_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:  # noqa: ARG002
        return ENCODED

    def folded(self, state: KindState) -> tuple[str, ...]:
        return (*_COLUMNS.names, *kept_path(state))

    def from_rows(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> pa.Array:
        assert isinstance(state, AudioState)
        kind = self.column_type(state, SampleSpec(rows.shape[1:], rows.dtype.name))
        files, starts, at = [], [], 0
        while at < len(rows):
            clip = Clip(attributes.slice(at, 1), state.frame, state.block)
            file = io.BytesIO()
            clip.write(file, [(rows[at : at + clip.rows], attributes.slice(at, clip.rows))])
            files.append(file.getvalue())
            starts.append(at)
            at += clip.rows
        return as_column(files, attributes.take(pa.array(starts, pa.int64())), state, kind)

    def ending(self, state: KindState, spec: SampleSpec) -> str | None:  # noqa: ARG002
        return ".wav"

    def write(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], path: Path, state: KindState) -> None:
        assert isinstance(state, AudioState)
        source = iter(pieces)
        first = next(source)
        clip = Clip(first[1].slice(0, 1), state.frame, state.block)
        with open(path, "xb") as file:
            clip.write(file, chain([first], source))

    def restored(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], state: KindState) -> Iterator[np.ndarray]:
        assert isinstance(state, AudioState)
        source = iter(pieces)
        first = next(source)
        yield from Clip(first[1].slice(0, 1), state.frame, state.block).as_written(chain([first], source))


def _rate_of(records: Iterator[Source]) -> int:
    """The one rate of all files whose headers can be read, and of the first records of a column. Raises DataError."""
    found, examples = Counter[int](), dict[int, str]()
    for block in records:
        if isinstance(block, np.ndarray):
            break
        files: Iterable[SoundFile] = [block] if isinstance(block, Path) else bytes_of(block).drop_null().to_pylist()
        for file in files:
            try:
                rate = look_at(file, str(block)).rate
            except DataError:
                continue  # it is counted and named when it is read
            found[rate] += 1
            examples.setdefault(rate, str(block) if isinstance(block, Path) else "a record")
        if found and not isinstance(block, Path):
            break
    if len(found) > 1:
        what = ", ".join(f"{count:,} of {rate:,} ({examples[rate]})" for rate, count in found.most_common(_NAMED))
        raise DataError(
            f"the clips have {len(found)} rates of samples a second: {what}",
            advice="name those of one rate by a glob in source.files.path, or set source.files.settings: {rate: ...}, "
            "which resamples the others",
        )
    return next(iter(found), _USUAL_RATE)


def _pieces(file: SoundFile, sound: Sound, place: str, state: AudioState) -> Iterator[Piece]:
    """Rows of all channels, frame by frame: (k, frame) float32, and their columns."""
    most = max(1, _PIECE_VALUES // (state.frame * sound.channels))
    first = 0
    samples = (turned(piece) for piece in read(file, sound, place))
    for frames in lap(samples, sound.samples, state.frame, state.block, most):
        count = len(frames)
        rows = frames.transpose(0, 2, 1).reshape(-1, state.frame).astype(np.float32)
        yield rows, _columns_of(sound, first, count)
        first += count


def _columns_of(sound: Sound, first: int, frames: int) -> dict[str, Any]:
    rows = frames * sound.channels
    return {
        FRAME: np.repeat(np.arange(first, first + frames), sound.channels),
        CHANNEL: np.tile(np.arange(sound.channels), frames),
        SAMPLES: np.full(rows, sound.samples),
        RATE: np.full(rows, sound.rate),
        CHANNELS: np.full(rows, sound.channels),
        SUBTYPE: [sound.subtype] * rows,
    }


KIND = AudioKind
