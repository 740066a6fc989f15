"""Jobs in processes of this machine, each with one thread: nothing has to be installed for it.

A pool of one process stands for each worker, so that when one is lost it is known which shard it had. Processes are
started anew, not forked: a fork of a process with threads can hang.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from ae_pipeline.errors import WorkerError
from ae_pipeline.store.executors.in_flight import LostError

# Jobs that are sent to each worker: the one in work and the next.
_AT_HAND = 2
_PATIENCE_S = 5.0


class Processes:
    """See `Engine`. Workers are started when there is work for them."""

    def __init__(self, workers: int):
        self.at_hand = _AT_HAND * workers
        self.alive = True
        self._seats: list[_Seat | None] = [None] * workers
        self._seat_of: dict[Future[Any], _Seat] = {}

    def greet(
        self,
        question: Callable[[], str | None],
        *,
        on_gpu: bool = False,  # noqa: ARG002 (a worker without one says so)
    ) -> Sequence[str | None]:
        """See `Engine`."""
        answers = [self._seat(number).pool.submit(question) for number in range(len(self._seats))]
        try:
            return [answer.result() for answer in answers]
        except BrokenProcessPool:
            ended = ", ".join(seat.how_it_ended() for seat in self._seats if seat and seat.has_ended())
            self.close()
            raise WorkerError(
                f"a worker did not begin: {ended or 'its process is gone'}",
                advice="give it more memory (execute.memory, `ulimit -v`), or look above for what it said",
            ) from None
        except BaseException:
            self.close()
            raise

    def submit(self, job: Callable[[Any], Any], item: Any) -> Future[Any]:
        """See `Engine`."""
        number = min(range(len(self._seats)), key=lambda one: len(seat.sent) if (seat := self._seats[one]) else 0)
        for _ in range(_AT_HAND):
            seat = self._seat(number)
            try:
                future = seat.pool.submit(job, item)
            except BrokenProcessPool:  # its process was lost while it had nothing to do
                self._seats[number] = None
            else:
                break
        else:
            raise WorkerError(f"a worker is lost as often as it is started: {seat.how_it_ended()}")
        seat.sent.append(future)
        self._seat_of[future] = seat
        return future

    def _seat(self, number: int) -> "_Seat":
        seat = self._seats[number]
        if seat is None or seat.lost is not None:
            seat = self._seats[number] = _Seat()
        return seat

    def wait(self, tickets: Collection[Future[Any]]) -> Iterable[Future[Any]]:
        """See `Engine`."""
        return wait(tickets, return_when=FIRST_COMPLETED).done

    def result(self, ticket: Future[Any]) -> Any:
        """See `Engine`."""
        seat = self._seat_of.pop(ticket)
        try:
            return ticket.result()
        except BrokenProcessPool:
            seat.lost = seat.lost or seat.sent[0]
            raise LostError(seat.how_it_ended(), in_work=seat.lost is ticket) from None
        finally:
            seat.sent.remove(ticket)

    def abandon(self, tickets: Collection[Future[Any]]) -> None:  # noqa: ARG002 (all end)
        """End all workers; the next job starts new ones. What they were writing has no final name yet."""
        seats = [seat for seat in self._seats if seat]
        self._seats = [None] * len(self._seats)
        self._seat_of.clear()
        for seat in seats:
            seat.process.terminate()
        for seat in seats:
            seat.pool.shutdown(wait=True, cancel_futures=True)
            seat.process.join(_PATIENCE_S)

    def close(self) -> None:
        """See `Engine`."""
        self.alive = False
        self.abandon(())


class _Seat:
    """One worker: its process, and what was sent to it and has not come back, in order."""

    def __init__(self) -> None:
        context = _Noting()
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
        self.sent: list[Future[Any]] = []
        self.lost: Future[Any] | None = None
        """The job that was in work when the process was lost."""
        with _started_alone():
            self.pool.submit(os.getpid)  # a pool starts its process for its first job
        (self.process,) = context.started

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return _exit_code(self.process) is not None

    def how_it_ended(self) -> str:
        """Its number, and what ended it, in words."""
        return f"process {self.process.pid} {_ending(self.process)}"


class _Noting(SpawnContext):
    """Starts processes anew, and notes them: a pool tells nobody which are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802 (its name)
        """Make a process that is not started yet."""
        self.started.append(process := SpawnProcess(*args, **options))
        return process


def _exit_code(process: BaseProcess) -> int | None:
    """What a process ended with, or None. Its pool waits in a thread, which for a moment alone knows the code."""
    end = time.monotonic() + _PATIENCE_S
    process.join(_PATIENCE_S)
    while process.exitcode is None and time.monotonic() < end:
        time.sleep(0.01)
    return process.exitcode


def _ending(process: BaseProcess) -> str:
    code = _exit_code(process)
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}" + (", as the system does when memory is lacking" if name == "SIGKILL" else "")


@contextmanager
def _started_alone() -> Iterator[None]:
    """A process that is started in the block gets no Ctrl-C, and does not run the program that starts it once more.

    Ctrl-C in a terminal reaches all processes: who started the run ends the others. What a Python child is told to
    import is the module that stands as `__main__`; jobs need nothing of it, and it may be a script without a guard.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Let this process end with the one that started it, also by kill -9: nobody else would tell it to."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
