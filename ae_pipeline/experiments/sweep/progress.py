"""A sweep's progress: one bar on a terminal, a line for every trial elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class SweepProgress:
    """One bar for a sweep, which says what its trial is at; a line for every trial that ends."""

    def __init__(self, bar: "tqdm[Any]"):
        self._bar = bar

    def at(self, what: str) -> None:
        """What the trial is at."""
        self._bar.set_postfix_str(what)

    def ended(self, line: str) -> None:
        """One more trial came to an end."""
        self.note(line)
        self._bar.update()

    def note(self, line: str) -> None:
        """A line above the bar, on standard error: what is printed may be JSON."""
        tqdm.write(line, file=sys.stderr)


@contextmanager
def sweep_progress(trials: int, done: int) -> Iterator[SweepProgress]:
    """Yield what a sweep tells of its trials; `done` were there before."""
    with tqdm(total=trials, initial=done, unit="trial", desc="sweep", disable=None) as bar:
        yield SweepProgress(bar)
