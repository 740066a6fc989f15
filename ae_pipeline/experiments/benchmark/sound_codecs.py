"""Codecs of sound in the benchmark, on whole clips: FLAC, which loses nothing, and Opus, which keeps what is heard.

A clip is the WAV file that `decode` gives, made of the rows as they were; what comes back of it becomes rows again, and
is measured like ours. Opus (RFC 6716, by libsndfile: variable bit rate, frames of 20 ms) takes a few rates; clips of
others are resampled to 48 kHz and back by soxr. Each setting has two lines: files as they are, whose headers of 900
bytes weigh in short clips, and the packets in them with their lengths, which is what a store such as ours would keep.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.errors import DataError
from ae_pipeline.evaluation.measures.records.errors import record_bounds
from ae_pipeline.experiments.benchmark.points import Point, Rows, Tell, timed
from ae_pipeline.kinds.sound.clips import RATE, SUBTYPE
from ae_pipeline.kinds.sound.files import INSTALL, as_written, write_wav, written_as

# Bits a second of each channel that Opus is asked for; libsndfile takes them as a level of compression.
_OPUS_BITS = (6_000, 8_000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000, 96_000, 128_000)
_OPUS_LEAST, _OPUS_SPAN = 6_000, 250_000
_OPUS_RATES, _OPUS_USUAL = (8_000, 12_000, 16_000, 24_000, 48_000), 48_000
_OPUS_HEAD = 19  # bytes that a decoder needs once (RFC 7845)
_OPUS_AHEAD = 0.0065
_FLAC = {"PCM_U8": "PCM_S8", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}
_OGG_HEADER, _OGG_SEGMENTS = 27, 26


@dataclass(frozen=True)
class _Clip:
    """Samples (n, channels), float64 of full scale 1, and how their file has them."""

    samples: np.ndarray
    rate: int
    subtype: str


def measure_sound_codecs(rows: Rows, tell: Tell = lambda point: None) -> tuple[list[Point], list[str]]:
    """One point for FLAC, two for each bit rate of Opus, and what was left out, with the reason."""
    try:
        import soundfile
        import soxr  # noqa: F401
    except (ImportError, OSError):
        return [], [f"FLAC, Opus: the packages soundfile and soxr are not installed; {INSTALL}"]
    clips = list(_clips(rows))
    points, left_out = [], []
    if inexact := sorted({clip.subtype for clip in clips} - _FLAC.keys()):
        left_out.append(f"FLAC: clips of {', '.join(inexact)} are none that it keeps exactly")
    else:
        points.append(_measure_flac(rows, clips, soundfile))
        tell(points[-1])
    if "OPUS" not in soundfile.available_subtypes("OGG"):
        return points, [*left_out, "Opus: this libsndfile does not write it; install one of 1.0.29 or later"]
    for bits in _OPUS_BITS:
        for point in _measure_opus(rows, clips, bits):
            points.append(point)
            tell(point)
    return points, left_out


def _clips(rows: Rows) -> Iterator[_Clip]:
    known = rows.several
    assert known is not None
    kind, state = known
    for start, end in record_bounds(rows.attributes):
        attributes = rows.attributes.slice(start, end - start)
        samples = np.concatenate(list(kind.restored([(rows.pixels[start:end], attributes)], state)))
        line = attributes.select([RATE, SUBTYPE]).slice(0, 1).to_pylist()[0]
        yield _Clip(samples, line[RATE], written_as(line[SUBTYPE]))


def _rows_of(rows: Rows, clips: list[_Clip], decoded: list[np.ndarray]) -> np.ndarray:
    """What came back of each clip, as rows (n, frame)."""
    known = rows.several
    assert known is not None
    kind, state = known
    found = []
    for clip, samples in zip(clips, decoded, strict=True):
        file = io.BytesIO()
        how = {"channels": samples.shape[1], "rate": clip.rate, "subtype": clip.subtype}
        write_wav(file, [samples], samples=len(samples), **how)
        (record,) = kind.to_rows(pa.array([file.getvalue()], pa.binary()), str, state)
        if isinstance(record, DataError):
            raise record
        found += [values for values, _ in record.pieces]  # type: ignore[union-attr]
    return np.concatenate(found)


def _measure_flac(rows: Rows, clips: list[_Clip], soundfile: Any) -> Point:
    def encode(clip: _Clip) -> bytes:
        if not len(clip.samples):
            return b""
        file = io.BytesIO()
        how = {"format": "FLAC", "subtype": _FLAC[clip.subtype], "compression_level": 1.0}
        soundfile.write(file, clip.samples, clip.rate, **how)
        return file.getvalue()

    files, encoding = timed(lambda: [encode(clip) for clip in clips])
    decoded, decoding = timed(lambda: [_read(clip, file) for clip, file in zip(clips, files, strict=True)])
    bits = 8 * sum(map(len, files)) / len(rows)
    return rows.point("FLAC 8", "FLAC", "8", bits, _rows_of(rows, clips, decoded), (encoding, decoding))


def _measure_opus(rows: Rows, clips: list[_Clip], bits: int) -> Iterator[Point]:
    files, encoding = timed(lambda: [_opus(clip, bits) for clip in clips])
    decoded, decoding = timed(lambda: [_from_opus(clip, file) for clip, file in zip(clips, files, strict=True)])
    came_back = _rows_of(
        rows, clips, [as_written(some, clip.subtype) for clip, some in zip(clips, decoded, strict=True)]
    )
    setting = f"{bits / 1000:g} kbit/s"
    for family, sizes, shared in (
        ("Opus files", map(len, files), 0),
        ("Opus packets", map(packet_bytes, files), _OPUS_HEAD),
    ):
        kept = 8 * sum(sizes) / len(rows)
        yield rows.point(f"{family} {setting}", family, setting, kept, came_back, (encoding, decoding), shared)


def _opus(clip: _Clip, bits: int) -> bytes:
    import soundfile

    if not len(clip.samples):
        return b""
    rate = clip.rate if clip.rate in _OPUS_RATES else _OPUS_USUAL
    file = io.BytesIO()
    level = 1 - (bits - _OPUS_LEAST) / _OPUS_SPAN
    # The encoder looks ahead by 6.5 ms, and libsndfile does not wait for them: without silence the end is lost.
    samples = np.pad(_resampled(clip.samples, clip.rate, rate), ((0, round(_OPUS_AHEAD * rate)), (0, 0)))
    soundfile.write(file, samples, rate, format="OGG", subtype="OPUS", compression_level=level)
    return file.getvalue()


def _from_opus(clip: _Clip, file: bytes) -> np.ndarray:
    """Samples of the clip's rate and number."""
    rate = clip.rate if clip.rate in _OPUS_RATES else _OPUS_USUAL
    found = _resampled(_read(clip, file), rate, clip.rate)[: len(clip.samples)]
    return np.concatenate([found, np.zeros((len(clip.samples) - len(found), found.shape[1]))])


def _read(clip: _Clip, file: bytes) -> np.ndarray:
    """Samples of a file; one of no bytes is a clip without any."""
    import soundfile

    if not file:
        return clip.samples
    samples: np.ndarray = soundfile.read(io.BytesIO(file), dtype="float64", always_2d=True)[0]
    return samples


def _resampled(samples: np.ndarray, rate: int, other: int) -> np.ndarray:
    import soxr

    found: np.ndarray = samples if rate == other else soxr.resample(samples, rate, other)
    return found


def packet_bytes(file: bytes) -> int:
    """Bytes of the packets of an Opus file with their lengths, without headers (RFC 3533, RFC 7845)."""
    found = at = pages = 0
    while at < len(file):
        lengths = file[at + _OGG_HEADER : at + _OGG_HEADER + file[at + _OGG_SEGMENTS]]
        # The first page has the head, the second one the tags, and no other has any of these.
        found += sum(lengths) + len(lengths) if pages > 1 else 0
        at += _OGG_HEADER + len(lengths) + sum(lengths)
        pages += 1
    return found
