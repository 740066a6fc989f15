"""Where a result came from: commit, versions, machine, the package's own code."""

import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ae_pipeline import __version__
from ae_pipeline.files import sha256_file, sha256_json

PACKAGE = Path(__file__).parent
"""The installed package's folder."""
CODE_FILE = "code.json"
"""What `code_digests` found, in a workspace; stages name entries of it in dvc.yaml."""
_LIBRARIES = ("torch", "numpy", "pyarrow", "safetensors")


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the checkout and whether tracked files differ from it; nulls outside a checkout.

    dvc.lock does not count: DVC rewrites it while the stages run.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)dvc.lock")
    return {"commit": commit, "dirty": bool(changes)}


@cache
def library_versions() -> dict[str, str]:
    """Versions of what computes and writes."""
    versions = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "ae-pipeline": __version__, **versions}


def code_digests(package: Path = PACKAGE) -> dict[str, str]:
    """A SHA-256 (hex) for a package and each folder and Python file in it, by path: `ae_pipeline/store/format`.

    A folder's digest is taken over the paths and contents of all files in it and below, but for what Python and editors
    leave: `__pycache__`, and names that begin with a dot. So it is the same for an installed package and a checkout.
    """
    digests: dict[Path, str] = {}
    inside: dict[Path, dict[str, str]] = {}
    for file in sorted(_code_files(package)):
        path, digest = file.relative_to(package.parent), sha256_file(file)
        for folder in path.parents[:-1]:
            inside.setdefault(folder, {})[path.relative_to(folder).as_posix()] = digest
        if path.suffix == ".py":
            digests[path.with_suffix("")] = digest
    digests |= {folder: sha256_json(files) for folder, files in inside.items()}
    return {path.as_posix(): digest for path, digest in sorted(digests.items())}


def _code_files(package: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(package):
        names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith(".") and not name.endswith(".pyc"))


def machine() -> dict[str, str]:
    """What float results depend on: results are promised to be the same for one of these."""
    import torch

    return {
        "platform": platform.system(),
        "architecture": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
