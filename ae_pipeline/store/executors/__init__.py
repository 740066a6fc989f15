"""Where shards are worked on: encode, decode and drift hand their jobs over here. Each way to do it has a file.

    inline     one after the other, in the thread that asks
    threads    side by side, in this process
    lent       the codec that all jobs of a run share, opened once per process

    entries = run_shards(job, items, len(items), codec.device)

A job and its items are data that could be pickled: paths, ranges, parameters. One shard goes in and one part comes out,
so that another process or machine could do it. What a job needs open, it opens itself, but for the codec.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, Protocol, TypeVar

import torch

from ae_pipeline.codec.devices import cpu_count
from ae_pipeline.store.executors.inline import inline
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


EXECUTORS: dict[str, Executor] = {"inline": inline, "threads": threads}
EXECUTOR = "threads"


def run_shards(
    job: Callable[[Item], Result],
    items: Iterable[Item],
    count: int,
    device: torch.device,
    done: Callable[[int, Result], None] = lambda place, result: None,
) -> list[Result]:
    """The results of a job on each of `count` items, in their order; one per CPU at a time, or two that feed a GPU.

    Items are asked for when there is a worker for them. `done` is called in this thread with the place of an item and
    its result, as results come. The first error, also one of `done` and Ctrl-C, cancels what has not begun, waits for
    what has, and is raised.
    """
    workers = max(1, min(count, cpu_count() if device.type == "cpu" else 2))  # two: reading overlaps computing
    results: dict[int, Result] = {}
    with closing(EXECUTORS[EXECUTOR](job, items, workers)) as finished:
        for place, result in finished:
            results[place] = result
            done(place, result)
    return [results[place] for place in range(count)]
