"""Images keep their values exactly, in all five formats, or say why they cannot."""

import io
import struct

import numpy as np
import pytest
from handmade import random_codec, random_pixels
from image_files import as_seen, exif_of, png_bytes, png_of, tiff_of
from inboxes import run, settle, store_of
from PIL import Image

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.operation.inbox.images import read_image
from ae_pipeline.store.latent_store import LatentStore

GREY, COLOUR = SampleSpec((5, 4), "uint8"), SampleSpec((5, 4, 3), "uint8")
DEEP, FLOATS = SampleSpec((5, 4), "uint16"), SampleSpec((5, 4), "float32")
BYTES = random_pixels((5, 4), "uint8", seed=1)
COLOURS = random_pixels((5, 4, 3), "uint8", seed=2)
WORDS = random_pixels((5, 4), "uint16", seed=3)
DEEP_COLOURS = random_pixels((5, 4, 3), "uint16", seed=4)
VALUES = random_pixels((5, 4), "float32", seed=5)
SIGNED = {kind: np.arange(-10, 10).reshape(5, 4).astype(kind) for kind in ("int8", "int16", "int32")}


def saved(pixels, kind, mode=None, **options):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def jpeg_of(bits, channels):
    """The head of a JPEG: Pillow writes and reads no other depth than 8."""
    frame = struct.pack(">BHHB", bits, 5, 4, channels) + b"".join(bytes([n + 1, 0x11, 0]) for n in range(channels))
    quantised = b"\xff\xdb" + struct.pack(">H", 67) + b"\0" + b"\x01" * 64
    return b"\xff\xd8" + quantised + b"\xff\xc1" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def read(tmp_path, data, spec):
    path = tmp_path / "image"
    path.write_bytes(data)
    return read_image(path, spec)


