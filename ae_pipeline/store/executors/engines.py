"""Engines of other processes: opened for a run, or kept for several, and asked before there is work for them.

with kept(params.execute):             # a cluster that starts here starts once
    verify_store(...)
    verify_deep(...)
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ae_pipeline.errors import WorkerError
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors.greeting import Greeting
from ae_pipeline.store.executors.in_flight import Engine

# Settings whose engine is kept, and that engine once it was needed.
_kept: dict[ExecuteParams, Engine | None] = {}


@contextmanager
def kept(execute: ExecuteParams) -> Iterator[None]:
    """In the block, runs with these settings share their workers, which are started for the first and end with it."""
    if execute in _kept or not execute.by_processes:
        yield
        return
    _kept[execute] = None
    try:
        yield
    finally:
        engine = _kept.pop(execute)
        if engine is not None and engine.alive:
            engine.close()


@contextmanager
def engine_for(execute: ExecuteParams, workers: int) -> Iterator[Engine]:
    """An engine for one run, of so many workers where they are started here."""
    engine = _kept.get(execute)
    if engine is None or not engine.alive:
        engine = _open(execute, workers)
    if execute in _kept:
        _kept[execute] = engine
    try:
        yield engine
    finally:
        if execute not in _kept and engine.alive:
            engine.close()


def is_kept(execute: ExecuteParams) -> bool:
    """Whether other runs use the same workers, whose number must not be that of one run's shards."""
    return execute in _kept


def refuse_unlike(engine: Engine, greeting: Greeting) -> None:
    """Raise WorkerError unless every worker is as it has to be."""
    on_gpu = greeting.codec is not None and greeting.codec.device.startswith("cuda")
    problems = [problem for problem in engine.greet(greeting.problem, on_gpu=on_gpu) if problem]
    if problems:
        others = f" (and {len(problems) - 1} more are not as they have to be)" if len(problems) > 1 else ""
        raise WorkerError(f"{problems[0]}{others}; nothing was written")


def _open(execute: ExecuteParams, workers: int) -> Engine:
    """The engine of these settings; its library is loaded here."""
    if execute.name == "ray":
        from ae_pipeline.store.executors.on_ray import OnRay

        return OnRay(execute, workers)
    if execute.name == "dask":
        from ae_pipeline.store.executors.on_dask import OnDask

        return OnDask(execute, workers)
    from ae_pipeline.store.executors.process import Processes

    return Processes(workers)
