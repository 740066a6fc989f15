"""What became of the files of an inbox in one run."""

from dataclasses import asdict, dataclass, field
from typing import Any

_NAMED = 3  # files of each kind that a summary names


@dataclass
class InboxRun:
    """What one run did. Files go by their path in the inbox.

    Four of its fields say why: `quarantined` cannot be used; `failed` could not be read or put into quarantine, and is
    tried again by the next run; `why_waiting` is not ready (`waiting` counts these); `left_alone` is not to be taken,
    by its name or kind. Errors are the rows' MSE of values scaled to [0, 1]; all nulls where nothing was new.
    """

    store: str = ""
    snapshot: int | None = None
    files: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    why_waiting: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    known: int = 0
    colour_to_grey: int = 0
    transparency_dropped: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    mean_error: float | None = None
    median_error: float | None = None
    p95_error: float | None = None
    max_error: float | None = None
    seconds: float = 0.0

    def statistics(self) -> dict[str, Any]:
        """The numbers, flat: files are counted."""
        counts = {name: len(getattr(self, name)) for name in ("files", "quarantined", "failed", "left_alone")}
        values = {**asdict(self), **counts}
        del values["why_waiting"]
        return values

    def summary(self) -> str:
        """One line says what became of all files but those that were known; it names a few of each kind."""
        text = f"{len(self.files)} file(s), {self.rows:,} rows encoded; {len(self.quarantined)} in quarantine"
        for what, files in (("FAILED", self.failed), ("waiting", self.why_waiting), ("left alone", self.left_alone)):
            if files:
                some = [f"{name}: {why}" for name, why in list(files.items())[:_NAMED]]
                more = f", and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
                text += f"; {len(files):,} {what} ({', '.join(some)}{more})"
        return text
