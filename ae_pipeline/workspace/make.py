"""A new workspace: whole, or not at all. No file that is there is written over."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ae_pipeline.errors import TargetError, first_line, named
from ae_pipeline.experiments.sweep.choice import write_choice
from ae_pipeline.files import finished_folder, make_folder
from ae_pipeline.workspace.files import listed, originals
from ae_pipeline.workspace.source import ChosenSource

_PARAMS = "params.yaml"
_NAMED = 5
"""The most files that a message names."""


@dataclass(frozen=True)
class MadeWorkspace:
    """What `make_workspace` made."""

    workspace: str
    source: str
    files: list[str]
    """Paths in the folder."""
    repository: str
    """The git repository that the folder is in: its own, or the one that it was made in."""


def make_workspace(folder: Path, source: ChosenSource) -> MadeWorkspace:
    """Write a workspace's files into `folder`, with the chosen source in params.yaml, and see that git has it.

    The folder may be there, and hold other files. Raises TargetError, and leaves everything as it was, where a file is
    in the way, or one cannot be written; ConfigError for settings that params.yaml does not take.
    """
    contents = _contents(folder, source)
    refuse_what_is_there(folder)
    if folder.exists():
        with _undone_by_an_error(folder, list(contents)) as written:
            _write(folder, contents, written)
            repository = _have_git(folder, folder, written)
    else:
        with finished_folder(folder) as temporary:
            _write(temporary, contents, [])
            repository = _have_git(temporary, folder, [])
    return MadeWorkspace(str(folder), source.name, list(contents), str(repository))


def _contents(folder: Path, source: ChosenSource) -> dict[str, bytes]:
    contents = {name: (originals() / name).read_bytes() for name in _names()}
    with tempfile.TemporaryDirectory() as work:
        params = Path(work, _PARAMS)
        params.write_bytes(contents[_PARAMS])
        write_choice(params, source.settings(folder))
        contents[_PARAMS] = params.read_bytes()
    return contents


def _names() -> list[str]:
    """Paths in a workspace. Raises TargetError where this installation lacks one of the files."""
    try:
        return [path.as_posix() for path in listed(originals())]
    except FileNotFoundError as error:
        raise TargetError(f"this installation of ae-pipeline is not whole: {error}; install it again") from None


def refuse_what_is_there(folder: Path) -> None:
    """Raise TargetError where a file of a workspace would be written over."""
    names = _names()
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise TargetError(f"{folder} is no folder; choose another place")
    there = [name for name in names if os.path.lexists(folder / name)]
    parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
    there += [str(path) for path in sorted(parents) if os.path.lexists(folder / path) and not _is_own(folder / path)]
    if there:
        raise TargetError(
            f"{folder} has {named(there, _NAMED)} already, and nothing is written over; choose another folder, or move "
            "them away first"
        )


def _is_own(folder: Path) -> bool:
    """Whether files may be put there: into a folder that is no link, and not into another DVC repository."""
    return folder.is_dir() and not folder.is_symlink() and folder.name != ".dvc"


@contextmanager
def _undone_by_an_error(folder: Path, names: list[str]) -> Iterator[list[Path]]:
    """Yield a list for what is put into the folder; after an error, that is removed again, and folders left empty."""
    parents = {folder / parent for name in names for parent in Path(name).parents if parent != Path()}
    new = [parent for parent in parents if not parent.exists()]
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for parent in sorted(new, reverse=True):
            with suppress(OSError):  # never made, or somebody else's files are in it
                parent.rmdir()
        raise


def _write(folder: Path, contents: dict[str, bytes], written: list[Path]) -> None:
    for name, content in contents.items():
        path = folder / name
        make_folder(path.parent)
        try:
            with open(path, "xb") as file:  # not over what somebody else made a moment ago
                written.append(path)
                file.write(content)
        except OSError as error:
            raise TargetError(f"cannot write {path}: {error.strerror}; nothing of the workspace is left") from None


def _have_git(folder: Path, final: Path, written: list[Path]) -> Path:
    """Make the folder a git repository, unless it is in one that does not ignore it: DVC needs one around it.

    Returns the repository, for the folder's final name.
    """
    place = next(path for path in (final.absolute(), *final.absolute().parents) if path.is_dir())
    around = _git(place, "rev-parse", "--show-toplevel")
    ignored = _git(place, "check-ignore", "-q", str(final.absolute() / "dvc.yaml"))
    if around.returncode == 0 and ignored.returncode != 0:
        return Path(around.stdout.strip())
    if os.path.lexists(folder / ".git"):
        said = first_line(Exception(around.stderr)) if around.returncode else "it ignores dvc.yaml"
        raise TargetError(f"{final / '.git'} is no repository for a workspace: {said}; put that right, or move it away")
    written.append(folder / ".git")
    made = _git(folder, "init", "-q")
    if made.returncode:
        raise TargetError(f"`git init` failed in {final}: {first_line(Exception(made.stderr))}; see what git misses")
    return final


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, errors="surrogateescape", check=False
        )
    except FileNotFoundError:
        raise TargetError(
            "there is no command `git`, which DVC needs; install git, and give this command again"
        ) from None
