"""Image files made byte by byte: Pillow does not write what it cannot read exactly."""

import struct
import zlib

import numpy as np

_TIFF_KIND = {"u": 1, "i": 2, "f": 3}
_LONGS = (273, 279)


def png_bytes(rows, size, bits, colour, *, transparent=None, palette=None, chunks=()):
    """A PNG of packed rows (bytes each): width and height, bits a value, PNG's type of colour."""
    found = [(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)), *chunks]
    if palette is not None:
        found.append((b"PLTE", palette))
    if transparent is not None:
        found.append((b"tRNS", transparent))
    found += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in found:
        made += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return made


def png_of(pixels, **options):
    """A PNG of 8 or 16 bits: (height, width) or (height, width, channels)."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    rows = [row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels]
    return png_bytes(rows, pixels.shape[1::-1], 8 * pixels.itemsize, colour, **options)


def tiff_of(pixels, order="<", *, packed=False, data=None, tags=None):
    """A TIFF of one strip, in either order of bytes, deflated or not; `tags` replace and add."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes() if data is None else data
    data = zlib.compress(data) if packed else data
    entries = {
        256: width,
        257: height,
        258: [8 * pixels.itemsize] * channels,
        259: 8 if packed else 1,
        262: 1 if channels == 1 else 2,
        273: 8,
        277: channels,
        278: height,
        279: len(data),
        339: [_TIFF_KIND[pixels.dtype.kind]] * channels,
        **(tags or {}),
    }
    data += b"\0" * (len(data) % 2)
    start = 8 + len(data)
    directory, more = struct.pack(order + "H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        body = struct.pack(order + f"{len(values)}{'I' if tag in _LONGS else 'H'}", *values)
        head = struct.pack(order + "HHI", tag, 4 if tag in _LONGS else 3, len(values))
        if len(body) > 4:
            directory += head + struct.pack(order + "I", start + 6 + 12 * len(entries) + len(more))
            more += body
        else:
            directory += head + body.ljust(4, b"\0")
    magic = {"<": b"II", ">": b"MM"}[order]
    return magic + struct.pack(order + "HI", 42, start) + data + directory + b"\0\0\0\0" + more


def exif_of(orientation):
    """EXIF of nothing but an orientation, as PNG's eXIf has it."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0) + b"\0\0\0\0"


def as_seen(stored, orientation):
    """What a picture looks like that is stored so: by the EXIF standard, where row 0 and column 0 are seen."""
    if orientation in (2, 3):
        stored = stored[:, ::-1]
    if orientation in (3, 4):
        stored = stored[::-1]
    if orientation in (5, 6, 7, 8):
        turned = np.swapaxes(stored, 0, 1)
        return {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}[orientation]
    return stored
