"""The files that make a folder a workspace. They are the repository's own: there is one copy to edit.

setup.py reads this file and copies them into the wheel, so nothing is imported here that is not in Python itself.
"""

from collections.abc import Iterator
from pathlib import Path

NAMES = (
    "params.yaml",
    "dvc.yaml",
    "prefect.yaml",
    "flows/*.py",
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/.gitignore",
    "data/.gitignore",
)
"""Paths in the repository and in a workspace."""
INSTALLED = Path("workspace", "originals")
"""Where they are in an installed package, from its root."""
_PACKAGE = Path(__file__).parents[1]


def originals(package: Path = _PACKAGE) -> Path:
    """The folder that has them: inside the package where a wheel was installed, else the checkout around it."""
    return package / INSTALLED if (package / INSTALLED).is_dir() else package.parent


def listed(folder: Path) -> Iterator[Path]:
    """The files in `folder`, by their paths in it. Raises FileNotFoundError that names what is not there."""
    for name in NAMES:
        found = sorted(path.relative_to(folder) for path in folder.glob(name))
        if not found:
            raise FileNotFoundError(f"{folder / name} is missing")
        yield from found