def packed(bits):
    """Grey values 0, 1, 2, ... of so many bits: as they stand in a file, rows filled up, and as they look."""
    values = np.arange(20).reshape(5, 4) % (1 << bits)
    spread = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(5, -1)
    return [row.tobytes() for row in np.packbits(spread, axis=1)], values * (255 // ((1 << bits) - 1))


TWELVE = np.arange(20).reshape(5, 4).astype(np.uint16) * 215
TWELVE_BITS = np.packbits(
    np.unpackbits(TWELVE.astype(">u2").view(np.uint8).reshape(20, 2), axis=1)[:, 4:].reshape(5, -1), axis=1
).tobytes()
EXACT = {
    "png of 8 bits": (png_of(BYTES), GREY, BYTES),
    "png of 16 bits": (png_of(WORDS), DEEP, WORDS),
    "png of colours": (png_of(COLOURS), COLOUR, COLOURS),
    "png of 1 bit": (png_bytes(packed(1)[0], (4, 5), 1, 0), GREY, packed(1)[1]),
    "png of 2 bits": (png_bytes(packed(2)[0], (4, 5), 2, 0), GREY, packed(2)[1]),
    "png of 4 bits": (png_bytes(packed(4)[0], (4, 5), 4, 0), GREY, packed(4)[1]),
    "bmp": (saved(BYTES, "bmp"), GREY, BYTES),
    "bmp of colours": (saved(COLOURS, "bmp"), COLOUR, COLOURS),
    "webp": (saved(COLOURS, "webp", lossless=True), COLOUR, COLOURS),
    "tiff of 8 bits": (tiff_of(BYTES), GREY, BYTES),
    "tiff of 12 bits": (tiff_of(TWELVE, data=TWELVE_BITS, tags={258: 12}), DEEP, TWELVE),
    "tiff of 16 bits": (tiff_of(WORDS), DEEP, WORDS),
    "tiff of 16 bits, big-endian": (tiff_of(WORDS, ">"), DEEP, WORDS),
    "tiff of 16 bits, deflated": (tiff_of(WORDS, packed=True), DEEP, WORDS),
    "tiff of 16 bits, big-endian, deflated": (tiff_of(WORDS, ">", packed=True), DEEP, WORDS),
    "tiff of float": (tiff_of(VALUES), FLOATS, VALUES),
    "tiff of float, big-endian": (tiff_of(VALUES, ">"), FLOATS, VALUES),
    "tiff of float, deflated": (tiff_of(VALUES, packed=True), FLOATS, VALUES),
    "tiff in which zero is white": (tiff_of(BYTES, tags={262: 0}), GREY, 255 - BYTES),
    "tiff of 16 bits in which zero is white": (tiff_of(WORDS, tags={262: 0}), DEEP, 65535 - WORDS),
    "the same, deflated": (tiff_of(WORDS, packed=True, tags={262: 0}), DEEP, 65535 - WORDS),
    "tiff of 1 bit": (tiff_of(BYTES, data=b"".join(packed(1)[0]), tags={258: 1}), GREY, packed(1)[1]),
    "tiff of 1 bit in which zero is white": (
        tiff_of(BYTES, data=b"".join(packed(1)[0]), tags={258: 1, 262: 0}),
        GREY,
        255 - packed(1)[1],
    ),
    "tiff of colours": (tiff_of(COLOURS), COLOUR, COLOURS),
    "tiff of a palette of bytes": (
        tiff_of(BYTES, tags={262: 3, 320: [257 * n for n in range(256)] * 3}),
        GREY,
        BYTES,
    ),
    "opaque tiff of multiplied colours": (
        tiff_of(np.dstack([COLOURS, np.full((5, 4), 255, np.uint8)]), tags={338: 1}),
        COLOUR,
        COLOURS,
    ),
}


@pytest.mark.parametrize("kind", EXACT)
def test_values_are_kept_exactly(kind, tmp_path):
    data, spec, expected = EXACT[kind]
    found = read(tmp_path, data, spec)
    assert found.pixels.dtype == spec.dtype
    assert np.array_equal(found.pixels, expected)
    assert not found.lost_transparency


GLASS = np.dstack([COLOURS, np.full((5, 4), 100, np.uint8)])
FIVE = np.dstack([COLOURS, BYTES, BYTES])
REFUSED = {
    "png of 16-bit colours": (png_of(DEEP_COLOURS), COLOUR, "unsigned values of 16 bits in 3 channels, expected uint8"),
    "png of 16-bit colours, for grey": (png_of(DEEP_COLOURS), GREY, "of 16 bits in 3 channels, expected uint8"),
    "png of 16-bit colours, for 16 bits": (png_of(DEEP_COLOURS), DEEP, "of 16 bits in 3 channels, expected uint16"),
    "png of 16-bit grey and transparency": (png_of(DEEP_COLOURS[..., :2]), DEEP, "of 16 bits in 2 channels"),
    "png of 16 bits": (png_of(WORDS), GREY, "unsigned values of 16 bits, expected uint8"),
    "png of 8 bits, for 16": (png_of(BYTES), DEEP, "unsigned values of 8 bits, expected uint16"),
    "jpeg of 12 bits": (jpeg_of(12, 1), GREY, "unsigned values of 12 bits, expected uint8"),
    "jpeg of four inks": (saved(COLOURS, "jpeg", "CMYK"), COLOUR, "is CMYK"),
    "tiff of four inks": (saved(COLOURS, "tiff", "CMYK"), COLOUR, "is CMYK"),
    "tiff of Lab": (tiff_of(COLOURS, tags={262: 8}), COLOUR, "is CIELab"),
    "tiff of YCbCr": (tiff_of(COLOURS, tags={262: 6}), COLOUR, "is YCbCr"),
    "tiff of signed bytes": (tiff_of(SIGNED["int8"]), GREY, "has signed values of 8 bits, expected uint8"),
    "tiff of signed words": (tiff_of(SIGNED["int16"]), DEEP, "has signed values of 16 bits, expected uint16"),
    "tiff of 32 bits": (tiff_of(WORDS.astype(np.uint32)), DEEP, "has unsigned values of 32 bits"),
    "tiff of signed 32 bits": (tiff_of(SIGNED["int32"]), FLOATS, "has signed values of 32 bits"),
    "tiff of double": (tiff_of(VALUES.astype(np.float64)), FLOATS, "has float values of 64 bits"),
    "tiff of half": (tiff_of(VALUES.astype(np.float16)), FLOATS, "has float values of 16 bits"),
    "tiff of float, for bytes": (tiff_of(VALUES), GREY, "has float values of 32 bits, expected uint8"),
    "tiff of float, big-endian, deflated": (tiff_of(VALUES, ">", packed=True), FLOATS, "big-endian and compressed"),
    "tiff of float in which zero is white": (tiff_of(VALUES, tags={262: 0}), FLOATS, "in which zero is white"),
    "tiff of NaN": (tiff_of(np.where(VALUES > 0.5, np.nan, VALUES).astype(np.float32)), FLOATS, "NaN or infinite"),
    "tiff of undefined values": (tiff_of(BYTES, tags={339: 4}), GREY, "has undefined values of 8 bits"),
    "tiff of 14 bits": (tiff_of(WORDS, tags={258: 14}), DEEP, "unsigned values of 14 bits, stored as Pillow cannot"),
    "tiff of 16-bit colours": (tiff_of(DEEP_COLOURS), COLOUR, "of 16 bits in 3 channels, expected uint8"),
    "tiff of a 16-bit palette": (tiff_of(BYTES, tags={262: 3, 320: list(range(768))}), GREY, "palette of 16-bit"),
    "tiff of colours and infrared": (tiff_of(GLASS, tags={338: 0}), COLOUR, "has 4 channels, not all known"),
    "tiff of five channels": (tiff_of(FIVE, tags={338: [2, 0]}), COLOUR, "has 5 channels, not all known"),
    "tiff of multiplied colours": (tiff_of(GLASS, tags={338: 1}), COLOUR, "multiplied with their transparency"),
    "thumbnail before the picture": (tiff_of(BYTES, tags={254: 1}), GREY, "begins with a reduced picture"),
    "webp, for 16 bits": (saved(COLOURS, "webp"), DEEP, "unsigned values of 8 bits, expected uint16"),
    "bmp, for float": (saved(BYTES, "bmp"), FLOATS, "unsigned values of 8 bits, expected float32"),
}
FRAMES = {
    kind: saved(COLOURS, kind, save_all=True, append_images=[Image.fromarray(255 - COLOURS)], **options)
    for kind, options in {"png": {}, "webp": {"lossless": True}, "tiff": {}}.items()
}
REFUSED |= {f"{kind} of two pictures": (data, COLOUR, "holds 2 images, expected") for kind, data in FRAMES.items()}
REFUSED["jpeg of two pictures"] = (
    saved(COLOURS, "mpo", save_all=True, append_images=[Image.fromarray(COLOURS)]),
    COLOUR,
    "holds 2 images, expected one",
)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_change_a_value_is_refused_by_name(kind, tmp_path):
    data, spec, message = REFUSED[kind]
    with pytest.raises(DataError) as caught:
        read(tmp_path, data, spec)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "image"))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_images_are_not_read_for_codecs_of_signed_values(dtype, tmp_path):
    with pytest.raises(DataError, match=f"are not read as samples of {dtype} 5x4; give them as Parquet"):
        read(tmp_path, png_of(BYTES), SampleSpec((5, 4), dtype))


