"""General compressors of the raw rows: what one has without any codec of images or latents."""

import lzma
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.data.pixels import PIXELS, from_numpy
from ae_pipeline.experiments.benchmark.image_formats import INSTALL
from ae_pipeline.experiments.benchmark.points import Point, Rows, timed
from ae_pipeline.store.parts import column_bytes

# A column of a Parquet file with rows in row groups of the same number as a latent store's by default.
_ROW_GROUP_ROWS = 10_000


def measure_lossless(rows: Rows) -> tuple[list[Point], list[str]]:
    """One point for each compressor, and what was left out, with the reason.

    zstd, xz and brotli take all rows as one stream: smallest, and unpacked as a whole. Parquet keeps them in pages;
    lists of floats also with the first bytes of all, then the second ones and so on (BYTE_STREAM_SPLIT).
    """
    points, left_out = [], []
    for level in (1, 3, 19):
        codec = pa.Codec("zstd", compression_level=level)
        unpack = partial(codec.decompress, decompressed_size=rows.pixels.nbytes)
        points.append(_stream("zstd", str(level), codec.compress, unpack, rows))
    points.append(_stream("xz", "9e", partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME), lzma.decompress, rows))
    try:
        import brotli
    except ImportError:
        left_out.append(f"brotli: the package is not installed; {INSTALL}")
    else:  # with the largest window of the format
        points.append(_stream("brotli", "11", partial(brotli.compress, quality=11, lgwin=24), brotli.decompress, rows))
    points += [_parquet(level, rows) for level in (3, 19)]
    if rows.pixels.dtype.kind == "f":
        points += [_parquet_split(level, rows) for level in (3, 19)]
    return points, left_out


def _stream(
    name: str, setting: str, compress: Callable[[bytes], Any], decompress: Callable[[Any], Any], rows: Rows
) -> Point:
    raw = rows.pixels.tobytes()
    data, encoding = timed(lambda: compress(raw))
    back, decoding = timed(lambda: decompress(data))
    decoded = np.frombuffer(back, rows.pixels.dtype).reshape(rows.pixels.shape)
    return rows.point(f"{name} {setting}", name, setting, 8 * len(data) / len(rows), decoded, (encoding, decoding))


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
    bits, seconds = 8 * size / len(rows), (encoding, decoding)
    return rows.point(f"Parquet zstd {level}", "Parquet", f"zstd {level}", bits, decoded, seconds)


def _parquet_split(level: int, rows: Rows) -> Point:
    """Lists of floats, as other programs write vectors, each of their four bytes in a stream of its own."""
    flat = rows.pixels.reshape(len(rows), -1)
    offsets = np.arange(0, flat.size + 1, flat.shape[1], dtype=np.int32)
    table = pa.table({PIXELS: pa.ListArray.from_arrays(offsets, pa.array(flat.reshape(-1)))})
    sink = BytesIO()
    options: dict[str, Any] = {"compression": "zstd", "compression_level": level, "use_dictionary": False}
    options |= {"use_byte_stream_split": True, "write_statistics": False}
    _, encoding = timed(lambda: pq.write_table(table, sink, _ROW_GROUP_ROWS, **options))
    size = column_bytes(pq.read_metadata(BytesIO(sink.getvalue())), PIXELS)
    back, decoding = timed(lambda: pq.read_table(BytesIO(sink.getvalue())))
    values = pc.list_flatten(back.column(PIXELS)).combine_chunks().to_numpy(zero_copy_only=False)
    bits, seconds = 8 * size / len(rows), (encoding, decoding)
    setting = f"byte stream split, zstd {level}"
    return rows.point(f"Parquet {setting}", "Parquet", setting, bits, values.reshape(rows.pixels.shape), seconds)
