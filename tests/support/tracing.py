"""What a process changes on disk, as the kernel is asked for it: the steps of `killing.py`. Linux on x86-64.

    steps, code = watch(run, folder, lambda number, step: SIGKILL if number == 7 else None)

A seccomp filter in the forked child hands every system call that can change a file to this process (man 2 ptrace),
whoever makes it: Python, pyarrow's C++, a thread. `strace --inject` can do the same, but has to start the program anew.
Not seen: changes of times, owners and modes. What could not be seen (shared mappings, io_uring) is an error.
"""

import ctypes
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_TGKILL = 234
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

# Numbers of <linux/ptrace.h>, <linux/seccomp.h>, <sys/prctl.h>.
_TRACEME, _POKEUSER, _CONT, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 6, 7, 0x4200, 0x420E
_FORKS, _SECCOMP_STOPS, _KILL_WITH_TRACER, _EVENT_SECCOMP = 0x2 | 0x4 | 0x8, 0x80, 0x100000, 7
_ORIG_RAX, _RAX = 15 * 8, 10 * 8
_SET_SECCOMP, _NO_NEW_PRIVS, _FILTER = 22, 38, 2
_WALL = 0x40000000
_AT_FDCWD = -100
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# System call: what it is called here, and which arguments say where. `fd`: the descriptor; `path`: a path; `at`: a
# descriptor of a folder and a path in it. Two places: from and to.
_CALLS = {
    1: ("write", ["fd0"]), 18: ("write", ["fd0"]), 20: ("write", ["fd0"]), 296: ("write", ["fd0"]),
    328: ("write", ["fd0"]), 40: ("write", ["fd0"]), 275: ("write", ["fd2"]), 326: ("write", ["fd2"]),
    285: ("write", ["fd0"]), 77: ("truncate", ["fd0"]), 76: ("truncate", ["path0"]),
    74: ("fsync", ["fd0"]), 75: ("fsync", ["fd0"]),
    2: ("open", ["path0"]), 85: ("open", ["path0"]), 257: ("open", ["at0"]), 437: ("open", ["at0"]),
    82: ("rename", ["path0", "path1"]), 264: ("rename", ["at0", "at2"]), 316: ("rename", ["at0", "at2"]),
    86: ("link", ["path0", "path1"]), 265: ("link", ["at0", "at2"]),
    88: ("symlink", ["path1"]), 266: ("symlink", ["at1"]),
    87: ("unlink", ["path0"]), 263: ("unlink", ["at0"]), 84: ("rmdir", ["path0"]),
    83: ("mkdir", ["path0"]), 258: ("mkdir", ["at0"]),
    9: ("mmap", ["fd4"]), 425: ("io_uring", []),
}  # fmt: skip
_FLAGS = {2: 1, 257: 2}


@dataclass(frozen=True)
class Step:
    """One change; paths relative to the folder that is watched, process ids in names written as `PID`."""

    call: str
    path: str
    target: str | None = None
    places: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    """The paths as they are."""

    def __str__(self) -> str:
        return f"{self.call} {self.path}" + (f" -> {self.target}" if self.target else "")


# Called before a step happens, with its number; returns a signal for the process, a negative errno with which the step
# fails, or None.
OnStep = Callable[[int, Step], int | None]


def available() -> bool:
    """Whether processes can be watched here: a container may forbid it, and the numbers are those of x86-64."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return False
    try:
        return watch(lambda: None, Path("/"), lambda number, step: None, Path(os.devnull))[1] == 0
    except OSError:
        return False


def watch(run: Callable[[], None], folder: Path, on_step: OnStep, errors: Path | None = None) -> tuple[list[Step], int]:
    """Fork, call `run`, and report each change below `folder` before it happens; at last all of them and the exit code.

    The exit code is negative for a process that was ended by a signal. Standard error goes to the file `errors`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_watched(run, errors)
    folder = folder.resolve()
    steps: list[Step] = []
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        return [], os.waitstatus_to_exitcode(status)
    _ptrace(_SETOPTIONS, pid, 0, _FORKS | _SECCOMP_STOPS | _KILL_WITH_TRACER)
    _ptrace(_CONT, pid, 0, 0)
    known = {pid}
    while True:
        thread, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if thread == pid:
                return steps, os.waitstatus_to_exitcode(status)
            continue
        number, event = os.WSTOPSIG(status), status >> 16
        if event == _EVENT_SECCOMP:
            _at_call(thread, pid, folder, steps, on_step)
        # A new thread stops once, by SIGSTOP; any other signal, which may come before that, goes where it was sent.
        is_new = thread not in known and number == signal.SIGSTOP
        if is_new:
            known.add(thread)
        _ptrace(_CONT, thread, 0, 0 if event or is_new else number, may_be_gone=True)


