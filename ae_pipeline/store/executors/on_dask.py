"""Jobs on a Dask cluster: one future for each shard, taken as they are completed, and released.

Without an address a cluster is started on this machine. It listens on loopback, and only to who has the certificate
that is made for it and kept nowhere: whoever reaches a scheduler can have it run anything.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from ae_pipeline.errors import ConfigError, UnreachableError, WorkerError, first_line
from ae_pipeline.files import run_folder
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors.in_flight import LostError

# Jobs that are sent for each thread of the cluster: the one in work and the next.
_AT_HAND = 2
_BEGIN_S = 60.0
_LOOK_S = 0.02
# How long a cluster may have no worker, and how often that is asked.
_ALONE_S, _ASK_S = 60.0, 5.0
# A scheduler of ours gives no job to another worker by itself, as losses are counted here; nor does it serve pages.
# Its workers are not profiled all the time, and keep the memory that they will want again for the next block: to give
# it back at once, as is Dask's way, takes as long as encoding does.
_LOCAL = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1"},
}


class OnDask:
    """See `Engine`."""

    def __init__(self, execute: ExecuteParams, workers: int):
        try:
            import dask
            import distributed
        except ImportError as error:
            raise ConfigError(
                f"--executor dask needs the extra `dask` ({first_line(error)}): pip install 'ae-pipeline[dask]'; or "
                "take --executor process"
            ) from None
        self._library, self._cluster, self._own = distributed, None, ExitStack()
        self.where = execute.address or "this machine"
        try:
            if execute.address is None:
                folder = self._own.enter_context(run_folder("ae-dask-"))
                with dask.config.set(_LOCAL):
                    self._cluster = _local_cluster(distributed, workers, folder)
            self._client = distributed.Client(self._cluster or execute.address, timeout=_BEGIN_S, set_as_default=False)
        except (OSError, ValueError) as error:
            self._end_cluster()
            raise UnreachableError(
                f"the Dask cluster at {self.where} cannot be reached: {first_line(error)}; check its address "
                "(--address, execute.address), and that its scheduler runs"
            ) from None
        self.alive = True
        self._done = distributed.as_completed(loop=self._client.loop)
        self._run, self._number = uuid4().hex[:12], 0
        self._asked_for, self.at_hand = execute.workers, _AT_HAND * workers
        self._alone_since: float | None = None

    def greet(
        self,
        question: Callable[[], str | None],
        *,
        on_gpu: bool = False,  # noqa: ARG002 (a worker without one says so)
    ) -> Sequence[str | None]:
        """See `Engine`. From now on as many jobs are sent as its workers have threads, and as many again."""
        try:
            self._client.wait_for_workers(1, timeout=_BEGIN_S)
            answers = self._client.run(question, on_error="return")
        except TimeoutError:
            raise self._no_workers() from None
        except (OSError, RuntimeError) as error:
            raise self._away(error) from None
        for place, answer in answers.items():
            if isinstance(answer, BaseException):
                what = f"{type(answer).__name__}: {first_line(answer)}"
                raise WorkerError(f"the worker at {place} cannot answer ({what}); install the same ae-pipeline there")
        threads = sum(self._client.nthreads().values())
        if self._cluster is None:
            wanted = self._asked_for or threads
            self.at_hand = wanted if wanted < threads else _AT_HAND * threads
        return list(answers.values())

    def submit(self, job: Callable[[Any], Any], item: Any) -> Any:
        """See `Engine`."""
        self._number += 1
        key = f"ae-pipeline-{self._run}-{self._number}"
        future = self._client.submit(job, item, key=key, pure=False, retries=0)
        self._done.add(future)
        return future

    def wait(self, tickets: Collection[Any]) -> Iterable[Any]:  # noqa: ARG002 (all that were sent)
        """See `Engine`."""
        asked = time.monotonic()
        while not self._done.has_ready():
            time.sleep(_LOOK_S)
            if time.monotonic() - asked > _ASK_S:
                asked = time.monotonic()
                self._refuse_alone(asked)
        return list(self._done.next_batch(block=False))

    def _refuse_alone(self, now: float) -> None:
        """Raise WorkerError where nobody has been there to work for a while, or the scheduler is away."""
        try:
            there = self._client.nthreads()
        except (OSError, RuntimeError) as error:
            raise self._away(error) from None
        self._alone_since = None if there else self._alone_since or now
        if self._alone_since is not None and now - self._alone_since > _ALONE_S:
            raise self._no_workers()

    def result(self, ticket: Any) -> Any:
        """See `Engine`."""
        from concurrent.futures import CancelledError

        try:
            return ticket.result()
        except self._library.KilledWorker as lost:
            raise LostError(f"worker {lost.last_worker.address} on Dask") from None
        except (CancelledError, self._library.client.FutureCancelledError) as error:
            raise self._away(error) from None
        finally:
            ticket.release()

    def abandon(self, tickets: Collection[Any]) -> None:
        """End a cluster of ours. On another one, cancel what waits, and wait for what has begun: it cannot be ended."""
        if self._cluster is not None:
            self.close()
            return
        self._done = self._library.as_completed(loop=self._client.loop)  # the old one tells of what is cancelled
        try:
            self._client.cancel(list(tickets), force=True)
            while any(self._client.run(_in_work, f"ae-pipeline-{self._run}-").values()):
                time.sleep(_ASK_S / 10)
        except (OSError, RuntimeError, TimeoutError):
            self.close()

    def close(self) -> None:
        """See `Engine`."""
        self.alive = False
        self._client.close(timeout=_BEGIN_S)
        self._end_cluster()

    def _end_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        self._own.close()

    def _no_workers(self) -> WorkerError:
        return WorkerError(
            f"the Dask cluster at {self.where} has no workers; start some, then run the same command again"
        )

    def _away(self, error: BaseException) -> UnreachableError:
        return UnreachableError(
            f"the scheduler of the Dask cluster at {self.where} is away ({first_line(error)}); start it, then run the "
            "same command again: what was finished is kept"
        )


def _local_cluster(distributed: Any, workers: int, folder: Path) -> Any:
    """Processes of one thread on this machine, for nobody else."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        security=True,
        memory_limit=None,
        local_directory=str(folder),
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL,
    )


def _in_work(prefix: str, dask_worker: Any = None) -> int:
    """On a worker: how many jobs whose names begin so it is at work on. Dask gives it `dask_worker`."""
    return sum(str(task.key).startswith(prefix) for task in dask_worker.state.executing)
