"""Every error that a user can cause. Each message is one line: where, what was found or expected, what to do next.

raise StoreError("has 3 bytes, expected 7", place=path, advice="restore it")
str(error)                                  # path has 3 bytes, expected 7; restore it
error.place, error.finding, error.advice    # who needs one of them takes it, and reads no sentence apart
"""

import errno
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

_AGAIN = "nothing incomplete has a final name, run the same command again to go on"
# The words of the loader of libraries, glibc, torch, cuBLAS, C++, oneDNN and Python's threads.
_NO_MEMORY = (
    *("failed to map segment", "annot allocate memory", "allocate memory", "ALLOC_FAILED", "bad_alloc"),
    *("could not create a primitive", "can't start new thread"),
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_ENDED = {130: f"interrupted; {_AGAIN}", 143: f"terminated; {_AGAIN}"}


_SCHEME = r"\b[A-Za-z][\w+.-]{0,30}://"
_USER = re.compile(rf"({_SCHEME})(?<!abfs://)(?<!abfss://)(?<!wasb://)(?<!wasbs://)[^\s/?#'\"]{{0,500}}@")
# SQLAlchemy takes a password with a slash in it. After a colon of http stands a port, if it is a number up to a slash.
_PASSWORD = re.compile(
    rf"(\bhttps?://(?![^\s:/]{{0,500}}:\d*(?:[/?#]|$))|(?!\bhttps?:){_SCHEME})[^\s:/?#@'\"]{{0,500}}:(?:(?!://)[^\s@'\"]){{0,500}}@"
)
_QUERY = re.compile(rf"({_SCHEME}[^\s?'\"]{{0,2000}}\?)[^\s'\"=]{{0,500}}=[^\s'\"]*[^\s'\".,;:)]")


def without_secrets(text: str) -> str:
    """Take users, passwords and queries out of the URLs in a text, so that it may be shown and logged.

    Azure's `abfss://container@account` stays: what stands before its @ names a folder.
    """
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1...", _USER.sub(r"\1", _PASSWORD.sub(r"\1", text)))


# Folders with copies of files at a URL, and the URL that they are copies of.
_COPIES: dict[str, str] = {}


def name_in_messages(folder: Path, url: str | None) -> None:
    """Have messages name a URL in place of a folder that holds copies of its files; None: no longer."""
    if url is None:
        _COPIES.pop(str(folder), None)
    else:
        _COPIES[str(folder)] = url


def as_in_messages(text: str) -> str:
    """A text as people see it: URLs in place of the folders with their copies, and no secrets in them."""
    for folder, url in tuple(_COPIES.items()):
        text = text.replace(folder, url)
    return without_secrets(text)


class PipelineError(Exception):
    """Base of all errors that are reported to the user as one line, without a traceback.

    `place` is the file, folder or URL that the error is about, `finding` what was found there and expected, `advice`
    what to do. A finding may also be the whole sentence, where nobody asks for its parts.
    Whatever a message is made of, and wherever it is shown, it holds no user information of a URL, and no folder in
    which copies of a URL's files lie (`name_in_messages`).
    """

    def __init__(self, finding: str, *, place: Path | str | None = None, advice: str | None = None):
        named = as_in_messages(str(place))
        self.place = place if place is None or named == str(place) else named
        self.finding = as_in_messages(finding)
        self.advice = None if advice is None else as_in_messages(advice)
        sentence = self.finding if place is None else f"{self.place} {self.finding}"
        super().__init__(sentence if advice is None else f"{sentence}; {self.advice}")

    def with_fields(self, **fields: Path | str | None) -> Self:
        """Make this error again with another place, finding or advice."""
        given: dict[str, Any] = {"finding": self.finding, "place": self.place, "advice": self.advice, **fields}
        return type(self)(given.pop("finding"), **given).with_traceback(self.__traceback__)

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Make this error again with other names in its fields: an option for a knob, an original for its copy."""

        def rename(text: str) -> str:
            for name, other in names.items():
                text = text.replace(name, other)
            return text

        place = None if self.place is None else rename(str(self.place))
        advice = None if self.advice is None else rename(self.advice)
        return self.with_fields(place=place, finding=rename(self.finding), advice=advice)


class ConfigError(PipelineError):
    """A mistake in params.yaml or in an option: unknown key, wrong type, values that do not fit together."""


class DataError(PipelineError):
    """A source or data set that is missing, truncated, empty, of a wrong shape, or not of numbers."""


class IncompleteRecordError(DataError):
    """Rows that are not all those of their record, or not in its order."""


class DownloadError(DataError):
    """No mirror served the files of a source."""


class TrainingError(PipelineError):
    """A training whose loss became NaN, or diverged: it cannot lead to a usable codec."""


class CodecError(PipelineError):
    """A codec folder that is missing, damaged, of an unknown version, or not the expected one."""


class StoreError(PipelineError):
    """A latent store that is missing, incomplete, damaged, of an unknown version, or made of links."""


class NewerFormatError(StoreError):
    """A store that a later version of this package wrote: nothing of it is known to be damaged."""


class LinkedStoreError(StoreError):
    """A store whose files DVC has replaced by links into its cache: nothing of it is known to be damaged."""


class DamagedPartError(StoreError):
    """One file of a store is missing or damaged; the other parts can be read."""


class UnreachableError(PipelineError):
    """A store at a URL whose server does not answer, or refuses. StoreErrors are about what is in the files."""


class TargetError(PipelineError):
    """A file or folder that exists already, or cannot be written."""


class WorkerError(PipelineError):
    """Workers of a run that cannot begin, are not like the others, or were lost too often."""


class GateError(PipelineError):
    """A codec that does not meet the quality gate of params.yaml."""


class SweepError(PipelineError):
    """A sweep without a setting that trains or is within the tolerance, or whose study cannot be read."""


class WorkspaceError(PipelineError):
    """Results of the stages that are missing, or come from different runs."""


class BusyError(PipelineError):
    """A workspace in which another stage or flow is at work, or that is not this one's any more."""


class ServeError(PipelineError):
    """A server or worker that does not start, or ends by itself."""


class TrackingError(PipelineError):
    """A tracking server that cannot be reached or lacks what was asked for."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message that says something, for use inside one of ours."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


def named(names: Sequence[str], most: int, number: int | None = None) -> str:
    """The first names, and how many more there are: of `number`, or of these."""
    more = (len(names) if number is None else number) - len(names[:most])
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def printable(text: str) -> str:
    r"""Text for a terminal: what cannot be seen, such as an escape sequence in a column name, is spelt out.

    So are bytes of a name that are no UTF-8, as `caf\xe9`.
    """
    with suppress(UnicodeEncodeError):  # a surrogate that stands for no byte; it is spelt out below
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def warn(warnings: Iterable[str]) -> None:
    """A line for each on standard error: what is printed may be JSON."""
    for warning in warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr, flush=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had: Python, Arrow, torch, CUDA and the loader each say so in their own way."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"  # torch is not imported for this
        or (isinstance(error, RuntimeError | ImportError | OSError | SystemError) and bool(_memory_line(error)))
    )


def _memory_line(error: BaseException) -> str | None:
    """The line of a message that says so, if one does."""
    lines = str(error).splitlines()
    return next((line.strip() for line in lines if any(sign in line for sign in _NO_MEMORY)), None)


def exit_code_of(main: Callable[[], None]) -> int:
    """Run `main`; report an error of the user as one line on standard error and return the exit code.

    SIGTERM ends `main` as Ctrl-C does: by an exception, so that what is half done is cleared away.
    """
    _spell_out()
    try:
        with _sigterm_as_exit():
            main()
    except PipelineError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError, ImportError, OSError, SystemError) as error:
        if is_out_of_memory(error):
            reason = _out_of_memory(error)
        elif isinstance(error, OSError):
            reason = _not_possible(error)
        else:
            raise
        print(printable(f"error: {reason}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(_ENDED[130], file=sys.stderr)
        return 130
    except SystemExit as ended:  # 130 is Typer's way of saying Ctrl-C
        if ended.code in _ENDED:
            print(_ENDED[ended.code], file=sys.stderr)
        raise
    return 0


def _out_of_memory(error: BaseException) -> str:
    return (
        f"out of memory: {_memory_line(error) or first_line(error)}; give it more (`ulimit -v` shows a limit), choose "
        "another device, set the rows of a row group lower (--row-group-rows, in params.yaml encode.row_group_rows) or "
        "for a training train.batch_size, or let fewer processors work at once (on Linux: taskset -c 0), as each one "
        "holds rows of its own"
    )


def _not_possible(error: OSError) -> str:
    """A full disk, a lost mount, missing permission: found by any write; nothing incomplete has a final name."""
    place = f" ({error.filename})" if error.filename else ""
    if error.filename2 is not None:  # of copying and renaming: a full disk is the target's
        place = f" ({error.filename2})" if error.errno in _FULL else f" ({error.filename} to {error.filename2})"
    advice = "free space, give permission, or choose another path, then run the same command again"
    return f"{error.strerror or first_line(error)}{place}; {advice}"


def _spell_out() -> None:
    """Spell out what a terminal or pipe cannot show, such as an umlaut in ASCII, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """SIGTERM raises SystemExit(143) in the main thread; not where somebody else handles or ignores it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(*_: Any) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
