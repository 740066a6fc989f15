"""The pictures that rows are tiles of: image codecs are given these, and not the tiles.

They are put together from the rows themselves, in the rows' colours; what a codec gives back is cut again, so that
every error is one of the same rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.kinds import open_kind
from ae_pipeline.kinds.image import ImageState
from ae_pipeline.kinds.image_tiles import COLOUR, COLUMNS, cut, put_together
from ae_pipeline.store.reading.own_form import RECORD

_IMAGE = "image"


@dataclass(frozen=True)
class WholePictures:
    """Pictures (height, width[, channels]), in the rows' order."""

    pictures: list[np.ndarray]
    tile: int
    """Pixels a side of a row."""

    @property
    def pixels(self) -> int:
        """Pixels of all pictures, without what tiles repeat beyond their edges."""
        return sum(picture.shape[0] * picture.shape[1] for picture in self.pictures)

    def rows_of(self, decoded: list[np.ndarray]) -> np.ndarray:
        """The rows that decoded pictures are cut into."""
        shaped = (one.reshape(picture.shape) for one, picture in zip(decoded, self.pictures, strict=True))
        return np.concatenate([cut(one, self.tile)[0] for one in shaped])


def tile_of(samples: SampleSet) -> int | None:
    """Pixels a side, if the rows are tiles of pictures, and say of which; None for all other rows."""
    if samples.kind is None or samples.kind.name != _IMAGE:
        return None
    _, state = open_kind(samples.kind, "the prepared data")
    names = samples.attributes_schema.names
    known = all(name in names for name in (RECORD, *COLUMNS.names))
    return state.tile if isinstance(state, ImageState) and known else None


def whole_pictures(pixels: np.ndarray, attributes: pa.Table, tile: int) -> WholePictures:
    """The pictures of rows (n, tile, tile[, channels]) that are whole pictures."""
    as_rows = attributes.drop_columns([COLOUR]) if COLOUR in attributes.column_names else attributes
    return WholePictures(list(put_together(pixels, as_rows, tile)), tile)
