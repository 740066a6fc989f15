"""Sound files: what is in them, read piece by piece; and WAV files written again.

    sound = look_through(path, rate=None, place="a.flac")     # reads all of it; DataError where it is damaged
    for piece in read(path, sound, place): ...                # float64 (n, channels), 1.0 is full scale

WAV, FLAC and Ogg (Vorbis, Opus) are read by libsndfile, by way of the package soundfile. It takes a file that was cut
short for a shorter one, so lengths are held against what the headers say: RIFF's chunk `data` (Microsoft and IBM,
"Multimedia Programming Interface and Data Specifications 1.0", 1991), the last page of an Ogg stream (RFC 3533).
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ae_pipeline.errors import ConfigError, DataError, first_line

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus")
INSTALL = "pip install 'ae-pipeline[audio]'"
SoundFile = Path | bytes
"""A file, or its bytes."""
PIECE_SAMPLES = 1 << 16
_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG")
_MOST_CHANNELS = 2
# Floats may go beyond full scale, but not by more than 24 dB: one such value would decide the scaling of all rows.
_LOUDEST = 16.0
# RIFF and what streams write that do not know their length yet.
_UNKNOWN_LENGTHS = (0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF)
_OGG_PAGE, _OGG_LAST, _OGG_HEADER = b"OggS", 4, 27
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MOST_RIFF_BYTES = (1 << 32) - 1
# How samples stand in a WAV file: format tag, bytes, and what full scale is.
_WAV = {
    "PCM_U8": (1, 1, 1 << 7),
    "PCM_16": (1, 2, 1 << 15),
    "PCM_24": (1, 3, 1 << 23),
    "PCM_32": (1, 4, 1 << 31),
    "FLOAT": (3, 4, 1),
    "DOUBLE": (3, 8, 1),
}


class BadValuesError(DataError):
    """Samples that no row may have: NaN, infinity, and floats far beyond full scale. They are never left out."""


@dataclass(frozen=True)
class Sound:
    """What a file holds, after `look_through`."""

    rate: int
    """Samples a second, of what `read` gives."""
    channels: int
    samples: int
    """How many each channel has."""
    subtype: str
    """libsndfile's name of how the file has its samples, e.g. PCM_16."""
    file_rate: int
    """Samples a second in the file."""


def look_at(file: SoundFile, place: str) -> Sound:
    """What the header of a file says. Raises DataError for what is no sound, or none of one or two channels."""
    with _opened(file, place) as opened:
        if opened.format not in _FORMATS:
            what = f"is a sound file of the format {opened.format}, expected WAV, FLAC or Ogg"
            raise DataError(what, place=place, advice="convert it to WAV or FLAC")
        if opened.channels > _MOST_CHANNELS:
            what = f"has {opened.channels} channels, expected 1 or 2"
            raise DataError(what, place=place, advice="make files of one or two channels of it")
        found = Sound(opened.samplerate, opened.channels, opened.frames, opened.subtype, opened.samplerate)
    _refuse_cut(file, opened.format, place)
    return found


def look_through(file: SoundFile, rate: int | None, place: str) -> Sound:
    """Read all of a file. `rate` resamples it to so many samples a second, where it has others.

    Raises DataError for a file that is damaged or was cut short, and BadValuesError.
    """
    header = look_at(file, place)
    found = replace(header, rate=rate or header.file_rate)
    samples = 0
    for piece in _file_pieces(file, place):
        if not np.isfinite(piece).all():
            advice = "remove or repair this record, and others like it, first"
            raise BadValuesError("has values that are NaN or infinite", place=place, advice=advice)
        loudest = float(np.abs(piece).max(initial=0))
        if loudest > _LOUDEST:
            what = f"has a sample of {loudest:g}, where full scale is 1 and {_LOUDEST:g} the most that is taken"
            raise BadValuesError(what, place=place, advice="scale it down, or remove it")
        samples += len(piece)
    if samples != header.samples:
        what = f"has {samples:,} samples, but says {header.samples:,}: it was cut short, or is damaged"
        raise DataError(what, place=place, advice="restore it")
    if found.rate != found.file_rate:
        samples = sum(map(len, read(file, found, place)))
    return replace(found, samples=samples)


def read(file: SoundFile, sound: Sound, place: str) -> Iterator[np.ndarray]:
    """The samples of a file, float64 (n, channels), full scale is 1; at least one piece, if an empty one."""
    pieces = _file_pieces(file, place)
    if sound.rate == sound.file_rate:
        yield from pieces
        return
    soxr = _soxr()
    stream = soxr.ResampleStream(sound.file_rate, sound.rate, sound.channels, dtype="float64")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros((0, sound.channels)), last=True)


def _file_pieces(file: SoundFile, place: str) -> Iterator[np.ndarray]:
    import soundfile

    with _opened(file, place) as opened:
        yield np.zeros((0, opened.channels))
        try:
            while len(piece := opened.read(PIECE_SAMPLES, dtype="float64", always_2d=True)):
                yield piece
        except soundfile.LibsndfileError as error:
            raise DataError(f"is damaged: {first_line(error)}", place=place, advice="restore it") from None


