"""Jobs sent to other processes, a bounded number at a time. Whoever loses a worker sends its shard again.

for place, result in send_all(engine, job, items, retries=2): ...
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ae_pipeline.errors import WorkerError, warn
from ae_pipeline.store.executors.attempts import Failed

# Losses in a row, without one result, that end a run (and the retries of a shard): it is not the shards then.
_MOST_LOSSES = 10


class LostError(Exception):
    """A worker is gone, and with it the shard that it had; the text says how. `in_work`: whether it had begun it."""

    def __init__(self, how: str, *, in_work: bool = True):
        super().__init__(how)
        self.in_work = in_work


class Engine(Protocol):
    """Workers in processes of their own, here or elsewhere."""

    at_hand: int
    """Jobs that are sent before the first of them has come back."""
    alive: bool
    """Whether it can still be used."""

    def greet(self, question: Callable[[], str | None], *, on_gpu: bool = False) -> Sequence[str | None]:
        """Have every worker that there is now answer; if `on_gpu`, those that have one, and no others get jobs.

        Raises WorkerError if there is none, or one cannot answer.
        """
        ...

    def submit(self, job: Callable[[Any], Any], item: Any) -> Any:
        """Send a job; what is returned stands for its result."""
        ...

    def wait(self, tickets: Collection[Any]) -> Iterable[Any]:
        """Wait until at least one of some jobs is finished; all that are. Raises WorkerError where none will be."""
        ...

    def result(self, ticket: Any) -> Any:
        """What a finished job returned; raises what it raised, or LostError. It is forgotten then."""
        ...

    def abandon(self, tickets: Collection[Any]) -> None:
        """Have no job run any more; some that were sent are still out."""
        ...

    def close(self) -> None:
        """End all workers that were started here."""
        ...


@dataclass
class _Sent:
    place: int
    item: Any
    losses: list[str] = field(default_factory=list)


def send_all(
    engine: Engine, job: Callable[[Any], Any], items: Iterable[Any], retries: int
) -> Generator[tuple[int, Any], None, None]:
    """The result of each item with its place, as they come; Failed for one whose worker was lost too often."""
    left = (_Sent(place, item) for place, item in enumerate(items))
    again: deque[_Sent] = deque()
    out: dict[Any, _Sent] = {}
    in_a_row = 0
    try:
        while True:
            while len(out) < engine.at_hand and (sent := again.popleft() if again else next(left, None)):
                out[engine.submit(job, sent.item)] = sent
            if not out:
                return
            for ticket in engine.wait(out.keys()):
                sent = out.pop(ticket)
                try:
                    result = engine.result(ticket)
                except LostError as lost:
                    in_a_row += lost.in_work
                    if in_a_row > _MOST_LOSSES + retries:
                        raise _lost_again_and_again(in_a_row, lost) from None
                    if not _is_lost(sent, lost, retries):
                        again.append(sent)
                        continue
                    result = Failed(_lost_too_often(sent))
                else:
                    in_a_row = 0
                yield sent.place, result
    except BaseException:
        engine.abandon(list(out))
        raise


def _is_lost(sent: _Sent, lost: LostError, retries: int) -> bool:
    """Note a loss, and say whether it was one too many."""
    if not lost.in_work:  # it waited behind another
        return False
    sent.losses.append(str(lost))
    if len(sent.losses) > retries:
        return True
    warn([f"a worker was lost ({lost}); its shard is sent to another one"])
    return False


def _lost_too_often(sent: _Sent) -> WorkerError:
    return WorkerError(
        f"its worker was lost {len(sent.losses)} time(s), last: {sent.losses[-1]}",
        advice="look whether memory was lacking (fewer --workers need less), then run the same command again",
    )


def _lost_again_and_again(times: int, lost: LostError) -> WorkerError:
    return WorkerError(
        f"{times} workers were lost in a row, and none finished a shard in between; the last: {lost}",
        advice="look at the machines and their memory, then run the same command again: what was finished is kept",
    )
