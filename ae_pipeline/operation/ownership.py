"""Outputs have one owner: one runner at a time in a workspace, and no stage without the DVC that started it.

    with one_stage(root, "train"):
        ...  # what is written in here gets its final name only while the stage is still the owner

The locks are the operating system's, so they are free when their holder is dead. Beside each lock lies a file that
says who holds it: a line for people, and a line of JSON.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from ae_pipeline.errors import BusyError
from ae_pipeline.files import checked_before_naming, make_folder

RUNNER = "AE_PIPELINE_RUNNER"
"""The environment variable of what a flow starts: it names the flow's process, as `Process.text` does."""
REBUILD, STAGE, BENCH = "rebuild", "stage", "bench"
"""The locks: of whoever runs stages, a flow or a stage that was started by hand; of the stage itself; of the benchmark,
which is no stage of dvc.yaml and may run beside them."""
# Who inherits processes whose parent has died, beside process 1.
_INHERITORS = {"init", "systemd", "launchd", "tini", "docker-init", "dumb-init", "catatonit"}
_LOOK_SECONDS = 0.2
_CLEAR_SECONDS = 10.0


@dataclass(frozen=True)
class Process:
    """A process of this host; its number alone may be given to another one later."""

    pid: int
    created: float

    @classmethod
    def of(cls, process: psutil.Process) -> "Process":
        """Its number and when it began."""
        return cls(process.pid, process.create_time())

    @property
    def text(self) -> str:
        """The process as text, for an environment variable."""
        return f"{self.pid}:{self.created}"

    def living(self, within: float = 0.0) -> psutil.Process | None:
        """The process, unless it has ended. It may have begun so many seconds earlier or later than was noted."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) <= within and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(frozen=True)
class _Holder:
    """What the file beside a lock says."""

    words: str
    host: str = ""
    process: Process | None = None
    owners: tuple[Process, ...] = ()
    """Without these, the holder has nobody to work for: DVC, and the flow that started it."""

    @classmethod
    def read(cls, path: Path) -> "_Holder | None":
        """The holder that a file names; None: there is no such file. Its first line is kept whatever the second is."""
        try:
            words, _, rest = path.read_text(encoding="utf-8").partition("\n")
        except (FileNotFoundError, ValueError):
            return None
        try:
            return TypeAdapter(cls).validate_json(rest)
        except ValueError:
            return cls(words)

    @property
    def living(self) -> psutil.Process | None:
        """The holder, if it is a process of this host that has not ended."""
        return self.process.living() if self.process and self.host == socket.gethostname() else None

    def refusal(self, root: Path) -> BusyError:
        """The error for whoever wants the workspace, too."""
        advice = "Run it again when that one has ended"
        if self.process is not None:
            pid, living = self.process.pid, self.living
            elsewhere = "" if self.host == socket.gethostname() else f" on {self.host}"
            if living is not None and living.status() == psutil.STATUS_STOPPED:
                advice = f"That one is stopped: let it go on (`kill -CONT {pid}`), or end it (`kill -9 {pid}`)"
            else:
                advice += f", or end it (`kill {pid}`{elsewhere})"
        return BusyError(f"{root.resolve()} is being rebuilt by {self.words}; this run is refused. {advice}")


@contextmanager
def one_stage(root: Path, name: str, lock: str = STAGE) -> Iterator[None]:
    """Be the only stage at work in the workspace `root`, as long as the DVC that started this process lives.

    A stage that was started by hand belongs to nobody else and may outlive its terminal. An orphan, that is, a stage
    whose DVC is gone, is ended first. Raises BusyError if another stage, or a flow, is at work.
    """
    owners = _owners()
    words = f"stage `{name}`, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    with ExitStack() as stack:
        if lock == STAGE and not _runs_for_the_holder(root):
            stack.enter_context(hold(root, REBUILD, words, owners))
        holder = stack.enter_context(hold(root, lock, words, owners))

        def check() -> None:
            if any(owner.living() is None for owner in owners):
                raise BusyError(f"the DVC command that started stage `{name}` has ended, so nothing is written for it")
            if (now := _Holder.read(holder)) is not None and now.process != Process.of(psutil.Process()):
                raise BusyError(f"{root.resolve()} belongs to {now.words} now, so stage `{name}` writes nothing")

        check()
        if owners:
            threading.Thread(target=_end_with, args=(owners,), daemon=True).start()
        stack.enter_context(checked_before_naming(check))
        yield


@contextmanager
def hold(root: Path, lock: str, words: str, owners: tuple[Process, ...] = ()) -> Iterator[Path]:
    """Hold a lock of the workspace `root`; yields the file that says so. Raises BusyError that names the holder."""
    folder = _locks(root)
    make_folder(folder)
    holder = folder / f"{lock}.holder"
    held = FileLock(folder / f"{lock}.lock", timeout=0)
    try:
        held.acquire()
    except Timeout:
        found = _Holder.read(holder) or _Holder("another process")
        orphan = found.living if any(owner.living() is None for owner in found.owners) else None
        if orphan is None:
            raise found.refusal(root) from None
        _end(orphan, found)
        try:
            held.acquire(timeout=_CLEAR_SECONDS)
        except Timeout:
            raise (_Holder.read(holder) or found).refusal(root) from None
    own = _Holder(words, socket.gethostname(), Process.of(psutil.Process()), owners)
    try:
        holder.write_text(f"{words}\n{json.dumps(asdict(own))}\n", encoding="utf-8")
        yield holder
    finally:
        if _Holder.read(holder) == own:
            holder.unlink(missing_ok=True)
        held.release()


def at_work(root: Path) -> list[str]:
    """Who is at work in the workspace `root`, in words. Processes of this host that have ended are not."""
    found = [_Holder.read(_locks(root) / f"{lock}.holder") for lock in (REBUILD, STAGE, BENCH)]
    here = socket.gethostname()
    return [
        holder.words if holder.host == here else f"{holder.words}, on {holder.host}"
        for holder in found
        if holder is not None and (holder.living is not None or holder.host not in ("", here))
    ]


def _locks(root: Path) -> Path:
    return root / ".dvc" / "tmp" if (root / ".dvc").is_dir() else root / ".ae-pipeline"


def _runs_for_the_holder(root: Path) -> bool:
    """Whether this process was started, by way of DVC, by the flow that holds the workspace."""
    holder = _Holder.read(root / ".dvc" / "tmp" / f"{REBUILD}.holder")
    return holder is not None and holder.process is not None and holder.process.text == os.environ.get(RUNNER)


def _owners() -> tuple[Process, ...]:
    """Who must live for this stage to go on: the DVC that started it, a shell between, and the flow that started DVC.

    Raises BusyError if they ended before we could look.
    """
    owners: list[Process] = []
    if given := os.environ.get(RUNNER):
        pid, created = given.split(":")
        owners.append(Process(int(pid), float(created)))
    if "DVC_STAGE" in os.environ:
        try:
            parent = psutil.Process().parent()
            while parent is not None and parent.cmdline()[-2:-1] == ["-c"]:  # a shell that waits for us
                owners.append(Process.of(parent))
                parent = parent.parent()
            if parent is None or _inherits(parent):
                raise psutil.NoSuchProcess(0)
            owners.append(Process.of(parent))
        except psutil.NoSuchProcess:
            raise BusyError("the DVC command that started this stage has ended; run `dvc repro` again") from None
        except psutil.AccessDenied:  # another user's process: we are told when it ends, but not what it is
            owners.append(Process.of(psutil.Process(os.getppid())))
    return tuple(owners)


def _inherits(process: psutil.Process) -> bool:
    """Whether this is who takes over children whose parent has died. In a container, DVC itself may be process 1."""
    name = process.name()
    starts_stages = name.startswith("python") or any("dvc" in part for part in process.cmdline())
    return name in _INHERITORS or (process.pid == 1 and not starts_stages)


def _end_with(owners: tuple[Process, ...]) -> None:
    """End this process when an owner is gone; insist if it does not clear away in time. Runs in a thread."""
    while all(owner.living() for owner in owners):
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_CLEAR_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _end(orphan: psutil.Process, holder: _Holder) -> None:
    """End a stage that has nobody to work for. One that is stopped cannot end itself."""
    print(f"note: {holder.words}, was left behind by a DVC command that is gone; it is ended", flush=True)
    try:
        family = [orphan, *orphan.children(recursive=True)]
        stopped = orphan.status() == psutil.STATUS_STOPPED
        if not stopped:
            orphan.terminate()
        for one in psutil.wait_procs(family, timeout=0 if stopped else _CLEAR_SECONDS / 2)[1]:
            one.kill()
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        raise BusyError(
            f"{holder.words}, was left behind by a DVC command that is gone, and belongs to another user; end it "
            f"(`kill -9 {orphan.pid}`), and run this again"
        ) from None
