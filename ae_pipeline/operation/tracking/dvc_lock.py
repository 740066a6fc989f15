"""Whether outputs are those that dvc.lock records: a stage that was left behind may have written over them.

DVC's own `dvc status` takes a second, and fails while another DVC command is at work. Its digests are simple: MD5 of a
file; of a folder, MD5 of the list of its files and their MD5s.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ae_pipeline.errors import WorkspaceError, first_line
from ae_pipeline.files import read_small

_FOLDER = ".dir"
_CACHE = Path(".dvc", "cache", "files", "md5")
# Files up to here are read in any case: manifests, and whatever else says what the large ones hold.
_SMALL = 1 << 20


def read_stages(root: Path) -> dict[str, Any]:
    """The stages of dvc.lock in plain values; a tag that names a Python object is an error. Raises WorkspaceError."""
    path = root / "dvc.lock"
    advice = "take it from git again, or remove it and run `dvc repro`"
    try:
        lock = YAML(typ="safe", pure=True).load(read_small(path).decode("utf-8"))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; run `dvc repro` first") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise WorkspaceError(f"{path} is not readable YAML: {first_line(error)}; {advice}") from None
    if not isinstance(lock, dict) or not isinstance(lock.get("stages"), dict):
        raise WorkspaceError(f"{path} has no `stages`; {advice}")
    stages: dict[str, Any] = lock["stages"]
    return stages


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
            if name not in files or (files[name] <= _SMALL and md5_of(place / name) != digest):
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
        return md5_of(place) if place.is_file() else None
    if not place.is_dir():
        return None
    listed = [{"md5": md5_of(place / name), "relpath": name} for name in sorted(_files(place))]
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


def md5_of(path: Path) -> str:
    """MD5 (hex) of a file's bytes, by which DVC names contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