def _at_call(thread: int, pid: int, folder: Path, steps: list[Step], on_step: OnStep) -> None:
    step = _step(thread, pid, folder)
    if step is None:
        return
    answer = on_step(len(steps), step)
    steps.append(step)
    if answer is not None and answer > 0:
        # To the main thread itself: as that one may be stopped here, the kernel would hand a signal of the process to
        # another thread, which on a busy machine gets it when the run has long ended.
        if _libc.syscall(_TGKILL, pid, pid, answer):
            raise OSError(ctypes.get_errno(), f"cannot send signal {answer}")
    elif answer is not None:  # call number -1 is none: the kernel goes on to the result
        _ptrace(_POKEUSER, thread, _ORIG_RAX, -1)
        _ptrace(_POKEUSER, thread, _RAX, answer)


def _step(thread: int, pid: int, folder: Path) -> Step | None:
    """The change that a thread is about to make below the folder."""
    info = ctypes.create_string_buffer(88)
    _ptrace(_GET_SYSCALL_INFO, thread, 88, ctypes.addressof(info))
    number, *arguments = struct.unpack_from("<7Q", info, 24)
    call, places = _CALLS[number]
    assert call != "io_uring", "io_uring writes without system calls"
    if number in _FLAGS and not arguments[_FLAGS[number]] & _WRITES:
        return None
    if call == "mmap" and not (arguments[3] & 1 and arguments[2] & 2 and ctypes.c_int(arguments[4]).value >= 0):
        return None
    paths = [_place(thread, place, arguments) for place in places]
    inside = [path for path in paths if path and (folder == path or folder in path.parents)]
    if not inside:
        return None
    assert call != "mmap", f"{inside[0]} is written through memory"
    names = [str(path.relative_to(folder)).replace(f".{pid}.", ".PID.") for path in inside]
    return Step(call, names[0], names[1] if len(names) > 1 else None, tuple(inside))


def _place(thread: int, place: str, arguments: list[int]) -> Path | None:
    kind, first = place[:-1], int(place[-1])
    if kind == "fd":
        return _descriptor(thread, arguments[first])
    text = _text(thread, arguments[first + (kind == "at")])
    folder = _AT_FDCWD if kind == "path" else ctypes.c_int(arguments[first]).value
    base = Path(f"/proc/{thread}/cwd").readlink() if folder == _AT_FDCWD else _descriptor(thread, folder)
    return Path(os.path.normpath((base or Path("/")) / text))


def _descriptor(thread: int, number: int) -> Path | None:
    try:
        path = Path(f"/proc/{thread}/fd/{ctypes.c_int(number).value}").readlink()
    except FileNotFoundError:
        return None
    return path if path.is_absolute() else None  # otherwise a pipe or a socket


def _text(thread: int, address: int) -> str:
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        return os.fsdecode(os.pread(memory, 4096, address).split(b"\0")[0])
    finally:
        os.close(memory)


def _be_watched(run: Callable[[], None], errors: Path | None) -> None:
    """Run in the child: stop for the watcher, set the filter, run, and exit."""
    code = 1
    try:
        if errors:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
        _ptrace(_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        _set_filter()
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _set_filter() -> None:
    """Classic BPF: hand the calls of the table to the watcher, allow the rest."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    trace, allow = 0x7FF00000, 0x7FFF0000
    program = [struct.pack("<HBBI", load, 0, 0, 0)]
    for place, number in enumerate(_CALLS):
        program.append(struct.pack("<HBBI", jump_if_equal, len(_CALLS) - place, 0, number))
    program += [struct.pack("<HBBI", answer, 0, 0, verdict) for verdict in (allow, trace)]
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.addressof(head), 0, 0)):
        if _libc.prctl(*map(ctypes.c_ulong, arguments)):
            raise OSError(ctypes.get_errno(), "prctl")


def _ptrace(request: int, thread: int, address: int, data: int, *, may_be_gone: bool = False) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        if not (may_be_gone and number == 3):  # killed meanwhile
            raise OSError(number, f"ptrace: {os.strerror(number)}")
