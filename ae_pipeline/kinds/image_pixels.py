"""The pixels of a picture: read from a file's bytes as they are, whole or some at a time; and a file of them again.

    pixels = read_pixels(data, "a.png")
    pixels.whole()                          # (height, width) or (height, width, channels)
    pixels.crop(0, 0, 32, 32)               # some of them

Pillow decodes a picture whole: that takes up to 4 bytes a pixel beside the file, and for a moment as much again where
EXIF's orientation turns it. What is cropped is made when it is asked for.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from PIL import Image

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.image_files import (
    MODES,
    deep_values,
    load_upright,
    opened_image,
    plain,
    refuse_premultiplied,
)
from ae_pipeline.kinds.image_headers import ImageHeader

MOST_PIXELS = 2 * 89_478_485
"""What Pillow reads at most: twice its own limit against files that are small and become large when decoded."""
GREY, RGB, RGBA = "grey", "rgb", "rgba"
_MODES = {"L": GREY, "RGB": RGB, "RGBA": RGBA}
_CHANNELS = {RGB: 3, RGBA: 4}
# By values per pixel: grey, RGB, RGB with opacity. Pillow writes no colours of 16 bits.
_PICTURES = {1: ("uint8", "uint16", "float32"), 3: ("uint8",), 4: ("uint8",)}
_ADVICE = "convert it to grey or RGB first"


@dataclass(frozen=True)
class Pixels:
    """A picture that is decoded, turned as its orientation says."""

    height: int
    width: int
    colour: str | None
    """`grey`, `rgb` or `rgba`; None for values that no picture's file holds, as arrays can have."""
    dtype: str
    crop: Callable[[int, int, int, int], np.ndarray]
    """Values from (top, left) to (bottom, right), the ends not included: (height, width) or (height, width, channels).
    """

    def whole(self) -> np.ndarray:
        """All values."""
        return self.crop(0, 0, self.height, self.width)

    def brought_to(self, colour: str, place: str) -> "Pixels":
        """Pixels as `rgb` or `rgba`. Raises DataError where that would lose something."""
        if self.colour == colour:
            return self
        if self.colour is None or self.dtype != "uint8" or _CHANNELS[colour] < _CHANNELS.get(self.colour, 1):
            what = f"is {self.colour or 'of values'} of {self.dtype}, which `colour: {colour}` has no place for"
            raise DataError(what, place=place, advice=f"take it out, or set {_other(self, colour)}")

        def crop(*box: int) -> np.ndarray:
            return np.asarray(Image.fromarray(self.crop(*box)).convert(colour.upper()))

        return replace(self, colour=colour, crop=crop)

    def resized(self, height: int, width: int, place: str) -> "Pixels":
        """Resampled by Pillow's Lanczos filter; opacity weighs the colours. Grey of more than 8 bits goes by floats.

        Raises DataError for values that are no picture's.
        """
        if (self.height, self.width) == (height, width):
            return self
        values = self.whole()
        if self.colour is None:
            what = f"has values of {self.dtype} in {values.shape[2:] or 'one'} channels, which `resize` cannot take"
            raise DataError(what, place=place, advice="resize them first, and set `resize: null`")
        if self.dtype == "uint8":
            image = Image.fromarray(values)
            found = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        else:
            image = Image.fromarray(values.astype(np.float32))
            found = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
            if self.dtype != "float32":
                limits = np.iinfo(self.dtype)
                found = np.clip(np.round(found), limits.min, limits.max).astype(self.dtype)
        return of_array(found)


def of_array(values: np.ndarray) -> Pixels:
    """Values (height, width) or (height, width, channels) that are in memory already."""
    spec = SampleSpec(values.shape, values.dtype.newbyteorder("=").name)
    channels = values.shape[2] if values.ndim == 3 else 0
    colour = {0: GREY, 3: RGB, 4: RGBA}.get(channels) if is_picture(spec) else None

    def crop(top: int, left: int, bottom: int, right: int) -> np.ndarray:
        return values[top:bottom, left:right]

    return Pixels(values.shape[0], values.shape[1], colour, spec.dtype, crop)


def read_pixels(data: bytes, place: str, *, large: bool = False) -> Pixels:
    """The pixels of an image file; `large` as in `opened_image`. Raises DataError for what image.py lists."""
    with opened_image(data, place, lambda header: _check_values(header, place), large=large) as (image, header):
        load_upright(image)
        dtype = header.dtype or "uint8"
        if image.mode not in MODES[dtype]:
            what = f"is of Pillow's mode {image.mode}, whose values cannot be kept"
            raise DataError(what, place=place, advice=_ADVICE)
        refuse_premultiplied(image, header, place)
        mode = _mode_of(image, header, place)
        if mode is None:
            return of_array(deep_values(image, header, dtype, place))

        def crop(top: int, left: int, bottom: int, right: int) -> np.ndarray:
            box = (left, top, right, bottom)
            some = image if box == (0, 0, *image.size) else image.crop(box)
            return np.asarray(plain(some).convert(mode))

        return Pixels(image.height, image.width, _MODES[mode], dtype, crop)


def is_picture(spec: SampleSpec) -> bool:
    """Whether a picture's file can hold rows of this shape and dtype as they are."""
    channels = spec.shape[2] if len(spec.shape) == 3 else 1
    return len(spec.shape) in (2, 3) and spec.dtype in _PICTURES.get(channels, ())


def file_of(row: np.ndarray) -> bytes:
    """A row that is a picture as a file: PNG, or TIFF of floats. The same row gives the same bytes.

    Raises DataError for a row that no such file can hold.
    """
    file = io.BytesIO()
    save_picture(image_of(row), file)
    return file.getvalue()


def image_of(row: np.ndarray) -> Image.Image:
    """A row, or some lines, as Pillow's image. Raises DataError for what no file of `save_picture` can hold."""
    spec = SampleSpec(row.shape, row.dtype.name)
    if not is_picture(spec):
        what = f"rows of {spec.describe()} are no pictures that PNG or TIFF files are written of"
        raise DataError(what, advice="decode them with --format rows")
    return Image.fromarray(row[:, :, 0] if row.shape[2:] == (1,) else row)


def save_picture(image: Image.Image, file: BinaryIO) -> None:
    """Write an image of `image_of` as PNG, or as TIFF where its values are floats."""
    image.save(file, "TIFF" if image.mode == "F" else "PNG")


def _other(pixels: Pixels, colour: str) -> str:
    can_be = pixels.dtype == "uint8" and pixels.colour is not None
    return "`colour: rgba`" if can_be and colour == RGB else "`colour: null`"


def _mode_of(image: Image.Image, header: ImageHeader, place: str) -> str | None:
    """The mode of 8 bits that holds all of a picture; None for one of more bits."""
    has_opacity = image.has_transparency_data or header.transparent is not None
    grey = image.mode not in ("P", "PA", "RGB", "RGBA")
    if grey and has_opacity:
        what = "is grey with transparency, for which rows have no place"
        raise DataError(what, place=place, advice="save it as RGBA, or without transparency")
    if grey:
        return "L" if header.dtype in (None, "uint8") else None
    return "RGBA" if has_opacity else "RGB"


def _check_values(header: ImageHeader | None, place: str) -> None:
    if header is None:
        return
    if header.trouble:
        raise DataError(header.trouble, place=place, advice=_ADVICE)
    if header.dtype is None or (header.dtype != "uint8" and header.channels != 1):
        what = f"has {header.describe()}, which rows cannot hold as they are"
        raise DataError(what, place=place, advice="convert it to 8 bits, or to 16 bits of grey, first")
