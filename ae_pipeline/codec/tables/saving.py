"""The folder of a codec of tables, written and read."""

import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ae_pipeline.codec.header import TABLE_FORMAT, WEIGHTS_NAME, CodecHeader, write_header
from ae_pipeline.codec.tables.networks import Layer, Parts, layer_sizes
from ae_pipeline.codec.tables.options import LATENT_BYTES, NAME, TableOptions
from ae_pipeline.codec.tables.streams import TableCoder
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.files import finished_file, finished_folder, sha256_file

_PACKED = "packed"
# One stream of the range coder of xz without its container, which would be as long as the weights of a small table.
_XZ = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0, "dict_size": 1 << 20}
_FILTERS = [_XZ]
_MOST_WEIGHTS = 64 << 20


def save_table_codec(
    folder: Path,
    options: TableOptions,
    parts: Sequence[Parts],
    provenance: dict[str, Any],
    kind: KindEntry | None = None,
) -> CodecHeader:
    """Write a codec folder, whole or not at all. `kind` says what a row means."""
    spec = SampleSpec((len(options.fields),), "float32")
    with finished_folder(folder) as temporary:
        with finished_file(temporary / WEIGHTS_NAME) as weights:
            weights.write_bytes(save({_PACKED: packed(parts)}))
        values = {
            "samples": {"shape": list(spec.shape), "dtype": spec.dtype},
            "scaling": {"offset": 0.0, "scale": 1.0},
            "model": {
                "name": NAME,
                "latent_size": LATENT_BYTES * spec.size,
                "options": options.model_dump(mode="json", exclude_defaults=True),
            },
            "quantiser": {"levels": 256, "scale": [1.0], "zero_point": [0.0]},
            **({"kind": kind.model_dump(mode="json")} if kind else {}),
            "weights_sha256": sha256_file(temporary / WEIGHTS_NAME),
        }
        return write_header(temporary, values, provenance, TABLE_FORMAT)


def load_table_coder(header: CodecHeader, tensors: dict[str, Tensor]) -> TableCoder:
    """What codes the rows of this codec. Raises ValueError for weights that are not its own."""
    if set(tensors) != {_PACKED} or tensors[_PACKED].dtype != torch.uint8:
        raise ValueError(f"tensors {', '.join(sorted(tensors))}, expected {_PACKED} alone")
    options = header.model.table
    return TableCoder(options, unpacked(tensors[_PACKED].numpy().tobytes(), options))


def packed(parts: Sequence[Parts]) -> Tensor:
    """All weights, then all scales, biases, and ends of cells, as one LZMA2 stream: uint8 (bytes,).

    Layers follow each other by field, in coding order, and within one by their names. Of a cell there is how far it
    begins after the end of the one before (the first one: after 0), and how far it ends after that.
    """
    ordered = [found.layers[name] for found in parts for name in sorted(found.layers)]
    gaps = [np.diff(found.ends.reshape(-1), prepend=0) for found in parts if found.ends is not None]
    plain = b"".join(
        [
            *(layer.weights.astype("i1").tobytes() for layer in ordered),
            *(layer.scale.astype("<u2").tobytes() for layer in ordered),
            *(layer.bias.astype("<i2").tobytes() for layer in ordered),
            *(found.astype("<i4").tobytes() for found in gaps),
        ]
    )
    stream = lzma.compress(plain, lzma.FORMAT_RAW, filters=_FILTERS)
    return torch.frombuffer(bytearray(stream), dtype=torch.uint8)


def unpacked(stream: bytes, options: TableOptions) -> list[Parts]:
    """Undo `packed`. Raises ValueError for what is not of these options, before it takes more memory than they need."""
    sizes = layer_sizes(options)
    weights = sum(given * made for found in sizes for given, made in found.values())
    outputs = sum(made for found in sizes for _, made in found.values())
    cells = sum(column.cells or 0 for column in options.columns)
    wanted = weights + 4 * outputs + 8 * cells
    if wanted > _MOST_WEIGHTS:
        raise ValueError(f"networks of {wanted:,} bytes, at most {_MOST_WEIGHTS:,} are supported")
    try:
        plain = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(stream, wanted + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"no LZMA2 stream: {error}") from None
    if len(plain) != wanted:
        raise ValueError(f"networks of {len(plain):,} bytes, not {wanted:,}")
    numbers = np.frombuffer(plain, np.int8, weights)
    scales = np.frombuffer(plain, "<u2", outputs, weights)
    biases = np.frombuffer(plain, "<i2", outputs, weights + 2 * outputs)
    gaps = np.frombuffer(plain, "<i4", 2 * cells, weights + 4 * outputs).astype(np.int64)
    parts, at, row, end = [], 0, 0, 0
    for column, found in zip(options.columns, sizes, strict=True):
        own = {}
        for name in sorted(found):
            given, made = found[name]
            own[name] = Layer(
                numbers[at : at + given * made].reshape(made, given), scales[row : row + made], biases[row : row + made]
            )
            at, row = at + given * made, row + made
        count = 2 * (column.cells or 0)
        parts.append(Parts(own, np.cumsum(gaps[end : end + count]).reshape(-1, 2) if count else None))
        end += count
    return parts
