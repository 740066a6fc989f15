"""Copies the files of a workspace into the wheel; everything else stands in pyproject.toml.

They are the repository's own params.yaml, dvc.yaml, flows/ ...: docs/decisions.md, "The files of a workspace exist
once".
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # a build in isolation does not have it

from ae_pipeline.workspace.files import INSTALLED, listed  # noqa: E402


class WithWorkspace(build_py):
    """Builds the package with the files that `ae-pipeline init` copies."""

    def run(self) -> None:
        """An editable installation finds them in the checkout."""
        super().run()
        if not self.editable_mode:
            for source, target in self._copies().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files in the wheel."""
        return [*super().get_outputs(include_bytecode), *([] if self.editable_mode else self._copies().values())]

    def _copies(self) -> dict[str, str]:
        folder = Path(self.build_lib, "ae_pipeline", INSTALLED)
        return {str(ROOT / path): str(folder / path) for path in listed(ROOT)}


setup(cmdclass={"build_py": WithWorkspace})