@contextmanager
def _opened(file: SoundFile, place: str) -> Iterator[Any]:
    soundfile = _soundfile()
    try:
        opened = soundfile.SoundFile(os.fsencode(file) if isinstance(file, Path) else io.BytesIO(file))
    except soundfile.LibsndfileError as error:
        reason = first_line(error).rpartition(": ")[2]
        raise DataError(f"is no readable sound file: {reason}", place=place, advice="restore or remove it") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", place=place) from None
    with opened:
        yield opened


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError where libsndfile is missing
        raise _not_installed("soundfile", error) from None
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise _not_installed("soxr", error) from None
    return soxr


def _not_installed(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"the kind audio needs the package {name} ({first_line(error)}); {INSTALL}")


def _refuse_cut(file: SoundFile, form: str, place: str) -> None:
    """Raise DataError for a file that ends before it says that it does."""
    with open(file, "rb") if isinstance(file, Path) else io.BytesIO(file) as opened:
        if form == "OGG":
            missing = _ogg_trouble(opened)
        elif form in ("WAV", "WAVEX"):
            missing = _wav_trouble(opened)
        else:
            return  # FLAC's header says how many samples there are, and its decoder tells when one is missing
    if missing:
        raise DataError(missing, place=place, advice="restore it, or write it again with a program that ends it")


def _wav_trouble(file: BinaryIO) -> str | None:
    size = file.seek(0, os.SEEK_END)
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            if length in _UNKNOWN_LENGTHS or (length == 0 and at + 8 < size):
                return "does not say how long it is, as a WAV file from a pipe does not"
            missing = at + 8 + length - size
            return f"was cut short: {missing:,} bytes are missing" if missing > 0 else None
        at += 8 + length + length % 2
    return "has no samples (no chunk `data`)"


def _ogg_trouble(file: BinaryIO) -> str | None:
    """Goes through all pages: libsndfile leaves out those that are damaged, and the sound between them."""
    ended = False
    while header := file.read(_OGG_HEADER):
        table = file.read(header[26]) if len(header) == _OGG_HEADER and header.startswith(_OGG_PAGE) else b""
        if len(header) < _OGG_HEADER or not header.startswith(_OGG_PAGE) or len(table) < header[26]:
            return "was cut short or is damaged: something that is no page follows its pages"
        body = file.read(sum(table))
        if len(body) < sum(table):
            return "was cut short: its last page is not whole"
        if _ogg_sum(header[:22] + b"\0\0\0\0" + header[26:] + table + body) != struct.unpack_from("<I", header, 22)[0]:
            return "is damaged: the checksum of a page is wrong"
        ended = bool(header[5] & _OGG_LAST)
    return None if ended else "was cut short: its last page is missing"


def _ogg_sum(page: bytes) -> int:
    """Checksum of a page, RFC 3533: polynomial 0x04C11DB7, first bit first, from 0; zlib's goes the other way round."""
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)


def written_as(subtype: str) -> str:
    """How a WAV file has samples that stood so: as they were, or with 16 bits for what has no bits of its own."""
    if subtype == "PCM_S8":
        return "PCM_U8"
    return subtype if subtype in _WAV else "PCM_16"


def write_wav(
    file: BinaryIO, pieces: Iterable[np.ndarray], *, samples: int, channels: int, rate: int, subtype: str
) -> None:
    """Write `samples` samples of float64 pieces (n, channels), full scale 1, as a WAV file; what is more is left off.

    Integers are rounded, and cut off beyond full scale. The same samples give the same bytes: there is no time in them.
    Raises DataError beyond WAV's 4 GiB.
    """
    tag, width, scale = _WAV[written_as(subtype)]
    frame = width * channels
    length = samples * frame
    fact = b"" if tag == 1 else struct.pack("<4sII", b"fact", 4, samples)
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, 8 * width)
    layout += b"" if tag == 1 else b"\0\0"
    total = 4 + 8 + len(layout) + len(fact) + 8 + length + length % 2
    if total > _MOST_RIFF_BYTES:
        advice = "decode its rows with --format rows"
        raise DataError(f"a clip of {samples:,} samples does not fit a WAV file of 4 GiB", advice=advice)
    file.write(struct.pack("<4sI4s4sI", b"RIFF", total, b"WAVE", b"fmt ", len(layout)) + layout + fact)
    file.write(struct.pack("<4sI", b"data", length))
    left = samples
    for piece in pieces:
        file.write(_bytes_of(piece[:left], width, scale))
        left -= min(left, len(piece))
    assert not left
    file.write(b"\0" * (length % 2))


def as_written(piece: np.ndarray, subtype: str) -> np.ndarray:
    """Samples, float64 of full scale 1, as the file of `write_wav` has them: rounded, and cut off beyond full scale."""
    _, width, scale = _WAV[written_as(subtype)]
    return piece.astype(f"<f{width}").astype(np.float64) if scale == 1 else _whole(piece, scale) / scale


def _whole(piece: np.ndarray, scale: int) -> np.ndarray:
    return np.clip(np.rint(piece * scale), -scale, scale - 1)


def _bytes_of(piece: np.ndarray, width: int, scale: int) -> bytes:
    if scale == 1:
        return piece.astype(f"<f{width}").tobytes()
    whole = _whole(piece, scale).astype(np.int64)
    if width == 1:
        return (whole + 128).astype(np.uint8).tobytes()
    if width == 3:
        return np.ascontiguousarray(whole.astype("<i4")[..., None].view(np.uint8)[..., :3]).tobytes()
    return whole.astype(f"<i{width}").tobytes()
