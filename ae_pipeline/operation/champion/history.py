"""The champion's history: which version came when, by whom, why and instead of which. Knows no MLflow.

Each entry is one tag of the registered model, `ae_pipeline.champion.000001` and so on, with the entry as JSON. Entries
are only added; all that changes in one is its state, from pending to done or abandoned.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from ae_pipeline.errors import TrackingError

PREFIX = "ae_pipeline.champion."
PROMOTED, ROLLED_BACK, MOVED_BY_HAND = "promoted", "rolled back", "moved by hand"
PENDING, DONE, ABANDONED = "pending", "done", "abandoned"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Entry:
    """One move of the alias. Versions are MLflow's, as text; null means that no version has the alias."""

    number: int
    version: str | None
    previous: str | None
    action: str
    """One of: promoted, rolled back, moved by hand (outside this program, and found out later)"""
    at: str
    """UTC, ISO 8601; of a move by hand: when it was noticed"""
    by: str
    why: str
    run_id: str | None
    """The version's MLflow run."""
    verdict: str | None
    """Artifact of that run with the comparison that decided; null: a person decided."""
    state: str
    """One of: pending, done, abandoned (the process ended before the alias was moved)"""

    @property
    def key(self) -> str:
        """Name of the tag."""
        return f"{PREFIX}{self.number:06d}"

    @property
    def value(self) -> str:
        """The tag's value."""
        values = asdict(self)
        del values["number"]
        return json.dumps(values, ensure_ascii=False)


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def next_entry(
    entries: Sequence[Entry],
    version: str | None,
    action: str,
    *,
    by: str,
    why: str,
    run_id: str | None,
    verdict: str | None = None,
    state: str = DONE,
) -> Entry:
    """A move that is made now, after these."""
    number = max((entry.number for entry in entries), default=0) + 1
    return Entry(number, version, current(entries), action, now(), by, why, run_id, verdict, state)


def read_entries(tags: Mapping[str, str]) -> list[Entry]:
    """All entries among a model's tags, oldest first. Raises TrackingError for one that is damaged."""
    entries = []
    for key in sorted(key for key in tags if key.startswith(PREFIX)):
        try:
            entries.append(Entry(number=int(key.removeprefix(PREFIX)), **json.loads(tags[key])))
        except (ValueError, TypeError):
            raise TrackingError(
                f"tag {key} of the registered model holds {tags[key][:80]!r}, expected an entry of the champion's "
                "history; correct or delete it on the model's page in MLflow"
            ) from None
    return entries


def current(entries: Sequence[Entry]) -> str | None:
    """The version that has the alias, as far as the history knows."""
    return next((entry.version for entry in reversed(entries) if entry.state == DONE), None)


def champion_before(entries: Sequence[Entry]) -> str | None:
    """The version that a rollback goes back to: the champion before the current one came; None if there is none.

    The history is replayed as a stack: a rollback takes off what came after its version, everything else goes on
    top. So several rollbacks go several steps back, whatever order versions came and came again in.
    """
    stack: list[str | None] = []
    for entry in entries:
        if entry.state != DONE:
            continue
        if entry.action == ROLLED_BACK and entry.version in stack[:-1]:
            while len(stack) > 1:
                stack.pop()
                if stack[-1] == entry.version:
                    break
        else:
            stack.append(entry.version)
    return next((version for version in reversed(stack) if version not in (None, stack[-1])), None)


def deliberate_departure(entries: Sequence[Entry], version: str) -> Entry | None:
    """The entry by which a person took the alias from `version` for good; None if nobody did.

    A promotion that a comparison decided is nobody's will against the version: it may come again. An alias that was
    taken away altogether stands against every version.
    """
    moves = [entry for entry in entries if entry.state == DONE]
    if moves and moves[-1].version is None:
        return moves[-1]
    last = next((entry for entry in reversed(moves) if entry.previous == version), None)
    return last if last is not None and last.verdict is None else None


def format_history(entries: Sequence[Entry]) -> str:
    """An aligned table, oldest first; the current champion is marked. Abandoned moves are only counted."""
    moves = [entry for entry in entries if entry.state == DONE]
    if not moves:
        return "no version has been champion yet; `ae-pipeline promote` makes one"
    ends = [*(_minute(entry.at) for entry in moves[1:]), "now"]
    rows = [("", "version", "since (UTC)", "until", "by", "how", "why")]
    for entry, end in zip(moves, ends, strict=True):
        mark, version = "*" if end == "now" else "", entry.version or "none"
        rows.append((mark, version, _minute(entry.at), end, entry.by, entry.action, entry.why))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    abandoned = sum(entry.state == ABANDONED for entry in entries)
    if abandoned:
        lines.append(f"{abandoned} move(s) abandoned before the alias was moved: --json lists them")
    return "\n".join(lines)


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")
