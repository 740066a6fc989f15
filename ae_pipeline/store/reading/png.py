"""PNG files of 8 or 16 bits per value, gray or colour. Pillow writes no colours of 16 bits.

write_png(path, pixels)     # (height, width), (height, width, 1) gray; (height, width, 3) RGB; 4: with alpha
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import ConfigError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # by values per pixel: gray, RGB, RGB with alpha
_LONGEST = (1 << 31) - 1


def check_image(spec: SampleSpec) -> None:
    """Raise ConfigError unless samples of this shape and dtype are images."""
    channels = spec.shape[2] if len(spec.shape) == 3 else 1
    if spec.dtype not in ("uint8", "uint16") or len(spec.shape) not in (2, 3) or channels not in _COLOUR_TYPES:
        raise ConfigError(
            f"rows of {spec.describe()} are no images; expected uint8 or uint16 of height x width, or height x width x "
            "1 (gray), 3 (RGB) or 4 (RGB with alpha): use --format parquet"
        )


def write_png(path: Path, pixels: np.ndarray) -> None:
    """One image, in a file that must not exist yet (FileExistsError). The same pixels give the same bytes."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    depth = 8 * pixels.dtype.itemsize
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    lines = np.zeros((height, rows.shape[1] + 1), np.uint8)  # each begins with its filter: 0, none
    lines[:, 1:] = rows
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 6)
    with open(path, "xb") as file:
        file.write(_SIGNATURE)
        for kind, content in ((b"IHDR", header), *_pieces(data), (b"IEND", b"")):
            checksum = zlib.crc32(kind + content)
            file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))


def _pieces(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"IDAT", data[start : start + _LONGEST]) for start in range(0, len(data), _LONGEST)]
