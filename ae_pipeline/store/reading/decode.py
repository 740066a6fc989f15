"""Decode a latent store into samples, from the store alone: all of it, or chosen rows.

decode_store(store, Path("decoded"))
for block in decode_rows(store, filter="label = 7"):
    block.attributes, block.pixels          # Arrow table; (rows, *shape), the samples' dtype
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.data.blocks import Block
from ae_pipeline.data.parquet.writer import rechunk
from ae_pipeline.data.samples import ID, SampleSet, ShardWriter
from ae_pipeline.errors import ConfigError, DamagedPartError, StoreError
from ae_pipeline.files import finished_folder, refuse_inside
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors import HERE, Needs, run_shards
from ae_pipeline.store.executors.lent import Borrowed, lent
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.layouts import LATENT
from ae_pipeline.store.format.part_entries import PartEntry
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
    execute: ExecuteParams = HERE,
    restored: bool = False,
) -> SampleSet:
    """Decode every row into `prepare`'s layout at `out`, a folder that must not exist yet; one shard per part.

    With `restored`, values of a context codec are moved within their bins: see `Codec.restore`.
    Whole or not at all. A part that is damaged raises DamagedPartError, or is left out if there is `on_damaged`, unless
    all are. Raises StoreError, CodecError, TargetError.
    """
    spec = store.codec_header().spec
    open_shard = partial(ShardWriter, attributes=store.attributes_schema(), spec=spec)
    decode_parts(
        store, out, open_shard,
        device=device, on_damaged=on_damaged, progress=progress, execute=execute, restored=restored,
    )  # fmt: skip
    return SampleSet.open(out)


def decode_parts(
    store: LatentStore,
    out: Path,
    open_file: Callable[[Path], Any],
    *,
    device: str = "auto",
    on_damaged: OnDamaged | None = None,
    progress: Callable[[int], None] = lambda rows: None,
    execute: ExecuteParams = HERE,
    restored: bool = False,
) -> int:
    """Decode every row into the folder `out`, a file for each part, and return how many files; see `decode_store`.

    `open_file` gives for a path a context manager with a method `write(attributes, pixels)`, as ShardWriter is.
    """
    refuse_inside_store(store, out)
    codec = load_store_codec(store, device)
    if restored:
        codec.header.check_restores(store.location)
    parts = store.manifest.parts
    damaged: dict[int, DamagedPartError] = {}

    def done(number: int, error: DamagedPartError | None) -> None:
        if error is not None:
            damaged[number] = error
            if on_damaged is None or len(damaged) == len(parts):
                raise error
        progress(parts[number].rows)

    files = (store.path / MANIFEST_NAME,) if isinstance(store.storage, LocalStorage) else ()
    with finished_folder(out) as folder, lent(codec, store.storage) as borrowed:
        # Each job gets its part; with those of all others it would be large.
        light = LatentStore(store.storage, store.manifest.model_copy(update={"parts": []}))
        job = partial(_decode_part, light, open_file, borrowed, folder, restored)
        needs = Needs(borrowed, folder, files)
        run_shards(job, enumerate(parts), len(parts), codec.device, done, execute=execute, needs=needs)
        for number in sorted(damaged):
            assert on_damaged is not None
            on_damaged(parts[number], damaged[number])
    return len(parts) - len(damaged)


def decode_rows(
    store: LatentStore,
    filter: pc.Expression | str | None = None,  # noqa: A002 (Arrow's name for it)
    ids: Sequence[int | str] | None = None,
    columns: Sequence[str] | None = None,
    on_damaged: OnDamaged | None = None,
    *,
    device: str = "auto",
    restored: bool = False,
) -> Iterator[Block]:
    """Yield the rows that satisfy both `filter` and `ids`, in the store's order, in blocks as the codec takes them.

    A row is decoded to the same bytes whichever others are chosen. `columns` are attributes (None: all; `id` always
    comes first). Conditions, ids and damaged parts as in `scanning.scan`: only what may hold such rows is read, and
    memory is that of a row group and a block. `restored`: see `decode_store`.
    Raises StoreError, CodecError, ConfigError.
    """
    names = attribute_names(store, columns)
    codec = load_store_codec(store, device)
    if restored:
        codec.header.check_restores(store.location)
    for table in rechunk(store.scan([*names, LATENT], filter, ids, on_damaged), codec.block_rows):
        try:
            latents = store.to_latents(table)
        except ValueError as error:
            raise StoreError(f"{store.location}: its latents are not what the manifest says: {error}") from None
        pixels = codec.decode(latents)
        yield Block(table.select(names), codec.restore(pixels) if restored else pixels)


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
    store: LatentStore,
    open_file: Callable[[Path], Any],
    borrowed: Borrowed,
    folder: Path,
    restored: bool,
    item: tuple[int, PartEntry],
) -> DamagedPartError | None:
    """Decode a part into the file of its number. If the part cannot be read, say so: no file is written then."""
    (number, part), codec = item, borrowed.codec()
    try:
        with open_file(folder / f"part-{number:05d}.parquet") as writer:
            for rows in store.read_part(part, codec.block_rows):
                pixels = codec.decode_block(rows.latents)
                writer.write(rows.attributes, codec.restore(pixels) if restored else pixels)
    except DamagedPartError as error:
        return error
    return None
