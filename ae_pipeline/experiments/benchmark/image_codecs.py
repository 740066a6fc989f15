"""Image codecs on rows that are images: one file for each row, and all rows in mosaics; on whole pictures, if rows are
tiles of them.

A mosaic, rows side by side in pictures of bounded size, is the fair way to give small images to an image codec.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.experiments.benchmark.image_formats import FORMATS, ImageFormat, Setting, decode_image, encode_image
from ae_pipeline.experiments.benchmark.points import Point, Rows, Tell, timed
from ae_pipeline.experiments.benchmark.whole_pictures import WholePictures
from ae_pipeline.experiments.front import front, grouped
from ae_pipeline.params.operation import BenchParams

# Pixels; WebP ends at 16,383, and memory before that.
_MOST_SIDE = 8192


def why_no_images(spec: SampleSpec) -> str | None:
    """Why image codecs cannot take such rows, None if they can."""
    if spec.dtype == "uint8" and (len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[2] in (1, 3))):
        return None
    return f"rows are {spec.describe()}; image codecs take uint8 images of 1 or 3 channels, height x width (x channels)"


def measure_image_codecs(
    rows: Rows, params: BenchParams, tell: Tell = lambda point: None
) -> tuple[list[Point], list[str]]:
    """The best points of every image codec, three families each, and what was left out, with the reason.

    Families: mosaic; files; and files without the bytes with which all of them begin, which count once, as a codec's.
    Of tiles, each picture is a file.
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
        found: list[Point] = []
        for setting in form.settings(params.image_effort, grey):
            if rows.pictures is not None:
                found += _as_pictures(form, setting, rows, rows.pictures, grey)
                continue
            found.append(_in_mosaics(form, setting, rows, grey))
            found += _in_files(form, setting, rows, params.single_files, grey)
        for family in grouped(found, lambda point: point.family).values():
            best = front(family, lambda point: point.bits_per_row)
            points += best
            for point in best:
                tell(point)
    return points, left_out


def _in_mosaics(form: ImageFormat, setting: Setting, rows: Rows, grey: bool) -> Point:
    shape = rows.pixels.shape[1:]
    grid = Grid.of(len(rows), *shape[:2])
    pictures = [grid.join(rows.pixels[start : start + grid.images]) for start in range(0, len(rows), grid.images)]
    files, encoding = timed(lambda: [encode_image(picture, form, setting) for picture in pictures])
    back, decoding = timed(lambda: [decode_image(file, form, grey=grey) for file in files])
    decoded = np.concatenate([grid.cut(picture, shape) for picture in back])[: len(rows)]
    bits = 8 * sum(map(len, files)) / len(rows)
    name = f"{form.name} {setting.name}, mosaic"
    return rows.point(name, f"{form.name} mosaic", setting.name, bits, decoded, (encoding, decoding))


def _in_files(form: ImageFormat, setting: Setting, rows: Rows, files: int, grey: bool) -> tuple[Point, Point]:
    """Whole files, and the same with the prefix that all have counted once."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(files, len(rows))).round().astype(int))
    pixels = rows.pixels[chosen]
    data, encoding = timed(lambda: [encode_image(image, form, setting) for image in pixels])
    back, decoding = timed(lambda: [decode_image(file, form, grey=grey) for file in data])
    decoded = np.stack(back).reshape(pixels.shape)
    bits = 8 * sum(map(len, data)) / len(data)
    name, seconds = f"{form.name} {setting.name}, files", (encoding, decoding)
    whole = rows.point(name, f"{form.name} files", setting.name, bits, decoded, seconds, chosen=chosen)
    return whole, _with_header_once(whole, data, len(data), rows)


def _as_pictures(
    form: ImageFormat, setting: Setting, rows: Rows, whole: WholePictures, grey: bool
) -> tuple[Point, Point]:
    """A file for each picture, and the same with the prefix that all have counted once; bits are those of a tile."""
    data, encoding = timed(lambda: [encode_image(picture, form, setting) for picture in whole.pictures])
    back, decoding = timed(lambda: [decode_image(file, form, grey=grey) for file in data])
    bits = 8 * sum(map(len, data)) / len(rows)
    name, seconds = f"{form.name} {setting.name}, whole pictures", (encoding, decoding)
    point = rows.point(name, f"{form.name} whole pictures", setting.name, bits, whole.rows_of(back), seconds)
    return point, _with_header_once(point, data, len(rows), rows)


def _with_header_once(whole: Point, data: list[bytes], tiles: int, rows: Rows) -> Point:
    """Count the prefix that all files have once, as a codec; the files hold `tiles` rows."""
    prefix = shared_prefix(data)
    own = whole.bits_per_row - 8 * prefix * len(data) / tiles
    return replace(
        whole,
        name=f"{whole.name}, header once",
        family=f"{whole.family}, header once",
        bits_per_row=own,
        bits_per_row_with_codec=own + 8 * prefix / len(rows),
        codec_bytes=prefix,
    )


def shared_prefix(files: list[bytes]) -> int:
    """Bytes with which all files begin; 0 for one file alone, which shares nothing."""
    first, last = min(files), max(files)
    if len(files) < 2:
        return 0
    return next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


@dataclass(frozen=True)
class Grid:
    """How many images, (height, width) each, stand beside and below each other in one picture."""

    columns: int
    lines: int

    @classmethod
    def of(cls, rows: int, height: int, width: int, most_side: int = _MOST_SIDE) -> "Grid":
        """About square; no side longer than `most_side`, unless one image is."""
        columns = math.ceil(math.sqrt(rows * height / width))
        columns = max(1, min(columns, rows, most_side // width))
        lines = max(1, min(math.ceil(rows / columns), most_side // height))
        return cls(columns, lines)

    @property
    def images(self) -> int:
        """Images per picture."""
        return self.columns * self.lines

    def join(self, images: np.ndarray) -> np.ndarray:
        """At most `self.images` images (n, H, W[, C]) as one picture; places that stay empty are 0."""
        lines = math.ceil(len(images) / self.columns)
        tiles = np.zeros((lines * self.columns, *images.shape[1:]), images.dtype)
        tiles[: len(images)] = images
        height, width, *channels = images.shape[1:]
        tiles = tiles.reshape(lines, self.columns, height, width, *channels)
        return tiles.swapaxes(1, 2).reshape(lines * height, self.columns * width, *channels)

    def cut(self, picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What `join` made of images of `shape`, with the empty places."""
        height, width, *channels = shape
        tiles = picture.reshape(-1, height, self.columns, width, *channels).swapaxes(1, 2)
        return tiles.reshape(-1, *shape)
