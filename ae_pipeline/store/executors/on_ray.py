"""Jobs on a Ray cluster: one task for each shard, a bounded number of them out at a time.

Without an address a cluster is started on this machine: on loopback, without dashboard and telemetry. Its token is in a
file that only this user can read, in the temporary folder of the run, which goes with it.
"""

import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ae_pipeline.errors import ConfigError, UnreachableError, WorkerError, first_line
from ae_pipeline.files import run_folder
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors.in_flight import LostError

# Tasks that are sent for each CPU of the cluster: the one in work and the next.
_AT_HAND = 2
_ASK_S, _BEGIN_S = 5.0, 60.0
_KNOCK_S = 10.0
# How long a cluster may have no CPU.
_ALONE_S = 60.0
# What goes through Ray's shared memory are entries of manifests.
_OBJECTS_BYTES = 80 << 20
# Ray makes sockets in there, whose paths may have 107 bytes with what it adds.
_LONGEST_FOLDER, _PREFIX = 20, "ae-ray-"
# Tasks that share a GPU: while one computes, others read, copy, code and write.
_GPU, _GPU_SHARE = "GPU", 0.25
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without clusters of several machines, all of Ray's processes listen on loopback alone; macOS has it so.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class OnRay:
    """See `Engine`."""

    def __init__(self, execute: ExecuteParams, workers: int):
        self._own = ExitStack()
        self._folder: Path | None = None
        self._before: dict[str, str | None] = {}
        self.where = execute.address or "this machine"
        if execute.address is None:
            self._prepare_own()
        else:
            _refuse_silent(execute.address)
        try:
            self._ray = _library()
            read_environment_again()
            options = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
            if execute.address is None:
                options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECTS_BYTES}
                assert self._folder is not None
                options |= {"_temp_dir": str(self._folder / "ray")}  # Ray lets everyone write to it
            with _own_signals():
                self._ray.init(execute.address or "local", **options)
        except ConfigError:
            self._forget_own()
            raise
        except Exception as error:  # ConnectionError, RuntimeError, ValueError and its own
            self._forget_own()
            raise UnreachableError(
                f"the Ray cluster at {self.where} cannot be used: {first_line(error)}; check its address (--address, "
                "execute.address), that it runs, and that it has the same versions of Ray and Python as here"
            ) from None
        self.alive = True
        self._function = self._ray.remote(num_cpus=1, max_retries=0)(_run)
        self._task = self._function
        self._asked_for, self.at_hand = execute.workers, _AT_HAND * workers
        self._is_own = execute.address is None
        self._alone_since: float | None = None
        self._needs = "CPU"

    def _prepare_own(self) -> None:
        """A folder of our own, the token in it, and the environment in which Ray's processes start."""
        self._folder = self._own.enter_context(_short_folder())
        token = self._folder / "token"
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        wanted = {**_ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": str(token)}
        self._before = {name: os.environ.get(name) for name in (*wanted, "RAY_AUTH_TOKEN", "RAY_ADDRESS")}
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ.pop("RAY_ADDRESS", None)
        os.environ.update(wanted)

    def _forget_own(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}
        self._own.close()

    def greet(self, question: Callable[[], str | None], *, on_gpu: bool = False) -> Sequence[str | None]:
        """See `Engine`. From now on as many tasks are sent as the cluster has CPUs, and as many again.

        On GPUs, of which each task asks for a share: as many as have room there.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._needs = _GPU if on_gpu else "CPU"
        share = _GPU_SHARE if on_gpu else 0
        self._task = self._function.options(num_gpus=share)
        nodes = self._nodes()
        if not nodes:
            raise self._none_there()
        answers = []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = self._function.options(num_cpus=0, num_gpus=share, scheduling_strategy=there)
            answers.append((node["NodeManagerAddress"], task.remote(_call, question)))
        found = []
        for place, answer in answers:
            try:
                found.append(self._ray.get(answer, timeout=_BEGIN_S))
            except Exception as error:  # what a worker lacks has many names
                what = f"{type(error).__name__}: {_last_line(error)}"
                raise WorkerError(
                    f"the node {place} cannot answer ({what}); install the same ae-pipeline there"
                ) from None
        room = int(sum(_room(node["Resources"], on_gpu) for node in nodes))
        if not self._is_own:
            wanted = self._asked_for or room
            self.at_hand = wanted if wanted < room else _AT_HAND * room
        return found

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that can take tasks."""
        return [
            node
            for node in self._ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU") and node["Resources"].get(self._needs)
        ]

    def submit(self, job: Callable[[Any], Any], item: Any) -> Any:
        """See `Engine`."""
        return self._task.remote(job, item)

    def wait(self, tickets: Collection[Any]) -> Iterable[Any]:
        """See `Engine`."""
        out = list(tickets)
        while True:
            done, _ = self._ray.wait(out, num_returns=1, timeout=_ASK_S)
            if done:
                return self._ray.wait(out, num_returns=len(out), timeout=0)[0] or done
            self._refuse_alone(time.monotonic())

    def _refuse_alone(self, now: float) -> None:
        """Raise WorkerError where there has been nothing to work with for a while."""
        self._alone_since = None if self._nodes() else self._alone_since or now
        if self._alone_since is not None and now - self._alone_since > _ALONE_S:
            raise self._none_there()

    def result(self, ticket: Any) -> Any:
        """See `Engine`."""
        lost = self._ray.exceptions
        try:
            return self._ray.get(ticket)
        except lost.RayTaskError as error:
            raise error.cause from None
        except (lost.WorkerCrashedError, lost.NodeDiedError, lost.ObjectLostError, lost.OutOfMemoryError) as error:
            raise LostError(f"on Ray: {_last_line(error)}") from None
        except lost.RayError as error:
            raise UnreachableError(
                f"the Ray cluster at {self.where} is away ({_last_line(error)}); start it, then run the same command "
                "again: what was finished is kept"
            ) from None

    def abandon(self, tickets: Collection[Any]) -> None:
        """End a cluster of ours, or the processes that are at work on these. What they write has no final name yet."""
        if self._is_own:
            self.close()
            return
        out = list(tickets)
        for ticket in out:
            self._ray.cancel(ticket, force=True)
        if out:
            self._ray.wait(out, num_returns=len(out), timeout=_BEGIN_S)

    def close(self) -> None:
        """See `Engine`."""
        self.alive = False
        with _own_signals():
            self._ray.shutdown()
        self._forget_own()

    def _none_there(self) -> WorkerError:
        instead = ", or choose --device cpu" if self._needs == _GPU else ""
        return WorkerError(
            f"the Ray cluster at {self.where} has no {self._needs}s; start nodes that have{instead}, then run the same "
            "command again"
        )


def _room(resources: dict[str, float], on_gpu: bool) -> float:
    """How many tasks a node has room for."""
    return min(resources["CPU"], resources[_GPU] // _GPU_SHARE) if on_gpu else resources["CPU"]


def _run(job: Callable[[Any], Any], item: Any) -> Any:
    """What a task is."""
    return job(item)


def _call(question: Callable[[], str | None]) -> str | None:
    return question()


def _library() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"--executor ray needs the extra `ray` ({first_line(error)}): pip install 'ae-pipeline[ray]'; or take "
            "--executor process"
        ) from None
    return ray


def _refuse_silent(address: str) -> None:
    """Raise UnreachableError where nothing listens: Ray would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except (OSError, ValueError) as error:
        raise UnreachableError(
            f"the Ray cluster at {address} cannot be reached: {first_line(error)}; give the address of its head as "
            "host:port (--address, execute.address), and check that it runs"
        ) from None


def read_environment_again() -> None:
    """Have Ray look at the token that is set now: it keeps the one of an earlier cluster of this process."""
    raylet: Any = sys.modules.get("ray._raylet")
    with suppress(AttributeError):  # these are its own affair
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _short_folder() -> AbstractContextManager[Path]:
    inside = Path(tempfile.gettempdir())
    return run_folder(_PREFIX, inside if len(str(inside)) <= _LONGEST_FOLDER else Path("/tmp"))  # noqa: S108 (mkdtemp)


def _last_line(error: BaseException) -> str:
    """Ray's own texts begin with the traceback and end with what it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _own_signals() -> Iterator[None]:
    """Handlers of signals are as they were after the block: Ray puts its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
