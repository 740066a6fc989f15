"""One job after the other, in the thread that asks."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

from ae_pipeline.codec.devices import one_torch_thread


def inline(
    job: Callable[[Any], Any],
    items: Iterable[Any],
    workers: int,  # noqa: ARG001 (there is one)
) -> Generator[tuple[int, Any], None, None]:
    """See `Executor`."""
    with one_torch_thread():
        for place, item in enumerate(items):
            yield place, job(item)
