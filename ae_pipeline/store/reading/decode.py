"""Decode a latent store into samples, from the store alone: all of it, or chosen rows.

decode_store(store, Path("decoded"))
for block in decode_rows(store, filter="label = 7"):
    block.attributes, block.pixels          # Arrow table; (rows, *shape), the samples' dtype
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device, cpu_count, one_torch_thread, use_one_torch_thread
from ae_pipeline.data.parquet.writer import rechunk
from ae_pipeline.data.samples import ID, Block, SampleSet, ShardWriter
from ae_pipeline.errors import ConfigError, DamagedPartError, StoreError
from ae_pipeline.files import finished_folder, refuse_inside
from ae_pipeline.store.format.layouts import LATENT
from ae_pipeline.store.format.manifest import PartEntry
from ae_pipeline.store.format.part_writer import RESERVED
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import OnDamaged
from ae_pipeline.store.reading.scan import check_columns
from ae_pipeline.store.storage.folder import LocalStorage


def decode_store(
    store: LatentStore,
    out: Path,
    *,
    device: str = "auto",
    on_damaged: OnDamaged | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> SampleSet:
    """Decode every row into `prepare`'s layout at `out`, a folder that must not exist yet; one shard per part.

    Whole or not at all. A part that is damaged raises DamagedPartError, or is left out if there is `on_damaged`, unless
    all are. Raises StoreError, CodecError, TargetError.
    """
    refuse_inside_store(store, out)
    codec = load_store_codec(store, device)
    schema = store.attributes_schema()
    parts = list(enumerate(store.manifest.parts))
    workers = min(len(parts), cpu_count() if codec.device.type == "cpu" else 2)
    damaged: dict[int, DamagedPartError] = {}
    with (
        finished_folder(out) as folder,
        one_torch_thread(),
        ThreadPoolExecutor(workers, initializer=use_one_torch_thread) as pool,
    ):
        running = {pool.submit(_decode_part, store, codec, schema, *part, folder): part for part in parts}
        try:
            for done in as_completed(running):
                number, part = running[done]
                try:
                    done.result()
                except DamagedPartError as error:
                    damaged[number] = error
                    if on_damaged is None or len(damaged) == len(parts):
                        raise
                progress(part.rows)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        for number in sorted(damaged):
            assert on_damaged is not None
            on_damaged(parts[number][1], damaged[number])
    return SampleSet.open(out)


def decode_rows(
    store: LatentStore,
    filter: pc.Expression | str | None = None,  # noqa: A002 (Arrow's name for it)
    ids: Sequence[int | str] | None = None,
    columns: Sequence[str] | None = None,
    on_damaged: OnDamaged | None = None,
    *,
    device: str = "auto",
) -> Iterator[Block]:
    """Yield the rows that satisfy both `filter` and `ids`, in the store's order, in blocks as the codec takes them.

    A row is decoded to the same bytes whichever others are chosen. `columns` are attributes (None: all; `id` always
    comes first). Conditions, ids and damaged parts as in `scanning.scan`: only what may hold such rows is read, and
    memory is that of a row group and a block. Raises StoreError, CodecError, ConfigError.
    """
    names = attribute_names(store, columns)
    codec = load_store_codec(store, device)
    for table in rechunk(store.scan([*names, LATENT], filter, ids, on_damaged), codec.block_rows):
        try:
            latents = store.to_latents(table)
        except ValueError as error:
            raise StoreError(f"{store.location}: its latents are not what the manifest says: {error}") from None
        yield Block(table.select(names), codec.decode(latents))


def attribute_names(store: LatentStore, columns: Sequence[str] | None = None) -> list[str]:
    """`id` and these attributes, or all of them. Raises ConfigError for a name that is none."""
    known = [column.name for column in store.manifest.columns]
    check_columns(columns or (), known)
    taken = next((name for name in columns or () if name in RESERVED), None)
    if taken:
        raise ConfigError(f"{taken!r} is no attribute of the decoded rows; `LatentStore.scan` gives it")
    chosen = known if columns is None else columns
    return list(dict.fromkeys([ID, *(name for name in chosen if name not in RESERVED)]))


def load_store_codec(store: LatentStore, device: str = "auto") -> Codec:
    """The store's own codec, checked against the manifest. Raises StoreError, CodecError."""
    store.codec_header()
    return Codec.load(store.codec_path, choose_device(device))


def refuse_inside_store(store: LatentStore, out: Path) -> None:
    """Raise TargetError for a target inside the store's own folder."""
    if isinstance(store.storage, LocalStorage):
        refuse_inside(out, store.path, "the store")


def _decode_part(
    store: LatentStore, codec: Codec, schema: pa.Schema, number: int, part: PartEntry, folder: Path
) -> None:
    with ShardWriter(folder / f"part-{number:05d}.parquet", schema, codec.spec) as writer:
        for rows in store.read_part(part, codec.block_rows):
            writer.write(rows.attributes, codec.decode_block(rows.latents))
