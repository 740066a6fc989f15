"""A codec for all jobs of a run: who starts the run has it open and lends it; another process opens it once.

with lent(codec) as borrowed:
    run_shards(partial(job, borrowed), items, len(items), codec.device)     # the job calls borrowed.codec()
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.codec.header import HEADER_NAME, WEIGHTS_NAME
from ae_pipeline.errors import CodecError, StoreError
from ae_pipeline.store.format.manifest import CODEC_FOLDER
from ae_pipeline.store.storage.folder import Storage, copy_file

_MOST_BYTES = 1 << 34
_lent: dict["Borrowed", Codec] = {}


@dataclass(frozen=True)
class Borrowed:
    """What a job knows of its codec; can be pickled."""

    folder: Path | None
    device: str
    fingerprint: str
    run: str
    is_integer: bool
    store: Storage | None = None
    """A store that several machines reach, and that holds the codec; None: the folder is all there is."""

    def codec(self) -> Codec:
        """The codec itself. Raises CodecError if another process cannot load it."""
        return _lent.get(self) or _loaded(self)


@contextmanager
def lent(codec: Codec, store: Storage | None = None) -> Iterator[Borrowed]:
    """In the block, jobs find this codec; on other machines in its folder, or in `store` if that is at a URL."""
    there = store if store is not None and store.shared else None
    run = uuid4().hex
    borrowed = Borrowed(codec.folder, str(codec.device), codec.fingerprint, run, codec.header.is_integer, there)
    _lent[borrowed] = codec
    try:
        yield borrowed
    finally:
        del _lent[borrowed]


@lru_cache(maxsize=1)
def _loaded(borrowed: Borrowed) -> Codec:
    assert borrowed.folder is not None, "a codec that was never loaded cannot be found by another process"
    here = borrowed.store is None or (borrowed.folder / HEADER_NAME).exists()
    codec = Codec.load(borrowed.folder, choose_device(borrowed.device)) if here else _fetched(borrowed)
    if codec.fingerprint != borrowed.fingerprint:
        raise CodecError(f"{borrowed.folder} changed while it was being used; run the same command again")
    return codec


def _fetched(borrowed: Borrowed) -> Codec:
    """The codec in the store, by a copy that goes with it."""
    assert borrowed.store is not None
    folder = Path(tempfile.mkdtemp(prefix="ae-pipeline-codec-"))
    try:
        for name in (HEADER_NAME, WEIGHTS_NAME):
            copy_file(borrowed.store, f"{CODEC_FOLDER}/{name}", folder / name, most=_MOST_BYTES)
        codec = Codec.load(folder, choose_device(borrowed.device))
    except FileNotFoundError:
        raise StoreError("has no codec", place=borrowed.store.location, advice="run the same command again") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return codec
