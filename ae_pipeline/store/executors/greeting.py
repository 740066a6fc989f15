"""Before a worker begins, it says what it is: versions, code, processor, codec, and the files that it sees.

    greeting = Greeting.to_a_cluster(borrowed, files)
    engine.greet(greeting.problem)         # on every worker: None, or a sentence on what is not as it is here

A store has the same bytes whoever works. So a worker with another version is refused before it has written anything,
and so is one with another kind of processor, where the codec computes in floats.
"""

import os
import platform
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ae_pipeline.errors import PipelineError
from ae_pipeline.provenance import PACKAGE, code_digests, library_versions
from ae_pipeline.store.executors.lent import Borrowed

_GIB = 1 << 30


@dataclass(frozen=True)
class Sight:
    """A file that every worker must see as it is seen here."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Sight":
        """A file as it is now."""
        found = path.stat()
        return cls(str(path.absolute()), found.st_size, found.st_mtime_ns)

    def is_seen(self) -> bool:
        """Whether it is the same file here."""
        try:
            return Sight.of(Path(self.path)) == self
        except OSError:
            return False


@dataclass(frozen=True)
class Greeting:
    """What the process that starts a run is, and what it expects of its workers; can be pickled."""

    codec: Borrowed | None = None
    memory: float | None = None
    """GiB for the data of each worker, which it sets for itself."""
    versions: tuple[tuple[str, str], ...] = ()
    code: str = ""
    processor: str = ""
    sights: tuple[Sight, ...] = ()

    @classmethod
    def to_this_machine(cls, codec: Borrowed | None, memory: float | None) -> "Greeting":
        """For workers on this machine, which run the code that runs here."""
        return cls(codec, memory)

    @classmethod
    def to_a_cluster(cls, codec: Borrowed | None, files: Iterable[Path]) -> "Greeting":
        """For workers that may be anywhere."""
        # Integers come out the same on every kind of processor.
        kind = processor(codec.device) if codec is not None and not codec.is_integer else ""
        sights = tuple(map(Sight.of, files))
        return cls(codec, None, tuple(sorted(library_versions().items())), _code(), kind, sights)

    def problem(self) -> str | None:
        """On a worker: what is not as it is expected, in a sentence with what to do; None if nothing is."""
        return _problem(self)


@lru_cache(maxsize=4)
def _problem(greeting: Greeting) -> str | None:
    torch.set_num_threads(1)
    if greeting.memory is not None:
        _limit_memory(int(greeting.memory * _GIB))
    found = _difference(greeting)
    if found is None and greeting.codec is not None:
        try:
            greeting.codec.codec()
        except PipelineError as error:
            found = f"cannot load the codec: {error}"
        except (OSError, MemoryError, RuntimeError) as error:
            found = f"cannot load the codec: {type(error).__name__}: {error}"
    return f"the worker on {socket.gethostname()} (process {os.getpid()}) {found}" if found else None


def _difference(greeting: Greeting) -> str | None:
    there = library_versions() if greeting.versions else {}
    for name, version in greeting.versions:
        if there.get(name) != version:
            return f"has {name} {there.get(name)}, expected {version} as here; install that version there"
    if greeting.code and greeting.code != _code():
        return f"runs other code of ae-pipeline {there['ae-pipeline']} than is here; install the same there and here"
    if greeting.processor and greeting.codec and processor(greeting.codec.device) != greeting.processor:
        return (
            f"has another kind of processor ({processor(greeting.codec.device)}, here: {greeting.processor}), and this "
            "codec computes in floats, whose last digits depend on it; take workers of one kind, or train a codec in "
            "integers (train.arithmetic)"
        )
    for sight in greeting.sights:
        if not sight.is_seen():
            return (
                f"does not see {sight.path} as it is here; give the cluster a disk that all its machines have at the "
                "same path, or take data and stores at s3://"
            )
    return None


@lru_cache(maxsize=1)
def _code() -> str:
    """A digest of the package's code."""
    return code_digests()[PACKAGE.name]


def processor(device: str) -> str:
    """What the last digits of float results depend on: architecture and instructions, or the GPU."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _limit_memory(most: int) -> None:
    """Have the system refuse this process more memory for data (Linux counts private pages that can be written)."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
