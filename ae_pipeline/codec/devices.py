"""Devices and threads: which one computes, and how many at a time."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import torch

from ae_pipeline.errors import ConfigError

# Numbers from malloc.h of glibc, and bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX, _KEPT_BYTES = -1, -3, -8, 1 << 30


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU. Raises ConfigError for a device that this machine lacks."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        has = ", ".join(device for device, here in available.items() if here)
        raise ConfigError(
            f"device {name} is not available on this machine; it has: {has}. Choose one of these (--device; in "
            "params.yaml train.device and encode.device)"
        )
    return torch.device(name)


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Have the C library keep what a block took for the next block, for as long as this process lives.

    glibc gives large pieces back at once, and the system clears them for the next one: a sixth of the time of encoding
    in threads, and a fourth in Dask's workers. Threads that begin after this take from where the first one does: what
    each keeps for itself is 64 MiB at most, and large blocks need more. Other C libraries have their own ways.
    """
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        for what in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(what, _KEPT_BYTES)
        library.mallopt(_ARENA_MAX, 1)


def whole_float32(device: torch.device) -> None:
    """Have a GPU multiply float32 numbers as they are: convolutions would cut them to 11 bits otherwise (TF32)."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


_streams = threading.local()


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Have a GPU do in the block what this thread asks for beside what others ask for, each in its own order.

    While one thread's block is computed, another's is copied and a third one's is read from its file.
    """
    if device.type != "cuda":
        yield
        return
    mine: dict[torch.device, torch.cuda.Stream] = _streams.__dict__.setdefault("mine", {})
    if device not in mine:
        mine[device] = torch.cuda.Stream(device)
    # What was done before, as loading the weights, is finished first.
    mine[device].wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(mine[device]):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let every matrix product run on the thread that asks for it.

    The sums in a product then do not depend on how many threads there are, and several Python threads work side by
    side without fighting for the same cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
