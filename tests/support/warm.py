"""Commands as people run them, `python -m ae_pipeline ...` and `dvc ...`, in processes with the libraries loaded.

    subprocess.run([sys.executable, "-m", "ae_pipeline", ...], env={**os.environ, **warm.environment()})

Importing torch, MLflow and DVC takes seconds of each command, and the tests run hundreds. One process, the nursery,
imports them, and nothing of ours, once for a test run. A Python that starts with `environment()` looks at its own
command first (`hand_over`, called by the sitecustomize of guarding.py). If it is one of those, or a script given with
`-c`, the nursery forks: the child takes the command's folder, environment, arguments and open files, imports the
package from where the command would, and ends as any program does. The Python that started waits, passes signals on,
and ends as the child did; if it is killed, so is the child.

A command runs from nothing instead if something differs that Python or a library reads once, at its start; for
commands with other such values there are nurseries of their own. Tests that kill processes, or look at them, give
`COLD` to the first one: it and all that it starts then run from nothing.

Run as a program, this file is the nursery.
"""

import contextlib
import fcntl
import functools
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VARIABLE = "AE_TEST_WARM"
"""Where the nursery listens; empty for none."""
COLD = {VARIABLE: ""}
FLOWS = ("encode_new", "evaluate_and_promote", "monitor", "overview", "rebuild", "recovery")
LIBRARIES = (
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "alembic.command",
    "dvc.cli.parser",
    "dvc.repo.experiments",
    "dvc.repo.reproduce",
    "dvc.repo.status",
    "dvc.scm",
    "filelock",
    "git",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "networkx",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "ruamel.yaml",
    "safetensors.torch",
    "torch",
    "torch._dynamo",  # every optimiser of torch does
    "typer",
)
_PROGRAMS = ("ae_pipeline", "dvc", "ae-pipeline", "prefect", "prefect.engine", *(f"flows.{name}" for name in FLOWS))
# They look after processes, and at those that started them.
_ALONE = ("serve", "server", "worker", "mlflow-ui")
# What Python and libraries read once; the child takes the exceptions from the command.
_READ_AT_START = (
    "PYTHON",
    "OMP_",
    "MKL_",
    "GOMP_",
    "CUDA",
    "CUBLAS",
    "LANG",
    "LC_",
    "TZ",
    "MPL",
    "LD_",
)
_TAKEN = ("PYTHONPATH", "PYTHONUNBUFFERED")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def environment(python: str = sys.executable, **more: str) -> dict[str, str]:
    """What commands of this Python are started with so that a nursery runs them, beside a guard's environment.

    `more` are variables that the commands have, too. Whoever asks first in a test run starts the nursery.
    """
    import hashlib
    from pathlib import Path

    from filelock import FileLock
    from ready import SHARED

    # The path of a socket has about a hundred bytes.
    kind = hashlib.sha256(json.dumps([python, more]).encode()).hexdigest()[:8]
    folder = Path(os.environ[SHARED], f"nursery-{kind}")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _start_nursery(python, folder, more)
    return {**more, VARIABLE: str(folder / "socket")}


