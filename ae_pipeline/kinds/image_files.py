"""Image files opened with care: what Pillow may read, and which of their values come back as they are.

    with opened_image(data, "a.png", check) as (image, header):   # `check` may refuse the header, before decoding
        ...

The inbox fits pictures to a codec (operation/inbox/images.py); the kind `image` takes them as they are
(image_pixels.py).
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ae_pipeline.errors import DataError, first_line, is_out_of_memory
from ae_pipeline.kinds.image_headers import ImageHeader, read_header

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Pillow reads these formats here and no other, whatever a file is called: PostScript is a program, which Pillow
# has Ghostscript run.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_ON_SIDE = (5, 6, 7, 8)
MODES = {
    "uint8": ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA"),
    "uint16": ("I;16", "I;16B", "I;16L"),
    "float32": ("F",),
}
"""Pillow's modes from which the values of each dtype are had without change."""


@contextmanager
def opened_image(
    data: bytes, place: Path | str, check: Callable[[ImageHeader | None], None], *, large: bool = False
) -> Iterator[tuple[Image.Image, ImageHeader]]:
    """The one picture in `data`, and what its header says. `place` names it in errors; `large`: more than 89 million
    pixels are no reason to refuse it, but twice as many are.

    Raises DataError for what is not exactly one image, whatever a decoder says of it, in the block, too.
    """
    header = read_header(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("ignore" if large else "error", Image.DecompressionBombWarning)
            check(header)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                frames = getattr(image, "n_frames", 1)
                if frames != 1:
                    raise DataError(f"{place} holds {frames} images, expected one; make a file of each")
                yield image, header or ImageHeader(8)
    except DataError:
        raise
    except UnidentifiedImageError:
        found = f"has {header.describe()}, stored as Pillow cannot read" if header else "is not a readable image"
        raise DataError(f"{place} {found}, expected {', '.join(_FORMATS)}; make or fetch it again") from None
    except Exception as error:  # decoders meet other people's bytes: any error is the file's
        if is_out_of_memory(error):
            raise
        raise DataError(f"{place} is not a readable image: {first_line(error)}; make or fetch it again") from None


def size_of(file: Path | bytes) -> tuple[int, int] | None:
    """Height and width by the header, turned as it says; None where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file if isinstance(file, Path) else io.BytesIO(file), formats=_FORMATS) as image:
                height, width = image.height, image.width
                # Pillow turns TIFF's size itself, and would decode a PNG in search of what may stand at its end.
                says = image.format in ("JPEG", "WEBP") or "exif" in image.info
                turned = says and height != width and image.getexif().get(ExifTags.Base.Orientation) in _ON_SIDE
    except Exception:  # it is counted and named when it is read
        return None
    return (width, height) if turned else (height, width)


def load_upright(image: Image.Image) -> None:
    """Read the values, and turn the picture as its EXIF orientation says."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)


def plain(image: Image.Image) -> Image.Image:
    """Opaque pixels of a mode that Pillow converts to grey and RGB."""
    if image.mode == "La":
        return image.convert("LA")
    return image.convert("RGBA") if image.mode == "PA" else image


def deep_values(image: Image.Image, header: ImageHeader, dtype: str, place: Path | str) -> np.ndarray:
    """Grey values of more than eight bits, (height, width) of `dtype`. Raises DataError for NaN and infinity."""
    pixels = np.asarray(image).astype(dtype)
    if header.white_is_zero:  # which Pillow heeds for eight bits only
        pixels = np.iinfo(dtype).max - pixels
    if not np.isfinite(pixels).all():
        raise DataError(f"{place} has values that are NaN or infinite; repair them first")
    return pixels


def refuse_premultiplied(image: Image.Image, header: ImageHeader, place: Path | str) -> None:
    """Raise DataError where colours were multiplied with their opacity: they cannot be had back."""
    if image.mode == "La" or header.premultiplied:
        raise DataError(f"{place} has colours multiplied with their transparency; save it without transparency")


def has_transparency(image: Image.Image, header: ImageHeader) -> bool:
    """Whether any pixel is not opaque."""
    if header.transparent is not None:
        return bool((np.asarray(image.convert("L") if image.mode == "1" else image) == header.transparent).any())
    return image.has_transparency_data and bool(np.asarray(plain(image).convert("RGBA"))[..., 3].min() < 255)
