"""Jobs side by side in threads of this process: NumPy, torch and Arrow work outside Python's lock."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from ae_pipeline.codec.devices import keep_freed_memory, one_torch_thread

# Items that are at hand for each worker: the one in work and the next.
_AT_HAND = 2


def threads(job: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Generator[tuple[int, Any], None, None]:
    """See `Executor`."""
    waiting: dict[Future[Any], int] = {}
    keep_freed_memory()  # before they begin
    # Each worker sets its own: OpenMP counts threads per thread, and not every product asks torch first.
    one_each = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    with one_torch_thread(), one_each as pool:
        try:
            for place, item in enumerate(items):
                waiting[pool.submit(job, item)] = place
                if len(waiting) == _AT_HAND * workers:
                    yield from _finished(waiting)
            while waiting:
                yield from _finished(waiting)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _finished(waiting: dict[Future[Any], int]) -> Generator[tuple[int, Any], None, None]:
    """Wait for a result, and take all that are there."""
    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in sorted(finished, key=waiting.__getitem__):
        yield waiting.pop(future), future.result()
