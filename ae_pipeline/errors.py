"""Every error that a user can cause. Each message is one line: what was found, what was expected, what to do next.

PipelineError
  ConfigError       params.yaml: unknown key, wrong type, values that do not fit together
  DataError         a source or a data set: missing, truncated, wrong shape, empty, not a number
    DownloadError   no mirror served the files of a source
  TrainingError     the loss became NaN or diverged
  CodecError        a codec folder: missing, damaged, of an unknown version, not the one that was expected
  StoreError        a latent store: missing, incomplete, damaged, of an unknown version
    DamagedPartError  a file of a store that is missing or not what was written; the others can be read
  UnreachableError  a store at a URL whose server does not answer or refuses: nothing is known of its files
  TargetError       what is to be written exists already, or cannot be written
  SweepError        no setting within the tolerance, none that trains, or a study that cannot be read
  GateError         a codec that does not meet the quality gate of params.yaml
  WorkspaceError    results of the stages that are missing, or not of one run
  ServeError        a server or worker that does not start, or ends by itself
  TrackingError     the tracking server cannot be reached, or lacks what was asked for
"""

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_AGAIN = "nothing incomplete has a final name, run the same command again to go on"
_ENDED = {130: f"interrupted; {_AGAIN}", 143: f"terminated; {_AGAIN}"}


_SCHEME = r"\b[A-Za-z][\w+.-]{0,30}://"
_USER = re.compile(rf"({_SCHEME})(?<!abfs://)(?<!abfss://)(?<!wasb://)(?<!wasbs://)[^\s/?#'\"]{{0,500}}@")
# SQLAlchemy takes a password with a slash in it. After a colon of http stands a port, if it is a number up to a slash.
_PASSWORD = re.compile(
    rf"(\bhttps?://(?![^\s:/]{{0,500}}:\d*(?:[/?#]|$))|(?!\bhttps?:){_SCHEME})[^\s:/?#@'\"]{{0,500}}:(?:(?!://)[^\s@'\"]){{0,500}}@"
)
_QUERY = re.compile(rf"({_SCHEME}[^\s?'\"]{{0,2000}}\?)[^\s'\"=]{{0,500}}=[^\s'\"]*[^\s'\".,;:)]")


def without_secrets(text: str) -> str:
    """The same text, where URLs have no user, no password and no query: what may be shown and logged.

    Azure's `abfss://container@account` stays: what stands before its @ names a folder.
    """
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1...", _USER.sub(r"\1", _PASSWORD.sub(r"\1", text)))


class PipelineError(Exception):
    """Base of all errors that are reported to the user as one line, without a traceback.

    Whatever a message is made of, and wherever it is shown, it holds no user information of a URL.
    """

    def __init__(self, *values: Any):
        super().__init__(*(without_secrets(value) if isinstance(value, str) else value for value in values))


class ConfigError(PipelineError):
    """A mistake in params.yaml or in an option."""


class DataError(PipelineError):
    """A source or data set that cannot be used as it is."""


class DownloadError(DataError):
    """No mirror served the files of a source."""


class TrainingError(PipelineError):
    """A training that cannot lead to a usable codec."""


class CodecError(PipelineError):
    """A codec folder that cannot be loaded or is not the expected one."""


class StoreError(PipelineError):
    """A latent store that cannot be read."""


class NewerFormatError(StoreError):
    """A store that a later version of this package wrote: nothing of it is known to be damaged."""


class DamagedPartError(StoreError):
    """One file of a store is missing or damaged; the other parts can be read."""


class UnreachableError(PipelineError):
    """A store at a URL whose server does not answer, or refuses. StoreErrors are about what is in the files."""


class TargetError(PipelineError):
    """A file or folder that cannot be written."""


class GateError(PipelineError):
    """A codec that does not meet the quality gate."""


class SweepError(PipelineError):
    """A sweep that has no answer, or whose earlier trials cannot be read."""


class WorkspaceError(PipelineError):
    """Results of the stages that are missing, or not of one run."""


class ServeError(PipelineError):
    """A server or worker that does not start, or ends by itself."""


class TrackingError(PipelineError):
    """A tracking server that cannot be reached or lacks what was asked for."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, for use inside one of ours."""
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def printable(text: str) -> str:
    """Text for a terminal: what cannot be seen, such as an escape sequence in a column name, is spelt out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had: Python, Arrow, torch and CUDA each say so in their own way."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch is not imported for this
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in ("allocate memory", "ALLOC_FAILED")))
    )


def exit_code_of(main: Callable[[], None]) -> int:
    """Run `main`; report an error of the user as one line on standard error and return the exit code.

    SIGTERM ends `main` as Ctrl-C does: by an exception, so that what is half done is cleared away.
    """
    try:
        with _sigterm_as_exit():
            main()
    except PipelineError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a lost mount, missing permission: found by any write; nothing incomplete has a final name.
        place = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or first_line(error)
        advice = "free space, give permission, or choose another path, then run the same command again"
        print(printable(f"error: {reason}{place}; {advice}"), file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(
            f"error: out of memory: {first_line(error)}; give it more, choose another device, set train.batch_size or "
            "encode.row_group_rows lower, or let fewer processors work at once (on Linux: taskset -c 0), as each one "
            "holds rows of its own",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(_ENDED[130], file=sys.stderr)
        return 130
    except SystemExit as ended:  # 130 is Typer's way of saying Ctrl-C
        if ended.code in _ENDED:
            print(_ENDED[ended.code], file=sys.stderr)
        raise
    return 0


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
