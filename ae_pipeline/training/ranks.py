"""Several processes that train one codec together, a rank each: all have all weights, and a share of every batch.

A process that trains alone is the first rank of one. Ranks are started by `launching.py`, or by torchrun; both say by
the environment who is who. Gradients are averaged by DistributedDataParallel (trainer.py), all else here.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, distributed

from ae_pipeline.errors import ConfigError, WorkerError, first_line

STORE = "AE_PIPELINE_RANKS_STORE"
"""The environment variable that names the file by which the ranks of `launching.py` find each other."""
PEER_LOST = 75
"""Exit code of a rank of `launching.py` that lost another one, which `launching.py` then reports."""
# What the messages of gloo and NCCL have in common where another rank is gone.
_SIGNS = ("gloo", "nccl", "connection closed", "connection reset")


def of_several() -> bool:
    """Whether this process was started as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_first() -> bool:
    """Whether this process is the rank that writes and talks."""
    return not of_several() or os.environ["RANK"] == "0"


def count() -> int:
    """How many ranks train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this one; the first one is 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Train together with the other ranks in the block, if there are any; yields the device of this one.

    What the others would print is what the first one prints. Raises WorkerError where another rank is lost.
    """
    if not of_several():
        yield device
        return
    if device.type == "mps":
        raise ConfigError("several processes train on CPUs or on CUDA devices, not on MPS; set train.device to cpu")
    if device.type == "cuda":
        number, there = int(os.environ.get("LOCAL_RANK", os.environ["RANK"])), torch.cuda.device_count()
        if number >= there:
            raise ConfigError(
                f"process {number + 1} of this machine finds no CUDA device of its own, there are {there}; set "
                "train.processes to at most that, or train.device to cpu"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    with ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        try:
            _begin(device)
            yield device
        except RuntimeError as error:
            if not _of_a_lost_rank(error):
                raise
            if STORE in os.environ:
                sys.exit(PEER_LOST)
            raise WorkerError(
                f"another process of this training is gone ({first_line(error)[:200]})",
                advice="run the same command again: it goes on from the last checkpoint",
            ) from None
        finally:
            leave()


def leave() -> None:
    """Do without the others from here on; `is_first` still says who writes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _begin(device: torch.device) -> None:
    # Ranks of one machine need nobody from outside.
    if STORE in os.environ or os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, loopback)
    store = os.environ.get(STORE)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{store}" if store else "env://",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def _of_a_lost_rank(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or any(sign in text for sign in _SIGNS)


def share(rows: Tensor) -> Tensor:
    """The rows of a batch that are this rank's."""
    return rows[rank() :: count()]


def average(tensors: list[Tensor]) -> None:
    """Make each tensor, in place, the mean of what all ranks have; the same bits everywhere."""
    if count() == 1 or not tensors:
        return
    together = torch.cat([tensor.detach().flatten().double() for tensor in tensors])
    distributed.all_reduce(together)
    together /= count()
    for tensor, mean in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(mean.reshape(tensor.shape))


def add_up(value: float) -> float:
    """Sum of a number over all ranks; the same bits everywhere."""
    if count() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64, device=_device())
    distributed.all_reduce(total)
    return float(total)


def as_the_first(choose: Callable[[], Any]) -> Any:
    """What `choose` gives the first rank: JSON, told to all."""
    if count() == 1:
        return choose()
    text = json.dumps(choose()).encode() if rank() == 0 else b""
    size = torch.tensor([len(text)], device=_device())
    distributed.broadcast(size, 0)
    told = torch.zeros(int(size), dtype=torch.uint8, device=_device())
    told[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
    distributed.broadcast(told, 0)
    return json.loads(bytes(told.cpu().tolist()))


def wait_for_all() -> None:
    """Go on when all ranks are here."""
    add_up(0.0)


def _device() -> torch.device:
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
