"""Whether outputs are those that dvc.lock records: a stage that was left behind may have written over them.

DVC's own `dvc status` takes a second, and fails while another DVC command is at work. Its digests are simple: MD5 of a
file; of a folder, MD5 of the list of its files and their MD5s.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ae_pipeline.errors import WorkspaceError

_FOLDER = ".dir"
_CACHE = Path(".dvc", "cache", "files", "md5")
# Files up to here are read in any case: manifests, and whatever else says what the large ones hold.
_SMALL = 1 << 20


def check_whole(stages: dict[str, Any], root: Path, paths: list[str]) -> None:
    """Raise WorkspaceError unless these outputs are, byte for byte, what their stages made. Reads all of them."""
    for stage, place, entry in _entries(stages, root, paths):
        if _digest(place, str(entry["md5"])) != entry["md5"]:
            raise _foreign(place, stage)


def check_shape(stages: dict[str, Any], root: Path, paths: list[str]) -> None:
    """Raise WorkspaceError unless these folders have the size and the number of files that their stages left.

    Where DVC's cache has the list of their files, the small ones are compared, too. Reads no large file.
    """
    for stage, place, entry in _entries(stages, root, paths):
        files = _files(place)
        if (len(files), sum(files.values())) != (entry.get("nfiles", 1), entry["size"]):
            raise _foreign(place, stage)
        for name, digest in _listing(root, str(entry["md5"])).items():
            if name not in files or (files[name] <= _SMALL and _md5(place / name) != digest):
                raise _foreign(place / name, stage)


def _entries(stages: dict[str, Any], root: Path, paths: list[str]) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Stage, place and record of those of the paths that dvc.lock knows by MD5, as DVC 3 does."""
    for stage, entry in stages.items():
        for out in entry.get("outs", []):
            if out.get("path") in paths and out.get("hash") == "md5":
                yield stage, root / out["path"], out


def _foreign(place: Path, stage: str) -> WorkspaceError:
    return WorkspaceError(
        f"{place} is not what stage `{stage}` made last (dvc.lock): it was changed or removed since; run `dvc repro`, "
        "which puts it right"
    )


def _digest(place: Path, expected: str) -> str | None:
    """The digest that DVC would give; None if nothing of the expected kind is there."""
    if not expected.endswith(_FOLDER):
        return _md5(place) if place.is_file() else None
    if not place.is_dir():
        return None
    listed = [{"md5": _md5(place / name), "relpath": name} for name in sorted(_files(place))]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + _FOLDER


def _files(folder: Path) -> dict[str, int]:
    """Sizes in bytes of all files below a folder, by their paths in it; links are followed, as DVC may make them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _listing(root: Path, digest: str) -> dict[str, str]:
    """MD5s of the files of a folder, by path; empty if the list is not in the cache of this workspace."""
    try:
        content = (root / _CACHE / digest[:2] / digest[2:]).read_bytes()
    except OSError:
        return {}
    if hashlib.md5(content, usedforsecurity=False).hexdigest() + _FOLDER != digest:
        return {}
    return {item["relpath"]: item["md5"] for item in json.loads(content)}


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
