"""IDX files and images to canonical shards.

An IDX file becomes one file of samples, whose ids are row numbers, with the attribute `label` if there is a file of
labels. All images of one run become one file of samples, in name order, with the columns of their store: ids are their
paths, `file_sha256` says which file each row was made from, so that a store knows which images it holds, and anything
else is null.
"""

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from ae_pipeline.errors import DataError, first_line
from ae_pipeline.idx import copy_uncompressed, open_idx
from ae_pipeline.inbox.columns import FILE_DIGEST, LABEL
from ae_pipeline.pixels import SampleSpec
from ae_pipeline.samples import ID, ShardWriter

IMAGES_NAME = "_images.parquet"
"""The file that the images of one run become; files of an inbox with such names are left alone."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Of Pillow's many formats those of these names, and no other under such a name: PostScript is a program, which Pillow
# has Ghostscript run.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_BLOCK_ROWS = 1024
# Of Pillow's modes, those with 16 bits or more: everything else has 8 bits a channel, or fewer.
_MODES = {"uint16": ("I;16", "I;16B", "I;16L"), "float32": ("F",)}
_DEEP = (*_MODES["uint16"], "I", "F")


def is_idx(name: str) -> bool:
    """Whether a file is called as MNIST's are."""
    return re.search(r"idx\d*-ubyte(\.gz)?$", name.lower()) is not None


def labels_names(images: str) -> list[str]:
    """What the labels of an IDX file of images may be called."""
    if not re.search(r"images-idx\d+", images):
        return []
    labels = re.sub(r"images-idx\d+(?!.*images-idx)", "labels-idx1", images)
    return [labels.removesuffix(".gz"), labels.removesuffix(".gz") + ".gz"]


def convert_idx(source: Path, labels: Path | None, target: Path, spec: SampleSpec) -> None:
    """Write the rows of an IDX file as a canonical shard. Raises DataError if it or its labels do not fit."""
    unpacked = target.with_name("unpacked")
    values = _open(source, unpacked)
    if values.ndim == 1:
        raise DataError(
            f"{source} has one dimension, as labels have, but there is no file of images that it belongs to"
        )
    found = f"{values.dtype.newbyteorder('=').name} {'x'.join(map(str, values.shape[1:]))}"
    if found != spec.describe():
        raise DataError(f"{source} holds samples of {found}, expected {spec.describe()} as the codec has")
    fields = [pa.field(ID, pa.int64(), nullable=False)]
    found_labels = None if labels is None else _read_labels(labels, target.with_name("labels"), len(values))
    if found_labels is not None:
        fields.append(pa.field(LABEL, pa.from_numpy_dtype(found_labels.dtype)))
    schema = pa.schema(fields)
    with ShardWriter(target, schema, spec) as writer:
        for start in range(0, len(values), _BLOCK_ROWS):
            pixels = values[start : start + _BLOCK_ROWS]
            stop = start + len(pixels)
            columns = [pa.array(np.arange(start, stop))]
            if found_labels is not None:
                columns.append(pa.array(found_labels[start:stop]))
            writer.write(pa.Table.from_arrays(columns, schema=schema), pixels)


def _read_labels(source: Path, unpacked: Path, rows: int) -> np.ndarray:
    labels = _open(source, unpacked)
    if labels.shape != (rows,):
        raise DataError(f"{source} has shape {list(labels.shape)}; expected one label for each of {rows} images")
    return np.array(labels, labels.dtype.newbyteorder("="))


def _open(source: Path, unpacked: Path) -> np.ndarray:
    try:
        copy_uncompressed(source, unpacked)
        return open_idx(unpacked)
    except DataError as error:
        raise DataError(str(error).replace(str(unpacked), str(source))) from None


@dataclass(frozen=True)
class ReadImage:
    """Pixels of one image, as the samples' shape and dtype, and what they do not show of it."""

    pixels: np.ndarray
    lost_colour: bool
    lost_transparency: bool


def read_image(path: Path, spec: SampleSpec) -> ReadImage:
    """The pixels of one image file: gray for samples of two dimensions, red, green and blue for (height, width, 3).

    Transparency is dropped and EXIF's orientation is not applied. Raises DataError for what is not exactly one image
    of the samples' size and depth; OSError only if the file cannot be read.
    """
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_image(path, image, spec)
                mode = _mode(path, image, spec)
                pixels = np.asarray(image.convert(mode)).astype(spec.dtype)
                return ReadImage(pixels, mode == "L" and _has_colour(image), _has_transparency(image))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is not a readable image, expected {', '.join(_FORMATS)}; make or fetch it again"
        ) from None
    except Exception as error:  # decoders meet other people's bytes: any error is the file's
        raise DataError(f"{path} is not a readable image: {first_line(error)}; make or fetch it again") from None


def _check_image(path: Path, image: Image.Image, spec: SampleSpec) -> None:
    if len(spec.shape) != 2 and (len(spec.shape) != 3 or spec.shape[2] != 3):
        raise DataError(f"{path} is an image, but the codec is for samples of {spec.describe()}; give them as Parquet")
    height, width = spec.shape[:2]
    if image.size != (width, height):
        raise DataError(
            f"{path} is {image.size[1]} high and {image.size[0]} wide, expected {height} and {width} for "
            f"{spec.describe()}; scale it first"
        )
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise DataError(f"{path} holds {frames} images, expected one; make a file of each")


def _mode(path: Path, image: Image.Image, spec: SampleSpec) -> str:
    """Pillow's mode to convert to; values are never scaled from one depth to another."""
    fits = image.mode not in _DEEP if spec.dtype == "uint8" else image.mode in _MODES.get(spec.dtype, ())
    if not fits or (len(spec.shape) == 3 and spec.dtype != "uint8"):
        raise DataError(
            f"{path} is of Pillow's mode {image.mode}, whose values are not {spec.describe()}; convert it first"
        )
    if spec.dtype != "uint8":
        return image.mode
    return "L" if len(spec.shape) == 2 else "RGB"


def _has_colour(image: Image.Image) -> bool:
    """Whether a pixel is not grey, however the image is stored."""
    if image.mode in ("L", "LA", "1"):
        return False
    colours = np.asarray(image.convert("RGB"))
    return bool((colours != colours[..., :1]).any())


def _has_transparency(image: Image.Image) -> bool:
    """Whether a pixel is not opaque."""
    if image.mode in _DEEP or not image.has_transparency_data:
        return False
    return bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


class ImageBatch:
    """Images of one run, as one canonical shard that is written as they come, with these columns."""

    def __init__(self, target: Path, columns: pa.Schema, spec: SampleSpec):
        self._columns = columns
        self._writer = ShardWriter(target, columns, spec)
        self._rows: list[tuple[str, bytes, np.ndarray]] = []

    def __enter__(self) -> "ImageBatch":
        self._writer.__enter__()
        return self

    def add(self, name: str, digest: str, pixels: np.ndarray) -> None:
        """One image: its path in the inbox, SHA-256 (hex) of the file, and its pixels."""
        self._rows.append((name, bytes.fromhex(digest), pixels))
        if len(self._rows) == _BLOCK_ROWS:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.__exit__(kind, error, traceback)

    def _flush(self) -> None:
        names, digests, pixels = zip(*self._rows, strict=True)
        known = {ID: names, FILE_DIGEST: digests}
        columns = [pa.array(known.get(field.name, [None] * len(names)), field.type) for field in self._columns]
        self._writer.write(pa.Table.from_arrays(columns, schema=self._columns), np.stack(pixels))
        self._rows = []
