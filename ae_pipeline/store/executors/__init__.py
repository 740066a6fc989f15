"""Where shards are worked on: encode, decode, verify and repair hand their jobs over here. Each way has a file.

    inline     one after the other, in the thread that asks
    threads    side by side, in this process
    process    in processes of this machine
    on_dask    on a Dask cluster
    on_ray     on a Ray cluster
    lent       the codec that all jobs of a run share, opened once per process
    attempts   one job, tried again where that helps
    greeting   what a worker must be, asked before it begins
    engines    workers in processes: opened, kept, closed
    in_flight  what was sent to them, and what became of it

    entries = run_shards(job, items, len(items), codec.device, execute=params.execute, needs=Needs(borrowed))

A job and its items are data that could be pickled: paths, ranges, parameters. One shard goes in and one part comes out,
so that another process or machine can do it. What a job needs open, it opens itself, but for the codec.
"""

import os
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ae_pipeline.codec.devices import cpu_count
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors.attempts import Careful, Failed
from ae_pipeline.store.executors.engines import engine_for, is_kept, refuse_unlike
from ae_pipeline.store.executors.greeting import Greeting
from ae_pipeline.store.executors.in_flight import send_all
from ae_pipeline.store.executors.inline import inline
from ae_pipeline.store.executors.lent import Borrowed
from ae_pipeline.store.executors.threads import threads

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Yields each result with the place of its item, as they come, and has few items at hand at a time.

    The first error is raised and ends it; closing it ends it, too. Then nothing runs any more.
    """

    def __call__(
        self, job: Callable[[Any], Any], items: Iterable[Any], workers: int
    ) -> Generator[tuple[int, Any], None, None]:
        """`job` on each of `items`, `workers` at a time."""
        ...


@dataclass(frozen=True)
class Needs:
    """What jobs find where they run: workers are asked for it before they begin."""

    codec: Borrowed | None = None
    folder: Path | None = None
    """A folder that jobs write to; None: they write nowhere, or to a URL."""
    files: tuple[Path, ...] = ()
    """Some files that jobs read, of those that every worker must see."""


IN_THIS_PROCESS: dict[str, Executor] = {"inline": inline, "threads": threads}
HERE = ExecuteParams()
# Each has a block in the GPU's memory.
_AT_A_GPU = 8


def run_shards(
    job: Callable[[Item], Result],
    items: Iterable[Item],
    count: int,
    device: torch.device,
    done: Callable[[int, Result], None] = lambda place, result: None,
    *,
    execute: ExecuteParams = HERE,
    needs: Needs | None = None,
) -> list[Result]:
    """The results of a job on each of `count` items, in their order; one per CPU at a time, or few that feed a GPU.

    Items are asked for when there is a worker for them. `done` is called in this thread with the place of an item and
    its result, as results come. The first error, also one of `done` and Ctrl-C, cancels what has not begun, ends what
    has, and is raised.
    """
    results: dict[int, Result] = {}
    with closing(each_shard(job, items, count, device, execute, needs)) as finished:
        for place, result in finished:
            if isinstance(result, Failed):
                raise result.error
            results[place] = result
            done(place, result)
    return [results[place] for place in range(count)]


def each_shard(
    job: Callable[[Item], Result],
    items: Iterable[Item],
    count: int,
    device: torch.device,
    execute: ExecuteParams = HERE,
    needs: Needs | None = None,
) -> Generator[tuple[int, Result | Failed], None, None]:
    """Yield each result of `run_shards` with its place, as they come; Failed for a shard that alone could not be done.

    What is no shard's own fault is raised, and ends it. Whoever takes a result is waited for: few are made meanwhile.
    """
    wanted = execute.workers or _at_once(device)
    workers = max(1, min(count, wanted))
    if not execute.by_processes:
        # One thread beside the one that waits for it does nothing sooner, and would work while that takes parts away.
        executor = IN_THIS_PROCESS["inline" if workers == 1 else execute.name]
        yield from executor(Careful(job, execute.retries), items, workers)
        return
    if not count:
        return
    needs = needs or Needs()
    with engine_for(execute, wanted if is_kept(execute) else workers) as engine, _greeting(execute, needs) as greeting:
        refuse_unlike(engine, greeting)
        yield from send_all(engine, Careful(job, execute.retries, greeting), items, execute.retries)


def _at_once(device: torch.device) -> int:
    """Jobs for a device: while a GPU computes one block, others are read, copied, coded and written by CPUs."""
    at_most = {"cpu": cpu_count(), "cuda": _AT_A_GPU}.get(device.type, 2)
    return max(min(2, at_most), min(at_most, cpu_count()))


@contextmanager
def _greeting(execute: ExecuteParams, needs: Needs) -> Iterator[Greeting]:
    """What workers are asked; on a cluster with a mark in the folder that jobs write to, for the time of the run."""
    if execute.address is None:
        yield Greeting.to_this_machine(needs.codec, execute.memory)
        return
    files = list(needs.files)
    if needs.codec is not None and needs.codec.store is None and needs.codec.folder is not None:
        files.append(needs.codec.folder / "codec.json")
    mark = needs.folder and needs.folder / f".{uuid.uuid4().hex}.{os.getpid()}.tmp"
    try:
        if mark:
            mark.touch(exist_ok=False)
            files.append(mark)
        yield Greeting.to_a_cluster(needs.codec, files)
    finally:
        if mark:
            mark.unlink(missing_ok=True)