def _start_nursery(python: str, folder: "Path", more: dict[str, str]) -> None:
    import subprocess

    from guarding import Guard

    folder.mkdir()
    (folder / "guard").mkdir()
    variables = {**os.environ, **Guard(folder / "guard").environment, **more, **COLD}
    variables["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    # Its own output goes into a pipe, like that of most commands: Python treats files in another way.
    unread, output = os.pipe()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(64)
        subprocess.run(
            [python, __file__, str(listening.fileno()), str(folder)],
            cwd=folder, env=variables, start_new_session=True, pass_fds=[listening.fileno(), unread],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True,
        )  # fmt: skip
    os.close(unread)
    os.close(output)


def _started(variables: Any) -> list[Any]:
    """What must be equal in the nursery and in a command."""
    read = {name: value for name, value in variables.items() if name.startswith(_READ_AT_START) and name not in _TAKEN}
    return [sys.prefix, read]


def hand_over() -> None:
    """Have the nursery run this process's command, and end with it; returns if it is none for it."""
    address = os.environ.get(VARIABLE)
    program = _program(sys.orig_argv)
    if not address or program is None or any(map(os.isatty, range(3))):
        return
    with open(os.path.join(os.path.dirname(address), "started")) as file:
        if json.load(file) != json.loads(json.dumps(_started(os.environ))):
            return
    nursery = socket.socket(socket.AF_UNIX)
    nursery.connect(address)
    alive, _open_while_alive = os.pipe()
    task = json.dumps(
        {
            "program": program,
            "arguments": sys.orig_argv,
            "path": sys.path,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "mask": _mask(),
        }
    ).encode()
    child: list[int] = []
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: child and os.kill(child[0], number))
    socket.send_fds(nursery, [len(task).to_bytes(8)], [0, 1, 2, alive])
    nursery.sendall(task)
    with nursery.makefile() as answers:
        child.append(int(answers.readline()))
        code = int(answers.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _program(arguments: list[str]) -> list[str] | None:
    """`["-c", CODE]`, `["-m", MODULE]` or `[SCRIPT]` of a command for the nursery."""
    program = arguments[1:3] if arguments[1:2] in (["-c"], ["-m"]) else arguments[1:2]
    command = arguments[1 + len(program) :]
    if not program or (command and command[0] in _ALONE):
        return None
    if program[0] == "-c":
        return program
    folder, name = os.path.split(program[-1])
    place = "" if len(program) == 2 else os.path.join(sys.prefix, "bin")
    return program if folder == place and name in _PROGRAMS else None


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _serve(listening: socket.socket, folder: str) -> dict[str, Any]:
    """Fork for every command until `folder`, that of the test run, is gone; returns in children, with their command."""
    import selectors

    running = selectors.DefaultSelector()
    running.register(listening, selectors.EVENT_READ)
    while os.path.isdir(folder):
        for key, _ in running.select(timeout=1):
            if key.fileobj is listening:
                connection, _ = listening.accept()
                task, files = _receive(connection)
                pid = os.fork()
                if pid == 0:
                    _take(files)
                    return task
                for number in files:
                    os.close(number)
                _say(connection, pid)
                running.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
            else:
                running.unregister(key.fileobj)
                os.close(key.fd)
                pid, connection = key.data
                _say(connection, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                connection.close()
    sys.exit()


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, files, _, _ = socket.recv_fds(connection, 8, 4)
    left, pieces = int.from_bytes(size), []
    while left:
        pieces.append(connection.recv(left))
        assert pieces[-1], "the command ended before it had said all"
        left -= len(pieces[-1])
    return json.loads(b"".join(pieces)), list(files)


def _say(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        connection.sendall(f"{number}\n".encode())


def _take(files: list[int]) -> None:
    """Take the command's open files, and be killed when the Python that waits for this process is."""
    os.setsid()
    *opened, alive = files
    for number, file in enumerate(opened):
        os.dup2(file, number)
        os.close(file)
    fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([alive], [], [], 0)[0]:  # it was killed already
        os._exit(1)


def _become(task: dict[str, Any]) -> None:
    """Be the process that the command would be, and run it."""
    import importlib
    import random
    import runpy
    import types

    import numpy as np

    os.umask(task["mask"])
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    sys.orig_argv = task["arguments"]
    sys.path[:] = task["path"]
    importlib.invalidate_caches()
    random.seed()
    np.random.seed()  # noqa: NPY002 (what a program that uses it would begin with)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=unbuffered)
    _note_the_first_import_of_mlflow()
    how, *rest = task["program"]
    sys.argv = task["arguments"][1 + len(rest) :]
    if how == "-c":
        sys.argv[0] = how
        sys.path.insert(0, "")
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    elif how == "-m":
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(how))
        runpy.run_path(how, run_name="__main__")


def _note_the_first_import_of_mlflow() -> None:
    """What guarding.py notes when MLflow is loaded: here it is, so that the program's own import counts."""
    import builtins

    original, sitecustomize = builtins.__import__, sys.modules["sitecustomize"]

    def watch(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "mlflow":
            builtins.__import__ = original
            sitecustomize.note_switch()
        return original(name, *arguments, **options)

    builtins.__import__ = watch


def end_by(program: "Callable[[], None]") -> None:
    """Run it, and end as Python does, but for taking every library's objects apart, which takes a third of a second."""
    import atexit
    import threading

    code = 0
    try:
        program()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _main() -> None:
    from importlib import import_module

    folder = sys.argv[2]
    with open(os.path.join(folder, "started"), "w") as file:
        json.dump(_started(os.environ), file)
    if os.fork():  # whoever started it need not wait
        os._exit(0)
    listening = socket.socket(fileno=int(sys.argv[1]))
    for library in LIBRARIES:
        import_module(library)
    gc.collect()
    gc.freeze()
    task = _serve(listening, folder)
    listening.close()
    end_by(functools.partial(_become, task))


if __name__ == "__main__":
    _main()
