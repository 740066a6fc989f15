"""The folder of a context codec, written and read."""

import lzma
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ae_pipeline.codec.context.grid import Grid
from ae_pipeline.codec.context.networks import Networks
from ae_pipeline.codec.context.options import NAME, Options
from ae_pipeline.codec.context.restore import Restorer
from ae_pipeline.codec.context.streams import StreamCoder, even
from ae_pipeline.codec.header import CONTEXT_FORMAT, WEIGHTS_NAME, CodecHeader, write_header
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.files import finished_file, finished_folder, sha256_file

_PACKED = "packed"
# What undoing an xz stream may take; one of `packed` takes a quarter of it, at its highest preset.
_MOST_MEMORY = 256 << 20
LEVELS = 256
"""Indices are kept as int8: 128 less than they are."""


def save_context_codec(
    folder: Path,
    networks: Networks,
    options: Options,
    spec: SampleSpec,
    provenance: dict[str, Any],
    kind: KindEntry | None = None,
) -> CodecHeader:
    """Write a codec folder, whole or not at all. `kind` says what a row means."""
    grid, said = Grid(options.max_error), options.model_dump(mode="json", exclude_none=True)
    with finished_folder(folder) as temporary:
        with finished_file(temporary / WEIGHTS_NAME) as weights:
            weights.write_bytes(save({_PACKED: packed(networks.state_dict())}))
        values = {
            "samples": {"shape": list(spec.shape), "dtype": spec.dtype},
            "scaling": {"offset": 0.0, "scale": 255.0},
            "model": {"name": NAME, "latent_size": spec.size, "options": said},
            "quantiser": {
                "levels": LEVELS,
                "scale": [float(grid.step)],
                "zero_point": [float(LEVELS // 2 * grid.step)],
            },
            **({"kind": kind.model_dump(mode="json")} if kind else {}),
            "weights_sha256": sha256_file(temporary / WEIGHTS_NAME),
        }
        return write_header(temporary, values, provenance, CONTEXT_FORMAT)


def empty_networks(header: CodecHeader) -> Networks:
    """The networks of a header, without memory: weights are to be loaded."""
    height, width = even(_sides(header))
    return Networks(height, width, header.model.context)


def stream_coder(header: CodecHeader, networks: Networks) -> StreamCoder:
    """What codes the rows of this codec. The weights are there, and prepared."""
    return StreamCoder(networks, _sides(header), Grid(header.model.context.max_error))


def restorer(header: CodecHeader, networks: Networks) -> Restorer | None:
    """What restores the rows that this codec decodes, if it can."""
    options = header.model.context
    return Restorer(networks, Grid(options.max_error)) if options.restore else None


def packed(state: dict[str, Tensor]) -> Tensor:
    """All tensors in the order of their names, little-endian, as one xz stream: uint8 (bytes,)."""
    plain = b"".join(state[name].contiguous().numpy().tobytes() for name in sorted(state))
    stream = lzma.compress(plain, check=lzma.CHECK_CRC32, preset=lzma.PRESET_EXTREME | 9)
    return torch.frombuffer(bytearray(stream), dtype=torch.uint8)


def load_packed(networks: Networks, tensors: dict[str, Tensor]) -> Networks:
    """Undo `packed`, for networks without memory. Raises ValueError for what is not theirs, before it takes more."""
    if set(tensors) != {_PACKED} or tensors[_PACKED].dtype != torch.uint8:
        raise ValueError(f"tensors {', '.join(sorted(tensors))}, expected {_PACKED} alone")
    wanted = networks.state_dict()
    size = sum(value.numel() * value.element_size() for value in wanted.values())
    try:
        xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_MEMORY)
        plain = xz.decompress(tensors[_PACKED].numpy().tobytes(), size + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"no xz stream: {error}") from None
    if len(plain) != size or not xz.eof or xz.unused_data:
        raise ValueError(f"networks of another size than {size} bytes")
    state, place = {}, 0
    for name in sorted(wanted):
        like = wanted[name]
        state[name] = torch.frombuffer(bytearray(plain), dtype=like.dtype, count=like.numel(), offset=place)
        state[name] = state[name].reshape(like.shape).clone()
        place += like.numel() * like.element_size()
    networks.load_state_dict(state, assign=True)
    return networks


def _sides(header: CodecHeader) -> tuple[int, int]:
    height, width = header.spec.shape
    return height, width
