"""Where a result came from: commit, versions, machine."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    return {"python": platform.python_version(), "ae-pipeline": version("ae-pipeline"), **versions}


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
