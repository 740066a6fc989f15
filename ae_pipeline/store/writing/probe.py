"""Does this machine decode a store as the one that wrote it did? A digest of some decoded pixels tells.

Float sums in a matrix product depend on the processor's instructions and on the library: on another machine a decoded
integer may be the next one. Nothing is lost then, but rows are not byte for byte what they were.
"""

import hashlib

import numpy as np
import torch

from ae_pipeline.codec.codec import Codec
from ae_pipeline.store.format.entries import ProbeEntry
from ae_pipeline.store.latent_store import LatentStore

_ROWS = 256


def measure_probe(store: LatentStore, rows: int = _ROWS, codec: Codec | None = None) -> ProbeEntry:
    """Decode the first rows of the store's first part on this machine's CPU. Raises StoreError, CodecError.

    `codec` is the store's, if it is loaded already; on another device than the CPU it is loaded once more.
    """
    store.codec_header()
    if codec is None or codec.device.type != "cpu":
        codec = Codec.load(store.codec_path, "cpu")
    first = next(store.read_part(store.manifest.parts[0], rows))
    digest = hashlib.sha256()
    for start in range(0, len(first.latents), codec.block_rows):
        pixels = np.ascontiguousarray(codec.decode(first.latents[start : start + codec.block_rows]))
        digest.update(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    return ProbeEntry(
        rows=len(first.latents),
        pixels_sha256=digest.hexdigest(),
        instructions=torch.backends.cpu.get_cpu_capability(),
    )