def oriented(kind, pixels, orientation):
    """This picture, stored so that it has to be turned."""
    if kind == "png":
        return png_of(pixels, chunks=[(b"eXIf", exif_of(orientation))])
    if kind.startswith("tiff"):
        return tiff_of(pixels, packed="deflated" in kind, tags={274: orientation})
    options = {"lossless": True} if kind == "webp" else {"quality": 100, "subsampling": 0}
    return saved(pixels, kind, exif=b"Exif\0\0" + exif_of(orientation), **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "tiff deflated"])
def test_orientation_is_applied(kind, orientation, tmp_path):
    shape = (4, 5) if orientation >= 5 else (5, 4)
    grey = np.zeros(shape, np.uint8)
    grey[0, 0], grey[0, -1], grey[-1, 0] = 250, 170, 80  # which JPEG keeps well enough to tell them apart
    stored = np.repeat(grey[..., None], 3, axis=2)
    found = read(tmp_path, oriented(kind, stored, orientation), COLOUR).pixels
    expected = as_seen(stored, orientation)
    assert expected.shape == (5, 4, 3)
    assert np.abs(found.astype(int) - expected).max() <= (12 if kind == "jpeg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">", "png"])
def test_orientation_is_applied_to_deep_images(order, orientation, tmp_path):
    stored = random_pixels((4, 5) if orientation >= 5 else (5, 4), "uint16", seed=9)
    data = oriented("png", stored, orientation) if order == "png" else tiff_of(stored, order, tags={274: orientation})
    assert np.array_equal(read(tmp_path, data, DEEP).pixels, as_seen(stored, orientation))
    if order != "png":
        values = stored.astype(np.float32)
        data = tiff_of(values, order, tags={274: orientation})
        assert np.array_equal(read(tmp_path, data, FLOATS).pixels, as_seen(values, orientation))


def test_an_image_that_lies_on_its_side_is_of_another_size(tmp_path):
    with pytest.raises(DataError, match="is 4 high and 5 wide, expected 5 and 4"):
        read(tmp_path, oriented("jpeg", BYTES, 6), GREY)
    with pytest.raises(DataError, match="is 4 high and 5 wide, expected 5 and 4"):
        read(tmp_path, png_of(BYTES.reshape(4, 5)), GREY)


TRANSPARENT = {
    "png of 1 bit": (png_bytes(packed(1)[0], (4, 5), 1, 0, transparent=b"\0\x01"), GREY, True),
    "png of 2 bits": (png_bytes(packed(2)[0], (4, 5), 2, 0, transparent=b"\0\x02"), GREY, True),
    "png of 4 bits, unused": (png_bytes(packed(1)[0], (4, 5), 1, 0, transparent=b"\0\x07"), GREY, False),
    "png of 16 bits": (png_of(WORDS, transparent=int(WORDS[2, 1]).to_bytes(2)), DEEP, True),
    "png of 16 bits, unused": (png_of(WORDS | 1, transparent=b"\0\0"), DEEP, False),
    "png of a palette": (
        png_bytes([bytes(range(4))] * 5, (4, 5), 8, 3, palette=bytes(12), transparent=b"\xff\x80"),
        GREY,
        True,
    ),
    "tiff": (tiff_of(GLASS, tags={338: 2}), COLOUR, True),
    "tiff of grey": (tiff_of(COLOURS[..., :2], tags={262: 1, 338: 2}), GREY, True),
    "webp": (saved(GLASS, "webp", lossless=True), COLOUR, True),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparency_is_counted(kind, tmp_path):
    data, spec, expected = TRANSPARENT[kind]
    assert read(tmp_path, data, spec).lost_transparency is expected


def test_a_sideways_image_and_a_deep_one_in_the_inbox(codec, box, tmp_path):
    """As the field reported them."""
    (box / "deep.png").write_bytes(png_of(DEEP_COLOURS))
    stored = random_pixels((4, 5), "uint8", seed=6)
    (box / "turned.png").write_bytes(oriented("png", stored, 6))
    settle(box)
    done = run(tmp_path, codec)
    assert (done.files, list(done.quarantined)) == (["turned.png"], ["deep.png"])
    store = LatentStore.open(store_of(tmp_path, codec))
    (rows,) = store.read_part(store.manifest.parts[0], 10)
    assert np.array_equal(rows.latents[0], Codec.load(codec).encode(as_seen(stored, 6)[None])[0])


def test_an_image_of_nan_does_not_stop_the_others(box, tmp_path):
    random_codec(tmp_path / "codec", dtype="float32")
    (box / "good.tif").write_bytes(tiff_of(VALUES))
    (box / "nan.tif").write_bytes(REFUSED["tiff of NaN"][0])
    settle(box)
    done = run(tmp_path, tmp_path / "codec")
    assert (done.files, list(done.quarantined)) == (["good.tif"], ["nan.tif"])
