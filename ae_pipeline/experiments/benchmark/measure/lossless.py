"""General compressors of the raw rows: what one has without any codec of images or latents."""

import lzma
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.data.pixels import PIXELS, from_numpy
from ae_pipeline.experiments.benchmark.measure.points import Point, Rows, timed
from ae_pipeline.store.parts import column_bytes

# A column of a Parquet file with rows in row groups of the same number as a latent store's by default.
_ROW_GROUP_ROWS = 10_000


@dataclass(frozen=True)
class Compressor:
    """`decompress` is given the compressed bytes and how many come out."""

    name: str
    setting: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def measure_lossless(rows: Rows) -> tuple[list[Point], list[str]]:
    """One point for each compressor, and what was left out, with the reason.

    zstd, xz and brotli take all rows as one stream: smallest, and unpacked as a whole. Parquet keeps them in pages.
    """
    compressors, left_out = _compressors()
    return [*(_stream(each, rows) for each in compressors), *(_parquet(level, rows) for level in (3, 19))], left_out


def _compressors() -> tuple[list[Compressor], list[str]]:
    found = [_zstd(level) for level in (1, 3, 19)]
    found.append(
        Compressor(
            "xz",
            "9e",
            lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
            lambda data, _: lzma.decompress(data),
        )
    )
    try:
        import brotli
    except ImportError:
        return found, ["brotli: the package is not installed; pip install 'ae-pipeline[alternatives]'"]
    # The largest window of the format.
    settings = {"quality": 11, "lgwin": 24}
    found.append(
        Compressor(
            "brotli", "11", lambda raw: brotli.compress(raw, **settings), lambda data, _: brotli.decompress(data)
        )
    )
    return found, []


def _zstd(level: int) -> Compressor:
    codec = pa.Codec("zstd", compression_level=level)
    return Compressor(
        "zstd",
        str(level),
        lambda raw: codec.compress(raw, asbytes=True),
        lambda data, size: codec.decompress(data, size, asbytes=True),
    )


def _stream(compressor: Compressor, rows: Rows) -> Point:
    raw = rows.pixels.tobytes()
    data, encoding = timed(lambda: compressor.compress(raw))
    back, decoding = timed(lambda: compressor.decompress(data, len(raw)))
    decoded = np.frombuffer(back, rows.pixels.dtype).reshape(rows.pixels.shape)
    return _point(compressor.name, compressor.setting, len(data), rows, decoded, encoding, decoding)


def _parquet(level: int, rows: Rows) -> Point:
    """The `pixels` column of a Parquet file; as of our latents, the column counts and not the footer."""
    table = pa.table({PIXELS: from_numpy(rows.pixels.reshape(len(rows), -1), rows.samples.spec.dtype)})
    sink = BytesIO()
    options: dict[str, Any] = {"compression": "zstd", "compression_level": level, "use_dictionary": False}
    _, encoding = timed(lambda: pq.write_table(table, sink, _ROW_GROUP_ROWS, write_statistics=False, **options))
    size = column_bytes(pq.read_metadata(BytesIO(sink.getvalue())), PIXELS)
    back, decoding = timed(lambda: pq.read_table(BytesIO(sink.getvalue())))
    column = back.column(PIXELS).combine_chunks().buffers()[1]
    decoded = np.frombuffer(column, np.uint8, rows.pixels.nbytes).view(rows.pixels.dtype).reshape(rows.pixels.shape)
    return _point("Parquet", f"zstd {level}", size, rows, decoded, encoding, decoding)


def _point(
    name: str, setting: str, size: int, rows: Rows, decoded: np.ndarray, encoding: float, decoding: float
) -> Point:
    bits = 8 * size / len(rows)
    return Point(
        name=f"{name} {setting}",
        family=name,
        setting=setting,
        bits_per_row=bits,
        bits_per_row_with_codec=bits,
        metrics=rows.metrics(decoded),
        encode_rows_per_s=len(rows) / encoding,
        decode_rows_per_s=len(rows) / decoding,
        measured_rows=len(rows),
    )
