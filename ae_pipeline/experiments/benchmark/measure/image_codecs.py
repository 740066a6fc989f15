"""Image codecs on rows that are images: one file for each row, and all rows in mosaics."""

from collections.abc import Callable

import numpy as np

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.experiments.benchmark.measure.curves import front
from ae_pipeline.experiments.benchmark.measure.image_formats import (
    FORMATS,
    Effort,
    ImageFormat,
    Setting,
    decode_image,
    encode_image,
)
from ae_pipeline.experiments.benchmark.measure.mosaic import Grid
from ae_pipeline.experiments.benchmark.measure.points import Point, Rows, timed
from ae_pipeline.params.operation import BenchParams


def why_no_images(spec: SampleSpec) -> str | None:
    """Why image codecs cannot take such rows, None if they can."""
    if spec.dtype == "uint8" and (len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[2] in (1, 3))):
        return None
    return f"rows are {spec.describe()}; image codecs take uint8 images of 1 or 3 channels, height x width (x channels)"


def measure_image_codecs(
    rows: Rows, params: BenchParams, tell: Callable[[Point], None] = lambda point: None
) -> tuple[list[Point], list[str]]:
    """The best points of every image codec, three families each, and what was left out, with the reason.

    Families: mosaic; files; and files without the bytes with which all of them begin, which count once, as a codec's.
    """
    why = why_no_images(rows.samples.spec)
    if why:
        return [], [f"JPEG, WebP, AVIF, JPEG XL: {why}"]
    grey = rows.pixels.shape[3:] != (3,)
    points, left_out = [], []
    for form in FORMATS:
        missing = form.missing()
        if missing:
            left_out.append(f"{form.name}: {missing}")
            continue
        for family in _measure(form, rows, params.single_files, params.image_effort, grey):
            best = front(family, lambda point: point.bits_per_row)
            points += best
            for point in best:
                tell(point)
    return points, left_out


def _measure(form: ImageFormat, rows: Rows, files: int, effort: Effort, grey: bool) -> list[list[Point]]:
    """Points in mosaics, in whole files, and in files whose headers are shared."""
    mosaics: list[Point] = []
    whole: list[Point] = []
    shared: list[Point] = []
    for setting in form.settings(effort, grey):
        mosaics.append(_in_mosaics(form, setting, rows, grey))
        for family, point in zip((whole, shared), _in_files(form, setting, rows, files, grey), strict=True):
            family.append(point)
    return [mosaics, whole, shared]


def _in_mosaics(form: ImageFormat, setting: Setting, rows: Rows, grey: bool) -> Point:
    shape = rows.pixels.shape[1:]
    grid = Grid.of(len(rows), *shape[:2])
    pictures = [grid.join(rows.pixels[start : start + grid.images]) for start in range(0, len(rows), grid.images)]
    files, encoding = timed(lambda: [encode_image(picture, form, setting) for picture in pictures])
    back, decoding = timed(lambda: [decode_image(file, form, grey=grey) for file in files])
    decoded = np.concatenate([grid.cut(picture, shape) for picture in back])[: len(rows)]
    bits = 8 * sum(map(len, files)) / len(rows)
    return Point(
        name=f"{form.name} {setting.name}, mosaic",
        family=f"{form.name} mosaic",
        setting=setting.name,
        bits_per_row=bits,
        bits_per_row_with_codec=bits,
        metrics=rows.metrics(decoded),
        encode_rows_per_s=len(rows) / encoding,
        decode_rows_per_s=len(rows) / decoding,
        measured_rows=len(rows),
    )


def _in_files(form: ImageFormat, setting: Setting, rows: Rows, files: int, grey: bool) -> tuple[Point, Point]:
    """Whole files, and the same with the prefix that all have counted once."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(files, len(rows))).round().astype(int))
    pixels = rows.pixels[chosen]
    data, encoding = timed(lambda: [encode_image(image, form, setting) for image in pixels])
    back, decoding = timed(lambda: [decode_image(file, form, grey=grey) for file in data])
    metrics = rows.metrics(np.stack(back).reshape(pixels.shape), chosen)
    prefix = shared_prefix(data)
    bits = 8 * sum(map(len, data)) / len(data)

    def point(kind: str, once: int) -> Point:
        own = bits - 8 * once
        return Point(
            name=f"{form.name} {setting.name}, {kind}",
            family=f"{form.name} {kind}",
            setting=setting.name,
            bits_per_row=own,
            bits_per_row_with_codec=own + 8 * once / len(rows),
            metrics=metrics,
            encode_rows_per_s=len(data) / encoding,
            decode_rows_per_s=len(data) / decoding,
            codec_bytes=once,
            measured_rows=len(data),
        )

    return point("files", 0), point("files, header once", prefix)


def shared_prefix(files: list[bytes]) -> int:
    """Bytes with which all files begin; 0 for one file alone, which shares nothing."""
    first, last = min(files), max(files)
    if len(files) < 2:
        return 0
    return next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
