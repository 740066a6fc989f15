"""What Prefect knows of our flows. A process of its own asks: Prefect's client is slow to import, and may wait."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ae_pipeline.errors import ServeError

_SECONDS = 30.0
# One question takes a second at most where a server answers at all.
_HURRY = {"PREFECT_API_REQUEST_TIMEOUT": "5", "PREFECT_CLIENT_MAX_RETRIES": "0"}


class AskedPrefect:
    """Begins to ask; `answer` waits for what came. The values are those of flows/overview.py."""

    def __init__(self, root: Path):
        self._root = root
        self._process = None
        if (root / "flows" / "overview.py").exists():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.overview"],
                cwd=root,
                env={**_HURRY, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def answer(self) -> dict[str, Any]:
        """Flows, slots and workers. Raises ServeError."""
        if self._process is None:
            raise ServeError(
                f"no flows/overview.py in {self._root.resolve()}; run this in the folder of the pipeline (in one of "
                "an older version: copy flows/ from a new one, which `ae-pipeline init` makes)"
            )
        try:
            output, errors = self._process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServeError(f"Prefect did not answer within {_SECONDS:.0f} s; see its server's log") from None
        finally:
            self.end()
        if self._process.returncode:
            said = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "no output")
            raise ServeError(said.removeprefix("error: "))
        return json.loads(output.splitlines()[-1])

    def end(self) -> None:
        """End the process, if it has not ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=5)
