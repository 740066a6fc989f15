"""Whose fault an error is that one file of an inbox met: the file's, its storage's, or the run's.

Whatever one file does, the others are encoded. But an error of the run, such as a full disk, is no reason to call a
file bad: all other files would meet it, too.
"""

import errno
from enum import Enum

import pyarrow as pa

from ae_pipeline.errors import DataError, PipelineError, first_line, is_out_of_memory
from ae_pipeline.operation.inbox.files.listing import FileChangedError, InboxError
from ae_pipeline.operation.inbox.files.names import shown

_OF_THE_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EILSEQ}


class Fault(Enum):
    """What to do about an error: stop the run; wait; leave the file, and try again; quarantine."""

    RUN = "run"
    CHANGING = "changing"
    STORAGE = "storage"
    FILE = "file"


def fault_of(error: BaseException) -> Fault:
    """Whose fault an error is."""
    if is_out_of_memory(error) or not isinstance(error, Exception) or isinstance(error, InboxError):
        return Fault.RUN
    if isinstance(error, PipelineError) and not isinstance(error, DataError):
        return Fault.RUN
    number = _number_of(error)
    if number in _OF_THE_RUN:
        return Fault.RUN
    if number == errno.ENOENT or isinstance(error, FileChangedError):
        return Fault.CHANGING
    return Fault.FILE if number is None or number in _OF_THE_NAME else Fault.STORAGE


def reason_of(error: BaseException, names: dict[str, str]) -> str:
    """One line for people. `names`: what paths of files and copies are called in the inbox."""
    if isinstance(error, DataError):
        found: PipelineError = error
    elif isinstance(error, OSError) and error.strerror:
        found = DataError(f"cannot be read ({error.strerror})", place=error.filename or "it")
    elif isinstance(error, pa.ArrowException):
        found = DataError(str(error))
    else:
        found = DataError(f"it cannot be used ({type(error).__name__}: {str(error) or 'no reason given'})")
    return shown(first_line(found.renamed({path: shown(name) for path, name in names.items()})))


def _number_of(error: BaseException) -> int | None:
    """What the system said, also where it was put into other words since; None if it was not asked."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return None
