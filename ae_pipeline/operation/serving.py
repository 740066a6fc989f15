"""`ae-pipeline serve`: Prefect's server, MLflow's pages and a worker for all deployments, in one process tree.

Starts the tools' own commands and nothing else: the deployments are those of prefect.yaml, as in production.
`ae-pipeline worker` and `recover` are here, too. The work on Prefect's records is done by flows/recovery.py in a
process of its own: the package knows no Prefect.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ae_pipeline.errors import ServeError, without_secrets
from ae_pipeline.files import make_folder

if TYPE_CHECKING:
    from ae_pipeline.params import Params

POOL = "ae-pipeline"
_PREFECT = [sys.executable, "-m", "prefect"]
_PR_SET_PDEATHSIG = 1
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_LAST_BYTES = 64 << 10  # of a log, which may have grown for months


@dataclass(frozen=True)
class Child:
    """A process that runs as long as we do."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ServeError if it ended."""
        if self.process.poll() is not None:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _LAST_BYTES))
                last = _last_line(log.read().decode("utf-8", errors="replace"))
            raise ServeError(f"{self.name} ended with code {self.process.returncode}: {last} (see {self.log})")

    def wait_for(self, url: str) -> None:
        """Return when it answers there. Raises ServeError."""
        end = time.monotonic() + _START_SECONDS
        while not _answers(url):
            self.check()
            if time.monotonic() > end:
                raise ServeError(f"{self.name} did not answer at {url} within {_START_SECONDS:.0f} s; see {self.log}")
            time.sleep(0.3)


def serve(params: "Params", root: Path, *, prefect_port: int, mlflow_port: int) -> None:
    """Serve until SIGINT or SIGTERM; then end every process that was started here. Raises ServeError."""
    if not (root / "prefect.yaml").exists():
        raise ServeError(f"no prefect.yaml in {root.resolve()}; run this in the folder of the pipeline")
    home = Path(os.environ.get("PREFECT_HOME") or root.resolve() / ".prefect")
    logs = home / "logs"
    make_folder(logs)
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_CLI_PROMPT": "false",
        # What Prefect's server answers while its database restarts; a flow run asks again then.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": os.environ.get("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    family = _Family(home, logs, environment)
    with ExitStack() as stack:
        stack.enter_context(_until_stopped())
        stack.callback(family.stop)
        given = _given_prefect()  # before anything is started
        environment["AE_MLFLOW_URL"] = family.mlflow(params, root, mlflow_port)
        environment["PREFECT_API_URL"] = given or family.prefect(prefect_port)
        _run([*_PREFECT, "work-pool", "create", POOL, "--type", "process", "--overwrite"], environment, root)
        _run([*_PREFECT, "deploy", "--all"], environment, root)
        # It first puts right what a power cut left; worker.log says what that was.
        family.start("worker", [sys.executable, "-m", "ae_pipeline", "worker"], root, {})
        print(f"Prefect  {without_secrets(environment['PREFECT_API_URL']).removesuffix('/api')}")
        print(f"MLflow   {without_secrets(environment['AE_MLFLOW_URL'])}")
        print(f"logs     {logs}\nCtrl-C ends all of it", flush=True)
        while True:
            for child in family.children:
                child.check()
            time.sleep(1)


@dataclass(frozen=True)
class _Family:
    """The processes that were started here, and what they have in common."""

    home: Path
    logs: Path
    environment: dict[str, str]
    children: list[Child] = field(default_factory=list)

    def prefect(self, port: int) -> str:
        """The API's address: that of a server which answers at the port already, or of one that is started."""
        pages = f"http://127.0.0.1:{port}"
        if not _answers(f"{pages}/api/health"):
            _check_free(port, "--prefect-port")
            command = [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
            own = {
                "PREFECT_API_URL": f"{pages}/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                # By default any page in a browser here may use the API, and so run code on the worker.
                "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": pages,
            }
            self.start("Prefect", command, self.home, own).wait_for(f"{pages}/api/health")
        return f"{pages}/api"

    def mlflow(self, params: "Params", root: Path, port: int) -> str:
        """The address of MLflow's pages, which are started for the local store only."""
        from ae_pipeline.operation.tracking.connection import tracking_uri, ui_command  # Arrow: a worker needs it not

        uri = tracking_uri(params, root)
        if uri.startswith("http"):
            return uri
        pages = f"http://127.0.0.1:{port}"
        if not _answers(f"{pages}/health"):
            _check_free(port, "--mlflow-port")
            command, own = ui_command(params, root, port)
            self.start("MLflow", command, root, own).wait_for(f"{pages}/health")
        return pages

    def start(self, name: str, command: list[str], folder: Path, own: dict[str, str]) -> Child:
        """Give it a session of its own: Ctrl-C in the terminal reaches us alone, and we end the children in order."""
        log = self.logs / f"{name.lower()}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**self.environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_end_with_parent, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        self.children.append(Child(name, process, log))
        return self.children[-1]

    def stop(self) -> None:
        """The worker first, so that its flow runs can still report; the servers after it."""
        for process in (child.process for child in reversed(self.children)):
            end = time.monotonic() + _STOP_SECONDS
            while process.poll() is None and time.monotonic() < end:
                # Once more every few seconds: a worker that is waiting for its flow runs ends at the second signal.
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _given_prefect() -> str:
    """The address that is set for Prefect's API, where it answers; "" if none is. Raises ServeError."""
    given = os.environ.get("PREFECT_API_URL", "")
    if given and not _answers(f"{given}/health"):
        shown = without_secrets(given)
        raise ServeError(f"PREFECT_API_URL is {shown}, but no Prefect server answers there; start it, or unset it")
    return given


def _end_with_parent(parent: int) -> None:
    """The child asks, before it becomes the command, for SIGTERM when we die, also by kill -9 (man 2 prctl)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked for the signal
        os._exit(1)


def _run(command: list[str], environment: dict[str, str], folder: Path) -> None:
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = _last_line(done.stderr.strip() or done.stdout)
        raise ServeError(f"`prefect {' '.join(command[3:])}` failed: {said}")


def _last_line(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")


def _check_free(port: int, option: str) -> None:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServeError(f"port {port} cannot be used: {error.strerror}; choose another with {option}") from None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (an address of ours)
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block; both are the way to end it, not a mistake."""
    # SIGINT as well: a shell starts what it puts into the background with it ignored.
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def recover(root: Path) -> None:
    """Have Prefect close the runs that were killed here, and free the slots that nobody holds. Raises ServeError."""
    if not (root / "flows").is_dir() or not (root / "prefect.yaml").exists():
        raise ServeError(f"no flows/ and prefect.yaml in {root.resolve()}; run this in the folder of the pipeline")
    command = [sys.executable, "-m", "flows.recovery"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        raise ServeError(_last_line(done.stdout).removeprefix("error: "))
    print("\n".join(lines), end="\n" if lines else "", flush=True)


def start_worker(root: Path) -> None:
    """Recover, then become Prefect's worker. Raises ServeError; does not return."""
    recover(root)
    name = f"{socket.gethostname()}:{os.getpid()}"
    command = [*_PREFECT, "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    os.chdir(root)
    os.execv(command[0], command)  # noqa: S606 (systemd and `serve` signal this process)


def process_of_worker(name: str) -> tuple[str, int] | None:
    """Host and process of a worker by its name, which stands on every run that it takes, from the first moment.

    None for one that was started otherwise than by `start_worker`.
    """
    host, _, pid = name.rpartition(":")
    return (host, int(pid)) if host and pid.isdigit() else None
