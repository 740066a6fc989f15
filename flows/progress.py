"""How far a run is, in Prefect: a progress artifact, and lines in the log, with rows per second.

told = Progress("encode-new-progress", "encode inbox")
told.begin(rows)
told(more)                                   # as rows are done
told.take("encode: 5,000 of 10,000 ...")     # or by a line that a stage prints
told.end()
"""

import re
import time
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from ae_pipeline.cli.options import row_line

# Each change of an artifact is a request to Prefect's server.
_EVERY_S = 5.0
_LOG_EVERY_S = 30.0
_LINE = re.compile(r"^(?P<what>[^:]+): (?P<done>[\d,]+) of (?P<total>[\d,]+) rows \(")


class Progress:
    """Short runs leave none: an artifact is made when a run takes longer than some seconds."""

    def __init__(self, key: str, what: str):
        self._key, self._what = key, what
        self._artifact: UUID | None = None
        self._begun = self._shown = self._logged = time.monotonic()
        self._done, self._total = 0, 0
        self._line = ""

    def begin(self, rows: int) -> None:
        """So many rows are to be done."""
        self._total = rows
        self._begun = self._shown = self._logged = time.monotonic()

    def __call__(self, rows: int) -> None:
        """So many more are done."""
        self._done += rows
        now = time.monotonic()
        self._line = row_line(self._what, self._done, self._total, now - self._begun)
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            get_run_logger().info(self._line)
        if now - self._shown >= _EVERY_S:
            self._shown = now
            self._show(self._done, self._total)

    def take(self, line: str) -> None:
        """What a stage prints, if it says how far it is."""
        if found := _LINE.match(line):
            done, total = (int(found[name].replace(",", "")) for name in ("done", "total"))
            self._line = line
            self._show(done, total)

    def end(self) -> None:
        """All is done."""
        if self._artifact is not None:
            self._line = f"{self._what}: done"  # the last line told is of before
            self._show(1, 1)

    def _show(self, done: int, total: int) -> None:
        values: dict[str, Any] = {"progress": min(100.0, 100 * done / max(total, 1)), "description": self._line}
        with suppress(Exception):  # a server that is away for a moment stops no work
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(key=self._key, **values))
            else:
                update_progress_artifact(self._artifact, **values)
