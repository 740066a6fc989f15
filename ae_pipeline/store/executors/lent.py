"""A codec for all jobs of a run: who starts the run has it open and lends it; another process opens it once.

with lent(codec) as borrowed:
    run_shards(partial(job, borrowed), items, len(items), codec.device)     # the job calls borrowed.codec()
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.errors import CodecError

_lent: dict["Borrowed", Codec] = {}


@dataclass(frozen=True)
class Borrowed:
    """What a job knows of its codec; can be pickled."""

    folder: Path | None
    device: str
    fingerprint: str
    run: str

    def codec(self) -> Codec:
        """The codec itself. Raises CodecError if another process cannot load it."""
        return _lent.get(self) or _loaded(self)


@contextmanager
def lent(codec: Codec) -> Iterator[Borrowed]:
    """In the block, jobs find this codec."""
    borrowed = Borrowed(codec.folder, str(codec.device), codec.fingerprint, uuid4().hex)
    _lent[borrowed] = codec
    try:
        yield borrowed
    finally:
        del _lent[borrowed]


@lru_cache(maxsize=1)
def _loaded(borrowed: Borrowed) -> Codec:
    assert borrowed.folder is not None, "a codec that was never loaded cannot be found by another process"
    codec = Codec.load(borrowed.folder, choose_device(borrowed.device))
    if codec.fingerprint != borrowed.fingerprint:
        raise CodecError(f"{borrowed.folder} changed while it was being used; run the same command again")
    return codec
