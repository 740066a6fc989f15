"""Finish, then name: the one way in which this package writes files; JSON, CSV, and the digests that identify files."""

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from ae_pipeline.errors import TargetError, WorkspaceError, first_line

MOST_TEXT_BYTES = 64 << 20
"""Largest file of JSON, YAML or CSV that is read; those that people or stages write have some kilobytes."""
# Times that a temporary folder is made anew which another run has removed.
_TRIES = 3
# What a stage has checked before anything gets its final name: that it still is the owner of its outputs.
_checks: list[Callable[[], None]] = []


@contextmanager
def checked_before_naming(check: Callable[[], None]) -> Iterator[None]:
    """In the block, nothing gets its final name unless `check`, which raises an error if not, lets it."""
    _checks.append(check)
    try:
        yield
    finally:
        _checks.remove(check)


HISTORY = ("epoch", "train_loss", "validation_loss", "learning_rate")
"""Columns of a training's history."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """The bytes that a digest of `value` is taken over: sorted keys, no spaces, UTF-8, NaN refused."""
    return _CANONICAL.encode(value).encode()


def sha256_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def recorded_name(name: str) -> str:
    r"""A file's name as it stands in JSON and digests: bytes that are no UTF-8 are spelt out, as `caf\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(name: str | Path) -> bool:
    """Whether a name or path is text: else bytes of it stand for themselves, as Python has it."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def arrow_file(path: Path, mode: Literal["r", "w"] = "r") -> Any:
    """What Arrow can read from or write to: a path that is UTF-8, else the file, opened by its bytes."""
    if is_utf8(path):
        return path
    import pyarrow as pa

    return pa.OSFile(os.fsencode(path), mode)


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """All bytes of a file. Raises ValueError if it has more than `most`, before one of them is read."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, expected at most {most:,}")
        return file.read(size) if size else file.read(most)  # pipes and the like have no size


def sync_folder(path: Path) -> None:
    """Make the renames in a folder durable (POSIX asks for an fsync of the directory itself), or a file's bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def finished_file(path: Path, *, sync_name: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends well.

    The file is on disk before it has its name, so a file under its final name is always whole. Without `sync_name` a
    power cut may take its name away again, until the caller syncs the folder, as all do who finish a folder.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if temporary.is_symlink():
        temporary.unlink()  # nobody writes through a link that somebody has put there
    try:
        yield temporary
        sync_folder(temporary)
        _rename(temporary, path)
        if sync_name:
            sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # Arrow and NumPy do not say which file could not be written
            error.filename = str(path)
        # Nobody knows the temporary name. Of copies, the second one is the target.
        for name in ("filename", "filename2"):
            if getattr(error, name) in (temporary, str(temporary)):
                setattr(error, name, str(path))
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def finished_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it takes the name `path` when the block ends well.

    Raises TargetError if `path` exists already and is not an empty folder, or if another run is writing it.
    """
    refuse_existing(path)
    # Always of the same name, so that what a killed run left is found and removed by the next one.
    with locked_folder(path.with_name(f".{path.name}.partial")) as temporary:
        try:
            clear_folder(temporary)
            yield temporary
            rename_folder(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """Make a folder and lock it: of two runs that want the same work done, the second is told."""
    make_folder(folder)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The name may have gone to another folder, or this folder to another name, before it was locked.
        if not os.path.samestat(os.fstat(lock), folder.stat()):
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise TargetError(f"another run is writing {folder}; wait for it, or choose another target") from None
    try:
        yield folder
    finally:
        os.close(lock)


@contextmanager
def run_folder(prefix: str, inside: Path | None = None) -> Iterator[Path]:
    """A temporary folder for a run, locked, in `inside` or the system's. What killed runs left is removed first."""
    place = Path(inside or tempfile.gettempdir())
    for left in place.glob(f"{prefix}*"):
        if not left.is_symlink():
            with suppress(TargetError, OSError), locked_folder(left):
                shutil.rmtree(left)
    with ExitStack() as stack:
        for number in range(_TRIES):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            try:
                stack.enter_context(locked_folder(folder))
            except TargetError:  # another run took it for one that is left, in the moment before it was locked
                if number == _TRIES - 1:
                    raise
            else:
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def rename_folder(finished: Path, path: Path) -> None:
    """Give a finished folder its name; `path` may be an empty folder."""
    for item in (*finished.rglob("*"), finished):
        if item.is_dir():
            sync_folder(item)
    try:
        _rename(finished, path)
    except OSError as error:  # another writer was faster, the disk is full, or `path` is on another file system
        raise TargetError(f"cannot give {path} its name: {error.strerror}; choose another target") from None
    sync_folder(path.parent)


def _rename(finished: Path, path: Path) -> None:
    for check in _checks:
        check()
    os.replace(finished, path)


def refuse_existing(path: Path) -> None:
    """Raise TargetError unless `path` is free or an empty folder."""
    if not is_free(path):
        raise TargetError(f"{path} exists already; choose another target, or remove it first")


def refuse_inside(path: Path, folder: Path, what: str) -> None:
    """Raise TargetError if `path`, which is to be written, lies in the folder that it is made from, or is it."""
    if folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
        raise TargetError(f"{path} lies inside {what} {folder}; choose a target outside it")


def is_free(path: Path) -> bool:
    """Whether there is nothing at `path`, or an empty folder."""
    return not any(path.iterdir()) if path.is_dir() else not (path.exists() or path.is_symlink())


def require_one_file_system(work: Path, target: Path) -> None:
    """Raise TargetError, before any work, unless what is made in `work` can be moved into `target` in one step."""
    if work.stat().st_dev != target.stat().st_dev:
        raise TargetError(
            f"{work} and {target} are on different file systems, where nothing can be moved in one step; "
            "choose a work folder beside the target"
        )


def clear_folder(folder: Path, keep: Container[str] = ()) -> None:
    """Remove all that is in a folder, but the names in `keep`."""
    for item in folder.iterdir():
        if item.name not in keep:
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably, or say why not."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is in the way" if in_the_way else error.strerror
        raise TargetError(f"cannot make the folder {path}: {reason}; choose another target") from None


def json_bytes(value: Any) -> bytes:
    """`value` as indented JSON with a final newline. NaN and infinity are refused."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    data = json_bytes(value)
    with finished_file(path) as temporary:
        temporary.write_bytes(data)


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """One line per dict; the first one names the columns."""
    with finished_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, float]]:
    """Read what write_csv wrote: these columns, perhaps others, every value a number. Raises WorkspaceError."""
    try:
        text = io.StringIO(read_small(path).decode("utf-8"), newline="")
        lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(text)]
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; run `dvc repro` first") from None
    except (ValueError, TypeError, csv.Error) as error:  # TypeError: more or fewer values than columns
        raise WorkspaceError(f"{path} is not a table of numbers: {first_line(error)}; run `dvc repro` again") from None
    if not lines:
        raise WorkspaceError(f"{path} holds no lines, expected at least one; run `dvc repro` again")
    missing = [name for name in columns if name not in lines[0]]
    if missing:
        raise WorkspaceError(f"{path} has no column {', '.join(missing)}; run `dvc repro` again")
    return lines
