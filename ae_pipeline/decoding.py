"""Decode a latent store into samples, from the store alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ae_pipeline.codec import Codec
from ae_pipeline.devices import choose_device, cpu_count, one_torch_thread, use_one_torch_thread
from ae_pipeline.errors import TargetError
from ae_pipeline.files import finished_folder
from ae_pipeline.latent_store import LatentStore
from ae_pipeline.manifest import PartEntry
from ae_pipeline.samples import SampleSet, ShardWriter
from ae_pipeline.storage import LocalStorage


def decode_store(
    store: LatentStore, out: Path, *, device: str = "auto", progress: Callable[[int], None] = lambda rows: None
) -> SampleSet:
    """Decode every row into `prepare`'s layout at `out`, a folder that must not exist yet; one shard per part.

    Whole or not at all. Raises StoreError, CodecError, TargetError.
    """
    if isinstance(store.storage, LocalStorage) and out.resolve().is_relative_to(store.path.resolve()):
        raise TargetError(f"{out} lies inside the store {store.path}; choose a target outside it")
    codec = load_store_codec(store, device)
    parts = list(enumerate(store.manifest.parts))
    workers = min(len(parts), cpu_count() if codec.device.type == "cpu" else 2)
    with (
        finished_folder(out) as folder,
        one_torch_thread(),
        ThreadPoolExecutor(workers, initializer=use_one_torch_thread) as pool,
    ):
        running = {pool.submit(_decode_part, store, codec, part, number, folder): part for number, part in parts}
        try:
            for done in as_completed(running):
                done.result()
                progress(running[done].rows)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return SampleSet.open(out)


def load_store_codec(store: LatentStore, device: str = "auto") -> Codec:
    """The store's own codec, checked against the manifest. Raises StoreError, CodecError."""
    store.codec_header()
    return Codec.load(store.codec_path, choose_device(device))


def _decode_part(store: LatentStore, codec: Codec, part: PartEntry, number: int, folder: Path) -> None:
    with ShardWriter(folder / f"part-{number:05d}.parquet", store.attributes_schema(), codec.spec) as writer:
        for rows in store.read_part(part, codec.block_rows):
            writer.write(rows.attributes, codec.decode_block(rows.latents))
