"""One job on one item, where it may fail: what is a shard's own fault is told apart from what would meet all others.

result = Careful(job, retries, greeting)(item)      # what the job returns, or Failed
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ae_pipeline.codec.devices import keep_freed_memory
from ae_pipeline.errors import DataError, PipelineError, UnreachableError, WorkerError, first_line, is_out_of_memory
from ae_pipeline.store.executors.greeting import Greeting

_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Failed:
    """What becomes of a shard that cannot be worked on, while others can."""

    error: PipelineError


@dataclass(frozen=True)
class Careful:
    """A job that is tried again where that can help. It can be pickled if the job can."""

    job: Callable[[Any], Any]
    retries: int = 0
    greeting: Greeting | None = None
    """What a worker with a process of its own is asked; None in the process that started the run."""

    def __call__(self, item: Any) -> Any:
        """The job's result, or Failed for a shard's own fault. Raises what ends the run."""
        keep_freed_memory()
        if self.greeting is not None:
            torch.set_num_threads(1)  # each thread has its own number
            if found := self.greeting.problem():
                raise WorkerError(found)
        return self._tried(item)

    def _tried(self, item: Any) -> Any:
        for tried in range(self.retries + 1):
            try:
                return self.job(item)
            except DataError as error:
                return Failed(error)
            except UnreachableError:
                if tried == self.retries:
                    raise
                time.sleep(min(2.0**tried, _LONGEST_PAUSE_S))
            except Exception as error:
                if self.greeting is None:
                    raise
                if not is_out_of_memory(error):
                    raise _that_travels(error) from None
                last = first_line(error)
        return Failed(too_little_memory(self.retries + 1, last))


def too_little_memory(times: int, reason: str) -> WorkerError:
    """The error for a shard whose worker had too little memory each time."""
    return WorkerError(
        f"its worker had too little memory, {times} time(s): {reason}",
        advice="give workers more (--memory, in params.yaml execute.memory), have fewer (--workers), or set the "
        "rows of a row group lower (--row-group-rows, in params.yaml encode.row_group_rows)",
    )


def _that_travels(error: Exception) -> Exception:
    """An error that another process can read: those of libraries may need what it does not have."""
    if isinstance(error, PipelineError) or type(error).__module__ == "builtins":
        return error
    return RuntimeError(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
