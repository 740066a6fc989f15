"""Image codecs and their settings. To add one: a function here, and a line in FORMATS.

Qualities are on each codec's own scale, chosen so that the curves cover about 18 to 40 dB; where its lowest quality
is too good for that, the curve starts there. Each codec tries as hard as it can within a few minutes for ten
thousand images of 28x28. What was tried for that stands in docs/choosing.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

Effort = Literal["fast", "best"]
INSTALL = "pip install 'ae-pipeline[alternatives]'"


@dataclass(frozen=True)
class Setting:
    """What Pillow is told when it saves."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class ImageFormat:
    """`settings` is given the effort and whether the images are grey."""

    name: str
    pillow: str
    plugin: Literal["pillow_jxl"] | None
    settings: Callable[[Effort, bool], Iterator[Setting]]

    def missing(self) -> str | None:
        """Why it cannot be used here, None if it can."""
        try:
            if self.plugin == "pillow_jxl":
                import pillow_jxl  # noqa: F401 (it makes the format known to Pillow)
            setting = next(self.settings("fast", True))
            decode_image(encode_image(np.zeros((8, 8), np.uint8), self, setting), self, grey=True)
        except ImportError:
            return f"the package {self.plugin} is not installed; {INSTALL}"
        except (OSError, KeyError, ValueError) as error:
            return f"this Pillow cannot write it ({type(error).__name__}: {error}); {INSTALL}"
        return None


def encode_image(pixels: np.ndarray, form: ImageFormat, setting: Setting) -> bytes:
    """uint8 (H, W), (H, W, 1) or (H, W, 3) as a file's bytes."""
    squeezed = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(squeezed)).save(file, form.pillow, **setting.options)
    return file.getvalue()


def decode_image(data: bytes, form: ImageFormat, *, grey: bool) -> np.ndarray:
    """A file's bytes as uint8 (H, W) or (H, W, 3)."""
    with Image.open(BytesIO(data), formats=[form.pillow]) as image:
        return np.asarray(image.convert("L" if grey else "RGB"))


def _jpeg(effort: Effort, grey: bool) -> Iterator[Setting]:  # noqa: ARG001 (it is fast anyway)
    # Progressive files are smaller but for the smallest ones; both are tried.
    for quality in (1, 3, 5, 8, 12, 20, 35, 60, 80):
        for progressive in (False, True):
            for sampling in (None,) if grey else ("4:2:0", "4:4:4"):
                name = f"q{quality}{' progressive' if progressive else ''}{f' {sampling}' if sampling else ''}"
                options = {"quality": quality, "optimize": True, "progressive": progressive}
                yield Setting(name, options | ({"subsampling": sampling} if sampling else {}))


def _webp(effort: Effort, grey: bool) -> Iterator[Setting]:  # noqa: ARG001 (always in colour, always 4:2:0)
    method = 6 if effort == "best" else 2
    for quality in (0, 1, 2, 5, 10, 20, 40, 70):
        yield Setting(f"q{quality}", {"quality": quality, "method": method})
    yield Setting("lossless", {"lossless": True, "quality": 100, "method": method})


def _avif(effort: Effort, grey: bool) -> Iterator[Setting]:
    # libavif tunes for the eye; what is compared here is squared error.
    options = {"speed": 4 if effort == "best" else 8, "advanced": {"tune": "psnr"}, "autotiling": False}
    for quality in (0, 1, 2, 3, 5, 8, 12, 20, 40, 65):
        for sampling in ("4:0:0",) if grey else ("4:2:0", "4:4:4"):
            name = f"q{quality}" if grey else f"q{quality} {sampling}"
            yield Setting(name, {"quality": quality, "subsampling": sampling, **options})


def _jpeg_xl(effort: Effort, grey: bool) -> Iterator[Setting]:  # noqa: ARG001 (it knows grey)
    # The highest effort is the smaller one for the lowest qualities and for lossless files only.
    for level in (7, 9) if effort == "best" else (3,):
        for quality in (0, 10, 16, 19, 20, 24, 30, 40, 60, 80):
            yield Setting(f"q{quality} effort {level}", {"quality": quality, "effort": level})
    yield Setting("lossless", {"lossless": True, "effort": level})


FORMATS = (
    ImageFormat("JPEG", "JPEG", None, _jpeg),
    ImageFormat("WebP", "WEBP", None, _webp),
    ImageFormat("AVIF", "AVIF", None, _avif),
    ImageFormat("JPEG XL", "JXL", "pillow_jxl", _jpeg_xl),
)
