"""The latent store. Format: docs/store-format.md; what it promises: docs/reliability.md.

    latent_store     an open store: chosen rows of it
    parts            its parts, each read and checked as a whole
    storage/         where a store's files are, read and written: folder or URL
    format/          manifest, parts, layouts
    writing/         encode and append
    reading/         scan, decode, export
    care/            verify, repair, vacuum
    executors/       one job for each shard, side by side

Doors: `LatentStore` and `decode_rows` for readers; `writing.encoding.encode_samples` and
`writing.appending.append_samples` for writers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.reading.decode import decode_rows

__all__ = ["LatentStore", "decode_rows"]


def __getattr__(name: str) -> Any:
    """The doors, imported when they are asked for: a store is opened without torch, which decoding needs."""
    if name == "LatentStore":
        from ae_pipeline.store.latent_store import LatentStore

        return LatentStore
    if name == "decode_rows":
        from ae_pipeline.store.reading.decode import decode_rows

        return decode_rows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
