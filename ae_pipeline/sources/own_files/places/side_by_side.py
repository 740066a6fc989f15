"""Some things done at a time, where each waits for a server.

An executor of Python's waits for its threads, also when the process is told to end. A thread that a silent server keeps
waiting would keep the process for a minute or more.
"""

import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
_AT_ONCE = 16
# How long the others are waited for after an error.
_GRACE_S = 1.0


def side_by_side(do: Callable[[Item, Event], None], items: Iterable[Item]) -> None:
    """Do something with every item. The first error, or an interrupt, ends all: `do` is given what says so."""
    waiting, results, ended = SimpleQueue[Item](), SimpleQueue[BaseException | None](), Event()
    count = 0
    for item in items:
        waiting.put(item)
        count += 1
    threads = [Thread(target=_work, args=(do, waiting, results, ended), daemon=True) for _ in range(_AT_ONCE)]
    for thread in threads[:count]:
        thread.start()
    try:
        for _ in range(count):
            if (error := results.get()) is not None:
                raise error
    except BaseException:
        ended.set()
        until = time.monotonic() + _GRACE_S
        for thread in threads[:count]:
            thread.join(max(0.0, until - time.monotonic()))
        raise


def _work(
    do: Callable[[Item, Event], None],
    waiting: SimpleQueue[Item],
    results: SimpleQueue[BaseException | None],
    ended: Event,
) -> None:
    while not ended.is_set():
        try:
            item = waiting.get_nowait()
        except Empty:
            return
        try:
            do(item, ended)
        except BaseException as error:
            results.put(error)  # before the others are told, who may say that they were ended
            ended.set()
        else:
            results.put(None)
