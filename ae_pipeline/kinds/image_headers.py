"""What an image file says of its own values: bits, sign, channels, and what a reader must know to keep them.

    header = read_header(path.read_bytes())
    header.describe()         # "unsigned values of 16 bits in 3 channels"

Pillow's modes do not say it: a PNG of 16-bit colours is `RGB` there, of 8 bits, and a TIFF of signed bytes is `L`.
"""

import io
import struct
from dataclasses import dataclass, replace

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# JPEG's markers that start a frame: all of C0 to CF, but those that define tables or are reserved.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIGNS = {1: "unsigned", 2: "signed", 3: "float"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}
_OTHER_COLOURS = {5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32844: "LogL", 32845: "LogLuv"}
_UNCOMPRESSED, _JPEG_COMPRESSED = 1, (6, 7)
_PREMULTIPLIED, _TRANSPARENCY = 1, (1, 2, 999)  # 999 is Corel Draw's


@dataclass(frozen=True)
class ImageHeader:
    """Values as they stand in the file. `channels` are colours and transparency; a palette's index is one channel.

    `trouble` says why the values cannot be kept, whatever the codec. `transparent` is the grey value of a PNG that
    stands for transparent; `premultiplied`: colours were multiplied with their opacity; `white_is_zero`: as in a
    negative.
    """

    bits: int
    sign: str = "unsigned"
    channels: int = 1
    trouble: str | None = None
    transparent: int | None = None
    premultiplied: bool = False
    white_is_zero: bool = False

    @property
    def dtype(self) -> str | None:
        """The dtype that holds the values exactly; None if samples cannot have it."""
        if self.sign == "unsigned" and self.bits <= 16:
            return "uint8" if self.bits <= 8 else "uint16"
        return "float32" if (self.sign, self.bits) == ("float", 32) else None

    def describe(self) -> str:
        """The kind of values in words, for messages."""
        values = f"{self.sign} values of {self.bits} bits"
        return values if self.channels == 1 else f"{values} in {self.channels} channels"


def read_header(data: bytes) -> ImageHeader | None:
    """The header of a PNG, JPEG, WebP, BMP or TIFF; None for anything else, and where it cannot be made out."""
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"BM") or (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
            return ImageHeader(8)  # neither can have more; fewer bits of a BMP are spread over eight
        return _tiff(data) if data.startswith(_TIFF) else None
    except (struct.error, IndexError):
        return None  # truncated: Pillow says so


def _png(data: bytes) -> ImageHeader:
    bits, colour = data[24], data[25]
    transparent = None
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"tRNS" and colour == 0:  # Pillow loses values of more bits than the image has
            (transparent,) = struct.unpack_from(">H", data, place + 8)
            # Pillow spreads grey values of 1, 2 and 4 bits over eight.
            transparent = transparent * 255 // ((1 << bits) - 1) if bits < 8 else transparent
        if kind in (b"tRNS", b"IDAT"):
            break
        place += 12 + length
    return ImageHeader(bits, channels=_PNG_CHANNELS.get(colour, 1), transparent=transparent)


def _jpeg(data: bytes) -> ImageHeader | None:
    place = 2
    while True:
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF or marker in _ALONE:  # filling
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            bits, channels = data[place + 4], data[place + 9]
            trouble = "is CMYK, whose four inks are no red, green and blue" if channels == 4 else None
            return ImageHeader(bits, channels=channels, trouble=trouble)
        (length,) = struct.unpack_from(">H", data, place + 2)
        place += 2 + length


def _tiff(data: bytes) -> ImageHeader | None:
    tags = _tiff_tags(data)
    if tags is None:
        return None
    colour, compression = int(tags.get(262, _BLACK_IS_ZERO)), int(tags.get(259, _UNCOMPRESSED))
    signs = {_SIGNS.get(sign, "undefined") for sign in _several(tags.get(339, 1))}
    bits = set(_several(tags.get(258, 1)))
    extra = _several(tags.get(338, ()))
    sign = signs.pop() if len(signs) == 1 else "mixed"
    channels = int(tags.get(277, _COLOURS.get(colour, 1)))
    premultiplied, white_is_zero = extra[:1] == (_PREMULTIPLIED,), colour == _WHITE_IS_ZERO
    header = ImageHeader(max(bits), sign, channels, premultiplied=premultiplied, white_is_zero=white_is_zero)
    troubles = [
        (colour not in _COLOURS, f"is {_OTHER_COLOURS.get(colour, f'of photometric interpretation {colour}')}"),
        (colour == _YCBCR and compression not in _JPEG_COMPRESSED, "is YCbCr"),
        (len(bits) > 1, "has channels of different depths"),
        (bool(int(tags.get(254, 0)) & 5), "begins with a reduced picture or a mask of another one"),
        (_unknown_channels(channels, colour, extra), f"has {channels} channels, not all known colours"),
        (colour == _PALETTE and not _is_of_bytes(tags.get(320, ())), "has a palette of 16-bit colours"),
        (sign == "float" and white_is_zero, "is of float values in which zero is white"),
        # libtiff unpacks to this machine's order of bytes, and Pillow takes them for the file's.
        (
            data.startswith(b"MM") and compression != _UNCOMPRESSED and header.dtype == "float32",
            "is big-endian and compressed, which Pillow reads wrong where values are float32",
        ),
    ]
    return replace(header, trouble=next((text for found, text in troubles if found), None))


def _tiff_tags(data: bytes) -> ImageFileDirectory_v2 | None:
    """The first picture's tags; None where they cannot be read."""
    try:
        tags = ImageFileDirectory_v2(data[:16] if b"+" in data[:4] else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        tags.get(262)  # tags are made of bytes when they are asked for
    except Exception:  # other people's bytes: Pillow's own reading says what is wrong
        return None
    return tags


def _several(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _unknown_channels(channels: int, colour: int, extra: tuple[int, ...]) -> bool:
    """Whether there is more than the colours and one transparency (which some writers do not declare)."""
    more = channels - _COLOURS.get(colour, channels)
    return more not in (0, 1) or any(kind not in _TRANSPARENCY for kind in extra)


def _is_of_bytes(colours: tuple[int, ...]) -> bool:
    """Whether a palette of 16-bit values has no more than eight bits in them, in either of the usual ways."""
    return all(value % 257 == 0 for value in colours) or all(value % 256 == 0 for value in colours)
